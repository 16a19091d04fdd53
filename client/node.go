package client

import (
	"slices"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

const maxAnswerBytes = 16 << 20

// node is one address, the generated clients that speak to it, and how it has been doing.
type node struct {
	address string
	tokens  keyquorumv1connect.TokenServiceClient
	keys    keyquorumv1connect.KeyServiceClient
	cluster keyquorumv1connect.ClusterServiceClient
	// members is cluster for what the client asks by itself, of whoever has the address: its answers are short.
	members keyquorumv1connect.ClusterServiceClient

	health
}

func (c *Client) newNode(address string) *node {
	return &node{
		address: address,
		tokens:  keyquorumv1connect.NewTokenServiceClient(c.http, address, c.options...),
		keys:    keyquorumv1connect.NewKeyServiceClient(c.http, address, c.options...),
		cluster: keyquorumv1connect.NewClusterServiceClient(c.http, address, c.options...),
		members: keyquorumv1connect.NewClusterServiceClient(c.http, address,
			append(slices.Clip(c.options), connect.WithReadMaxBytes(maxMembersBytes))...),
	}
}

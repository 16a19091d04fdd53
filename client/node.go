package client

import (
	"net"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

const (
	dialTimeout     = 3 * time.Second
	idlePerNode     = 64
	idleTimeout     = 90 * time.Second
	maxAnswerBytes  = 16 << 20
	maxHeaderBytes  = 64 << 10
	handshakeLimit  = 5 * time.Second
	keepAlivePeriod = 15 * time.Second
)

// node is one address, the generated clients that speak to it, and how it has been doing.
type node struct {
	address string
	tokens  keyquorumv1connect.TokenServiceClient
	keys    keyquorumv1connect.KeyServiceClient
	cluster keyquorumv1connect.ClusterServiceClient
	audit   keyquorumv1connect.AuditServiceClient
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
		audit:   keyquorumv1connect.NewAuditServiceClient(c.http, address, c.options...),
		members: keyquorumv1connect.NewClusterServiceClient(c.http, address,
			append(slices.Clip(c.options), connect.WithReadMaxBytes(maxMembersBytes))...),
	}
}

// newHTTPClient speaks HTTP/1.1 to http addresses and HTTP/2, where offered, to https ones. It goes straight to
// the nodes, whatever proxy the environment names, and follows no redirect: a token is sent only to where the
// caller said.
func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlivePeriod}).DialContext,
			TLSHandshakeTimeout:    handshakeLimit,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    idlePerNode,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

package rpc

import (
	"context"
	"net"

	"connectrpc.com/connect"
)

// anonymous is every caller's name for as long as there is no access control.
const anonymous = "anonymous"

// callerOf tells who sent the request of ctx.
func callerOf(ctx context.Context, node Node, peer connect.Peer) Caller {
	return Caller{Actor: anonymous, Source: host(peer.Addr), Node: node.Name(), RequestID: RequestID(ctx)}
}

// host gives an address without its port, or as it is where it has none.
func host(address string) string {
	h, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return h
}

package rpc

import (
	"context"
	"net"

	"connectrpc.com/connect"
)

// callerOf tells who sent the request of ctx.
func callerOf(ctx context.Context, node Node, peer connect.Peer) Caller {
	who := callOf(ctx).who
	if who == nil {
		who = anonymous
	}
	return Caller{Actor: who.actor, Source: host(peer.Addr), Node: node.Name(), RequestID: RequestID(ctx)}
}

// host gives an address without its port, or as it is where it has none.
func host(address string) string {
	h, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return h
}

package client

import (
	"context"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Status tells how the node that answers sees itself and the cluster. For a certain node, use a Client of its address
// alone, with InOrder.
func (c *Client) Status(ctx context.Context) (*v1.StatusResponse, error) {
	return call(ctx, c, operation{"Status", repeatable, quick}, &v1.StatusRequest{},
		func(n *node) procedure[v1.StatusRequest, v1.StatusResponse] { return n.cluster.Status })
}

// Members lists the cluster's members, as the node that answers has them.
func (c *Client) Members(ctx context.Context) (*v1.MembersResponse, error) {
	return call(ctx, c, operation{"Members", repeatable, quick}, &v1.MembersRequest{},
		func(n *node) procedure[v1.MembersRequest, v1.MembersResponse] { return n.cluster.Members })
}

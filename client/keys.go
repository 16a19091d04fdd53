package client

import (
	"context"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Rotate makes the subject a new active key. With ExpectedKeyId it is sent again where an attempt failed, and
// fails with ErrConflict where that is no longer the active key.
func (c *Client) Rotate(ctx context.Context, req *v1.RotateRequest) (*v1.RotateResponse, error) {
	return call(ctx, c, operation{"Rotate", expecting(req.GetExpectedKeyId()), write}, req,
		func(n *node) procedure[v1.RotateRequest, v1.RotateResponse] { return n.keys.Rotate })
}

// Revoke deletes all keys of the subject and makes a new one. When it has returned, no node calls a token valid that was
// issued before (a verification that asked for STALE_OK aside), also where nodes are cut off: then it takes as long as it
// takes until those refuse by themselves. With ErrConflict nothing was revoked; with any other
// error than that and ErrNotFound, it may have been, and some node may still accept it. ExpectedKeyId works as in Rotate.
func (c *Client) Revoke(ctx context.Context, req *v1.RevokeRequest) (*v1.RevokeResponse, error) {
	return call(ctx, c, operation{"Revoke", expecting(req.GetExpectedKeyId()), ending}, req,
		func(n *node) procedure[v1.RevokeRequest, v1.RevokeResponse] { return n.keys.Revoke })
}

// Delete forgets the subject and all its keys. It returns as Revoke does. ExpectedKeyId works as in Rotate.
func (c *Client) Delete(ctx context.Context, req *v1.DeleteRequest) (*v1.DeleteResponse, error) {
	return call(ctx, c, operation{"Delete", expecting(req.GetExpectedKeyId()), ending}, req,
		func(n *node) procedure[v1.DeleteRequest, v1.DeleteResponse] { return n.keys.Delete })
}

// Get shows the keys of one subject, as the node that answers has them.
func (c *Client) Get(ctx context.Context, req *v1.GetRequest) (*v1.GetResponse, error) {
	return call(ctx, c, operation{"Get", repeatable, quick}, req,
		func(n *node) procedure[v1.GetRequest, v1.GetResponse] { return n.keys.Get })
}

// List gives one page of the subjects and their keys, in byte order of the subject.
func (c *Client) List(ctx context.Context, req *v1.ListRequest) (*v1.ListResponse, error) {
	return call(ctx, c, operation{"List", repeatable, bulk}, req,
		func(n *node) procedure[v1.ListRequest, v1.ListResponse] { return n.keys.List })
}

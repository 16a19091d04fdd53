package client

import (
	"context"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Issue makes a token for a subject that the caller has authenticated. Claims come from Claims or ParseClaims.
// Each call makes a token of its own, so it is sent again, to other nodes, whatever became of an attempt.
func (c *Client) Issue(ctx context.Context, req *v1.IssueRequest) (*v1.IssueResponse, error) {
	return call(ctx, c, operation{"Issue", repeatable}, req,
		func(n *node) procedure[v1.IssueRequest, v1.IssueResponse] { return n.tokens.Issue })
}

// Verify has one token judged. A token that is not valid is an answer with its reason, not an error.
func (c *Client) Verify(ctx context.Context, req *v1.VerifyRequest) (*v1.VerifyResponse, error) {
	return call(ctx, c, operation{"Verify", repeatable}, req,
		func(n *node) procedure[v1.VerifyRequest, v1.VerifyResponse] { return n.tokens.Verify })
}

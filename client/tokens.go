package client

import (
	"context"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Issue makes a token for a subject that the caller has authenticated. Claims come from Claims or ParseClaims.
// Each call makes a token of its own, so it is sent again, to other nodes, whatever became of an attempt.
func (c *Client) Issue(ctx context.Context, req *v1.IssueRequest) (*v1.IssueResponse, error) {
	return call(ctx, c, operation{"Issue", repeatable, write}, req,
		func(n *node) procedure[v1.IssueRequest, v1.IssueResponse] { return n.tokens.Issue })
}

// Verify has one token judged. A token that is not valid is an answer with its reason, not an error. How old the state may
// be that it is judged on, Consistency says; unless set, as old as the cluster's maxStaleness.
func (c *Client) Verify(ctx context.Context, req *v1.VerifyRequest) (*v1.VerifyResponse, error) {
	return call(ctx, c, operation{"Verify", repeatable, quick}, req,
		func(n *node) procedure[v1.VerifyRequest, v1.VerifyResponse] { return n.tokens.Verify })
}

// VerifyBatch has up to 256 tokens judged, each by itself: one verdict for each, in order.
func (c *Client) VerifyBatch(ctx context.Context, req *v1.VerifyBatchRequest) (*v1.VerifyBatchResponse, error) {
	res, err := call(ctx, c, operation{"VerifyBatch", repeatable, bulk}, req,
		func(n *node) procedure[v1.VerifyBatchRequest, v1.VerifyBatchResponse] { return n.tokens.VerifyBatch })
	if err == nil && len(res.GetVerdicts()) != len(req.GetTokens()) {
		return nil, &Error{Op: "VerifyBatch", Message: errHollow.Error(), kind: ErrInternal}
	}
	return res, err
}

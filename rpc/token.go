package rpc

import (
	"context"

	"connectrpc.com/connect"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// tokenService serves keyquorum.v1.TokenService.
type tokenService struct{ node Node }

func (s tokenService) Issue(ctx context.Context, req *connect.Request[v1.IssueRequest]) (*connect.Response[v1.IssueResponse], error) {
	return write(ctx, s.node, req, checkIssue, s.node.Issue)
}

func (s tokenService) Verify(ctx context.Context, req *connect.Request[v1.VerifyRequest]) (*connect.Response[v1.VerifyResponse], error) {
	return answer(ctx, req, checkVerify, s.node.Verify)
}

func (s tokenService) VerifyBatch(ctx context.Context, req *connect.Request[v1.VerifyBatchRequest]) (*connect.Response[v1.VerifyBatchResponse], error) {
	return answer(ctx, req, checkVerifyBatch, s.node.VerifyBatch)
}

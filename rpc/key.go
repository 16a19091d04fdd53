package rpc

import (
	"context"

	"connectrpc.com/connect"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// keyService serves keyquorum.v1.KeyService.
type keyService struct{ node Node }

func (s keyService) Rotate(ctx context.Context, req *connect.Request[v1.RotateRequest]) (*connect.Response[v1.RotateResponse], error) {
	return write(ctx, s.node, req, checkKeyChange, s.node.Rotate)
}

func (s keyService) Revoke(ctx context.Context, req *connect.Request[v1.RevokeRequest]) (*connect.Response[v1.RevokeResponse], error) {
	return write(ctx, s.node, req, checkKeyChange, s.node.Revoke)
}

func (s keyService) Delete(ctx context.Context, req *connect.Request[v1.DeleteRequest]) (*connect.Response[v1.DeleteResponse], error) {
	return write(ctx, s.node, req, checkKeyChange, s.node.Delete)
}

func (s keyService) Get(ctx context.Context, req *connect.Request[v1.GetRequest]) (*connect.Response[v1.GetResponse], error) {
	return answer(ctx, req, checkGet, s.node.Get)
}

func (s keyService) List(ctx context.Context, req *connect.Request[v1.ListRequest]) (*connect.Response[v1.ListResponse], error) {
	return answer(ctx, req, checkList, s.node.List)
}

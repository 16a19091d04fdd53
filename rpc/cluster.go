package rpc

import (
	"context"

	"connectrpc.com/connect"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// clusterService serves keyquorum.v1.ClusterService.
type clusterService struct{ node Node }

func (s clusterService) Init(ctx context.Context, req *connect.Request[v1.InitRequest]) (*connect.Response[v1.InitResponse], error) {
	return write(ctx, s.node, req, checkInit, s.node.Init)
}

func (s clusterService) Status(ctx context.Context, req *connect.Request[v1.StatusRequest]) (*connect.Response[v1.StatusResponse], error) {
	return answer(ctx, req, unchecked, noRequest[v1.StatusRequest](s.node.Status))
}

func (s clusterService) Members(ctx context.Context, req *connect.Request[v1.MembersRequest]) (*connect.Response[v1.MembersResponse], error) {
	return answer(ctx, req, unchecked, noRequest[v1.MembersRequest](s.node.Members))
}

func (s clusterService) Remove(ctx context.Context, req *connect.Request[v1.RemoveRequest]) (*connect.Response[v1.RemoveResponse], error) {
	return write(ctx, s.node, req, checkRemove, s.node.Remove)
}

func (s clusterService) TransferLeadership(ctx context.Context, req *connect.Request[v1.TransferLeadershipRequest]) (*connect.Response[v1.TransferLeadershipResponse], error) {
	return write(ctx, s.node, req, checkTransfer, s.node.TransferLeadership)
}

func (s clusterService) GetSettings(ctx context.Context, req *connect.Request[v1.GetSettingsRequest]) (*connect.Response[v1.GetSettingsResponse], error) {
	return answer(ctx, req, unchecked, noRequest[v1.GetSettingsRequest](s.node.GetSettings))
}

func (s clusterService) UpdateSettings(ctx context.Context, req *connect.Request[v1.UpdateSettingsRequest]) (*connect.Response[v1.UpdateSettingsResponse], error) {
	return write(ctx, s.node, req, checkUpdateSettings, s.node.UpdateSettings)
}

func (s clusterService) KeyringStatus(ctx context.Context, req *connect.Request[v1.KeyringStatusRequest]) (*connect.Response[v1.KeyringStatusResponse], error) {
	return answer(ctx, req, unchecked, noRequest[v1.KeyringStatusRequest](s.node.KeyringStatus))
}

func (s clusterService) RetireMasterKey(ctx context.Context, req *connect.Request[v1.RetireMasterKeyRequest]) (*connect.Response[v1.RetireMasterKeyResponse], error) {
	return write(ctx, s.node, req, checkRetireMasterKey, s.node.RetireMasterKey)
}

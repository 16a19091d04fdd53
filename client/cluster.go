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

// Init founds a cluster, once, at the first of the addresses that the client was given, and asks no other: of two nodes
// that do not see each other, each would found one. A node that is in a cluster says so.
func (c *Client) Init(ctx context.Context, req *v1.InitRequest) (*v1.InitResponse, error) {
	return call(ctx, c, operation{"Init", onceSent, founding}, req,
		func(n *node) procedure[v1.InitRequest, v1.InitResponse] { return n.cluster.Init })
}

// Remove takes a member out of the cluster for good.
func (c *Client) Remove(ctx context.Context, req *v1.RemoveRequest) (*v1.RemoveResponse, error) {
	return call(ctx, c, operation{"Remove", onceSent, write}, req,
		func(n *node) procedure[v1.RemoveRequest, v1.RemoveResponse] { return n.cluster.Remove })
}

// TransferLeadership hands leadership to the named voter, or to the one that is furthest along.
func (c *Client) TransferLeadership(ctx context.Context, req *v1.TransferLeadershipRequest) (*v1.TransferLeadershipResponse, error) {
	return call(ctx, c, operation{"TransferLeadership", onceSent, write}, req,
		func(n *node) procedure[v1.TransferLeadershipRequest, v1.TransferLeadershipResponse] {
			return n.cluster.TransferLeadership
		})
}

// GetSettings gives the cluster's settings, as the node that answers has them.
func (c *Client) GetSettings(ctx context.Context) (*v1.GetSettingsResponse, error) {
	return call(ctx, c, operation{"GetSettings", repeatable, quick}, &v1.GetSettingsRequest{},
		func(n *node) procedure[v1.GetSettingsRequest, v1.GetSettingsResponse] { return n.cluster.GetSettings })
}

// UpdateSettings changes the settings that are present, all or none. It says what they shall be, so it is sent again
// whatever became of an attempt. With ErrOutcomeUnknown none succeeded and one may have: GetSettings shows it.
func (c *Client) UpdateSettings(ctx context.Context, req *v1.UpdateSettingsRequest) (*v1.UpdateSettingsResponse, error) {
	return call(ctx, c, operation{"UpdateSettings", checked, write}, req,
		func(n *node) procedure[v1.UpdateSettingsRequest, v1.UpdateSettingsResponse] {
			return n.cluster.UpdateSettings
		})
}

// KeyringStatus tells which master keys there are, what is sealed under them, and which members hold them.
func (c *Client) KeyringStatus(ctx context.Context) (*v1.KeyringStatusResponse, error) {
	return call(ctx, c, operation{"KeyringStatus", repeatable, bulk}, &v1.KeyringStatusRequest{},
		func(n *node) procedure[v1.KeyringStatusRequest, v1.KeyringStatusResponse] {
			return n.cluster.KeyringStatus
		})
}

// RetireMasterKey has nothing be sealed under a master key any more. It does no harm to do it again, so it is sent again
// whatever became of an attempt. With ErrOutcomeUnknown none succeeded and one may have: KeyringStatus shows it.
func (c *Client) RetireMasterKey(ctx context.Context, req *v1.RetireMasterKeyRequest) (*v1.RetireMasterKeyResponse, error) {
	return call(ctx, c, operation{"RetireMasterKey", checked, write}, req,
		func(n *node) procedure[v1.RetireMasterKeyRequest, v1.RetireMasterKeyResponse] {
			return n.cluster.RetireMasterKey
		})
}

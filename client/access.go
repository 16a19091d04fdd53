package client

import (
	"context"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// CreateToken makes an API token, by which callers without a certificate are known. The answer has the token, this once. It
// is not sent again: where the outcome is unknown there may be a token that nobody has, which ListTokens shows.
func (c *Client) CreateToken(ctx context.Context, req *v1.CreateTokenRequest) (*v1.CreateTokenResponse, error) {
	return call(ctx, c, operation{"CreateToken", onceSent, write}, req,
		func(n *node) procedure[v1.CreateTokenRequest, v1.CreateTokenResponse] { return n.access.CreateToken })
}

// ListTokens shows what is kept of the API tokens, as the node that answers has them.
func (c *Client) ListTokens(ctx context.Context) (*v1.ListTokensResponse, error) {
	return call(ctx, c, operation{"ListTokens", repeatable, bulk}, &v1.ListTokensRequest{},
		func(n *node) procedure[v1.ListTokensRequest, v1.ListTokensResponse] { return n.access.ListTokens })
}

// RevokeToken ends an API token. With ErrNotFound there is none with that id.
func (c *Client) RevokeToken(ctx context.Context, req *v1.RevokeTokenRequest) (*v1.RevokeTokenResponse, error) {
	return call(ctx, c, operation{"RevokeToken", onceSent, write}, req,
		func(n *node) procedure[v1.RevokeTokenRequest, v1.RevokeTokenResponse] { return n.access.RevokeToken })
}

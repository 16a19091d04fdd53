package client

import (
	"context"
	"net"
)

// WithDialer has the client's own transport make its connections so.
func WithDialer(dial func(ctx context.Context, network, address string) (net.Conn, error)) Option {
	return func(c *config) { c.dial = dial }
}

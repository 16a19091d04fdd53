package certs

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
)

// Dial connects to HOST:PORT, as net.Dialer's DialContext does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Listener gives a listener that speaks TLS over the connections of l, as Server describes. A connection is shaken hands on
// at its first Read or Write, within whatever deadline it has then.
func (s *Source) Listener(l net.Listener, who Callers) net.Listener {
	return tls.NewListener(l, s.Server(who))
}

// Dialer gives a Dial that speaks TLS over what dial connects, as Client describes, and has shaken hands when it returns. The
// protocols are offered by ALPN (RFC 7301). What it gives is a *tls.Conn.
func (s *Source) Dialer(dial Dial, protocols ...string) Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("connect by TLS: %w", err)
		}
		raw, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c, err := s.Dial(ctx, raw, host, protocols...)
		if err != nil {
			return nil, fmt.Errorf("TLS with %s: %w", address, err)
		}
		return c, nil
	}
}

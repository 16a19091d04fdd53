package node

import (
	"context"
	"net"
	"sync"

	"github.com/keyquorum/keyquorum/internal/certs"
)

// dials are the connections to other nodes, so that none outlives this one: http.Transport closes only those that are
// idle, and leaves alone what is still being opened.
type dials struct {
	dial certs.Dial

	mu     sync.Mutex
	open   map[*dialled]struct{}
	closed bool
}

func newDials(dial certs.Dial) *dials { return &dials{dial: dial, open: make(map[*dialled]struct{})} }

// dialled is a connection that is forgotten once it is closed.
type dialled struct {
	net.Conn
	of *dials
}

// Close implements net.Conn.
func (c *dialled) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// connect opens a connection; after close, none.
func (d *dials) connect(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	c := &dialled{conn, d}
	d.open[c] = struct{}{}
	return c, nil
}

// close closes all of them.
func (d *dials) close() {
	d.mu.Lock()
	open := d.open
	d.open, d.closed = nil, true
	d.mu.Unlock()
	for c := range open {
		_ = c.Conn.Close()
	}
}

// dialError tells that a request was never sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// unsent has every failure of dial say that a request was never sent.
func unsent(dial certs.Dial) certs.Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, &dialError{err}
		}
		return c, nil
	}
}

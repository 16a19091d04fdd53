package node

import (
	"context"
	"net"
	"sync"
)

// dials are the connections to other nodes, so that none outlives this one: http.Transport closes only those that are
// idle, and leaves alone what is still being opened.
type dials struct {
	dial dialFunc

	mu     sync.Mutex
	open   map[*dialled]struct{}
	closed bool
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func newDials(dial dialFunc) *dials { return &dials{dial: dial, open: make(map[*dialled]struct{})} }

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
		return nil, &dialError{err}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = conn.Close()
		return nil, &dialError{net.ErrClosed}
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

package bench

import (
	"context"
	"errors"
	"net"
	"sync"
)

// plug is between a member and its sockets. Once pulled, nothing goes in or out any more, and the others see broken
// connections, as when a process is killed.
type plug struct {
	mu     sync.Mutex
	pulled bool
	open   map[net.Conn]struct{}
}

var errPulled = errors.New("the plug is pulled")

func newPlug() *plug { return &plug{open: make(map[net.Conn]struct{})} }

func (p *plug) pull() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pulled = true
	for c := range p.open {
		_ = c.Close()
	}
	clear(p.open)
}

// pass lets a connection through, or closes it.
func (p *plug) pass(c net.Conn) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pulled {
		return nil, errors.Join(errPulled, c.Close())
	}
	p.open[c] = struct{}{}
	return &plugged{Conn: c, plug: p}, nil
}

func (p *plug) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return p.pass(c)
}

func (p *plug) listener(l net.Listener) net.Listener { return &pluggedListener{Listener: l, plug: p} }

type pluggedListener struct {
	net.Listener
	plug *plug
}

// Accept drops what comes after the plug was pulled.
func (l *pluggedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c, err = l.plug.pass(c); err == nil {
			return c, nil
		}
	}
}

type plugged struct {
	net.Conn
	plug *plug
}

func (c *plugged) Close() error {
	c.plug.mu.Lock()
	delete(c.plug.open, c.Conn)
	c.plug.mu.Unlock()
	return c.Conn.Close()
}

package member

import (
	"context"
	"errors"
	"net"
	"sync"
)

// Plug is between a member and its sockets. Once it is pulled, nothing goes in or out any more, and the others see
// broken connections, as when a process is killed. It is safe for concurrent use.
type Plug struct {
	mu     sync.Mutex
	pulled bool
	open   map[net.Conn]struct{}
}

var errPulled = errors.New("this node was killed")

// NewPlug gives one that lets everything through.
func NewPlug() *Plug { return &Plug{open: make(map[net.Conn]struct{})} }

// Pull cuts all connections, and those to come.
func (p *Plug) Pull() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pulled = true
	for c := range p.open {
		_ = c.Close()
	}
	clear(p.open)
}

// add lets a connection through, or closes it where the plug is pulled.
func (p *Plug) add(c net.Conn) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pulled {
		return nil, errors.Join(errPulled, c.Close())
	}
	p.open[c] = struct{}{}
	return &plugged{Conn: c, plug: p}, nil
}

func (p *Plug) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return p.add(c)
}

func (p *Plug) listener(l net.Listener) net.Listener { return &pluggedListener{Listener: l, plug: p} }

type pluggedListener struct {
	net.Listener
	plug *Plug
}

// Accept drops what comes after the plug was pulled.
func (l *pluggedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c, err = l.plug.add(c); err == nil {
			return c, nil
		}
	}
}

type plugged struct {
	net.Conn
	plug *Plug
}

// Close also forgets the connection.
func (c *plugged) Close() error {
	c.plug.mu.Lock()
	delete(c.plug.open, c.Conn)
	c.plug.mu.Unlock()
	return c.Conn.Close()
}

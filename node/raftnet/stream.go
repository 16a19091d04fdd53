package raftnet

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// stream is a raft.StreamLayer that knows its connections: the library's Close leaves those that other nodes
// opened, and the goroutines that read them, to the other nodes.
type stream struct {
	net.Listener
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
	elsewhere func(id raft.ServerID) raft.ServerAddress
	advertise advertised
	max       int
	local     string // whom connections from outside must be meant for; empty for anybody
	log       hclog.Logger
	ctx       context.Context //nolint:containedctx // the stream's own life: it ends with Close, and dialling with it
	cancel    context.CancelFunc

	mu       sync.Mutex
	conns    map[*conn]struct{}
	accepted int
	full     bool // the last connection from outside was turned away
	closed   bool
}

var _ raft.StreamLayer = (*stream)(nil)

// advertised is an address as other nodes know it; its host may be a name.
type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

func newStream(cfg TCPConfig) *stream {
	s := &stream{
		Listener:  cfg.Listener,
		dial:      cfg.Dial,
		elsewhere: cfg.Elsewhere,
		advertise: advertised(cfg.Advertise),
		max:       cfg.MaxConns,
		local:     string(cfg.LocalID),
		log:       cfg.Logger,
		conns:     make(map[*conn]struct{}),
	}
	//nolint:forbidigo // raft's interface gives no context to dial in
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Addr is the address that other nodes are told.
func (s *stream) Addr() net.Addr { return s.advertise }

// Dial connects to another node.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, hostPort := recipient(address)
	c, err := s.connect(id, hostPort, timeout)
	if err != nil {
		return nil, err
	}
	if id != "" {
		if err := greet(c, id, timeout); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	tracked, ok := s.track(c, false)
	if !ok {
		return nil, net.ErrClosed
	}
	return tracked, nil
}

// connect dials a node where it should be, or elsewhere.
func (s *stream) connect(id, hostPort string, timeout time.Duration) (net.Conn, error) {
	other := string(s.elsewhere(raft.ServerID(id)))
	if id == "" || other == "" || other == hostPort {
		return s.connectTo(hostPort, timeout)
	}
	c, err := s.connectTo(hostPort, timeout/2)
	if err == nil {
		return c, nil
	}
	c, again := s.connectTo(other, timeout/2)
	if again != nil {
		return nil, errors.Join(err, again)
	}
	return c, nil
}

func (s *stream) connectTo(hostPort string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	return s.dial(ctx, "tcp", hostPort)
}

// Accept gives the next connection that is within the bound.
func (s *stream) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if tracked, ok := s.track(c, true); ok {
			return tracked, nil
		}
	}
}

// Close closes the listener and all connections.
func (s *stream) Close() error {
	s.cancel()
	err := s.Listener.Close()
	for _, c := range s.drain() {
		_ = c.Close()
	}
	return err
}

func (s *stream) drain() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

// track notes c, or closes it if there is no room for it.
func (s *stream) track(c net.Conn, accepted bool) (*conn, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || accepted && !s.room(c) {
		_ = c.Close()
		return nil, false
	}
	tracked := &conn{Conn: c, of: s, accepted: accepted}
	s.conns[tracked] = struct{}{}
	if accepted {
		s.accepted++
	}
	return tracked, true
}

// room tells whether one more connection from outside may be open. It says so once when there is none any more.
func (s *stream) room(c net.Conn) bool {
	full := s.accepted >= s.max
	if full && !s.full {
		s.log.Warn("too many connections to the raft port: more are turned away", "open", s.accepted, "from", c.RemoteAddr().String())
	}
	s.full = full
	return !full
}

func (s *stream) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	if c.accepted {
		s.accepted--
	}
}

type conn struct {
	net.Conn
	of       *stream
	accepted bool
	greeted  bool // of the one goroutine that reads
}

// Read looks at the greeting of a connection from outside first.
func (c *conn) Read(b []byte) (int, error) {
	if c.accepted && c.of.local != "" && !c.greeted {
		if err := readGreeting(c.Conn, c.of.local); err != nil {
			c.of.log.Debug("a connection to the raft port is closed", "error", err)
			_ = c.Close()
			return 0, io.EOF
		}
		c.greeted = true
	}
	return c.Conn.Read(b)
}

func (c *conn) Close() error {
	c.of.forget(c)
	return c.Conn.Close()
}

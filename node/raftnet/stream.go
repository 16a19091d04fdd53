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

	"github.com/keyquorum/keyquorum/internal/conncap"
)

// stream is a raft.StreamLayer that knows its connections: the library's Close leaves those that other nodes
// opened, and the goroutines that read them, to the other nodes.
type stream struct {
	net.Listener
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
	elsewhere func(id raft.ServerID) raft.ServerAddress
	advertise advertised
	patience  time.Duration // with who connects and does not say for whom
	strangers *conncap.Set  // who have not said it yet
	callers   *conncap.Set  // who have
	local     string        // whom connections from outside must be meant for; empty for anybody
	log       hclog.Logger
	ctx       context.Context //nolint:containedctx // the stream's own life: it ends with Close, and dialling with it
	cancel    context.CancelFunc

	mu     sync.Mutex
	conns  map[*conn]struct{}
	closed bool
	told   time.Time // when the log was last told that there were too many
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
		patience:  cfg.Timeout,
		local:     string(cfg.LocalID),
		log:       cfg.Logger,
		conns:     make(map[*conn]struct{}),
	}
	s.strangers = conncap.New(cfg.MaxConns/4, s.crowded)
	s.callers = conncap.New(cfg.MaxConns-cfg.MaxConns/4, s.crowded)
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
	tracked, ok := s.track(c, nil)
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

// Accept gives the next connection.
func (s *stream) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	guarded := conncap.Wrap(c)
	tracked, ok := s.track(guarded, guarded)
	if !ok {
		return nil, net.ErrClosed
	}
	if s.local == "" {
		guarded.Enter(s.callers)
		return tracked, nil
	}
	guarded.Enter(s.strangers)
	return tracked, c.SetReadDeadline(time.Now().Add(s.patience))
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

// track notes c, or closes it where all is closed. guarded is c if it came from outside.
func (s *stream) track(c net.Conn, guarded *conncap.Conn) (*conn, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return nil, false
	}
	tracked := &conn{Conn: c, of: s, guarded: guarded}
	s.conns[tracked] = struct{}{}
	return tracked, true
}

// crowded tells the log, once in a while, that connections have to go.
func (s *stream) crowded(victim net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.told) < 10*time.Second {
		return
	}
	s.told = time.Now()
	s.log.Warn("too many connections to the raft port: those that were silent for the longest are closed", "from", victim.String())
}

func (s *stream) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

type conn struct {
	net.Conn
	of      *stream
	guarded *conncap.Conn // nil for one that this node opened
	greeted bool          // of the one goroutine that reads
}

// Read looks at the greeting of a connection from outside first.
func (c *conn) Read(b []byte) (int, error) {
	if c.guarded != nil && c.of.local != "" && !c.greeted {
		if err := c.readGreeting(); err != nil {
			c.of.log.Debug("a connection to the raft port is closed", "error", err)
			_ = c.Close()
			return 0, io.EOF
		}
	}
	return c.Conn.Read(b)
}

// readGreeting lets a stranger in who says for whom it is.
func (c *conn) readGreeting() error {
	if err := readGreeting(c.Conn, c.of.local); err != nil {
		return err
	}
	c.greeted = true
	c.guarded.Enter(c.of.callers)
	return c.SetReadDeadline(time.Time{})
}

func (c *conn) Close() error {
	c.of.forget(c)
	return c.Conn.Close()
}

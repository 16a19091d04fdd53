package raftnet

import (
	"context"
	"errors"
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
	arrivals  chan arrival
	running   sync.WaitGroup // what takes connections from outside, and hears them out

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
		arrivals:  make(chan arrival),
	}
	s.strangers = conncap.New(cfg.MaxConns/4, s.crowded)
	s.callers = conncap.New(cfg.MaxConns-cfg.MaxConns/4, s.crowded)
	//nolint:forbidigo // raft's interface gives no context to dial in
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Go(s.admit)
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
	tracked, ok := s.track(c)
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

// Accept gives the next connection, once it is known that it is meant for this node: raft keeps a large buffer for each
// that it is given, and a stranger is not to cost that.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case a := <-s.arrivals:
		return a.conn, a.err
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// arrival is what Accept gives.
type arrival struct {
	conn net.Conn
	err  error
}

// hand gives what was accepted to whoever waits for it, and tells whether anybody will.
func (s *stream) hand(a arrival) bool {
	select {
	case s.arrivals <- a:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// admit takes connections from outside until the stream is closed. Each is heard out by itself.
func (s *stream) admit() {
	for {
		c, err := s.Listener.Accept()
		switch {
		case err != nil && !s.hand(arrival{err: err}):
			return
		case err == nil:
			s.running.Go(func() { s.welcome(c) })
		}
	}
}

// welcome hands a connection on once it has said for whom it is.
func (s *stream) welcome(c net.Conn) {
	guarded := conncap.Wrap(c)
	tracked, ok := s.track(guarded)
	if !ok {
		return
	}
	if s.local == "" {
		guarded.Enter(s.callers)
	} else {
		guarded.Enter(s.strangers)
		if err := s.hear(c, guarded); err != nil {
			s.log.Debug("a connection to the raft port is closed", "error", err)
			_ = tracked.Close()
			return
		}
	}
	if !s.hand(arrival{conn: tracked}) {
		_ = tracked.Close()
	}
}

// hear lets a stranger in who says for whom it is.
func (s *stream) hear(c net.Conn, guarded *conncap.Conn) error {
	if err := c.SetReadDeadline(time.Now().Add(s.patience)); err != nil {
		return err
	}
	if err := readGreeting(guarded, s.local); err != nil {
		return err
	}
	guarded.Enter(s.callers)
	return c.SetReadDeadline(time.Time{})
}

// Close closes the listener and all connections.
func (s *stream) Close() error {
	s.cancel()
	err := s.Listener.Close()
	for _, c := range s.drain() {
		_ = c.Close()
	}
	s.running.Wait()
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

// track notes c, or closes it where all is closed.
func (s *stream) track(c net.Conn) (*conn, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return nil, false
	}
	tracked := &conn{Conn: c, of: s}
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
	of *stream
}

func (c *conn) Close() error {
	c.of.forget(c)
	return c.Conn.Close()
}

package gossip

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/keyquorum/keyquorum/internal/conncap"
)

// bindTries is how often a free port is sought: the one that TCP got may be taken for UDP.
const bindTries = 10

// maxStreams bounds the streams from outside that are open at a time. Nodes need one each, for a moment; memberlist
// gives a stranger ten seconds to say something.
const maxStreams = 64

// maxStream bounds what is read of one stream, in bytes. memberlist keeps up to 20 MiB of what a stream announces before it looks
// whether that was sealed with the key, and the label, which comes first, is no secret. A node sends its state of all nodes: some
// 650 bytes for each with the longest metadata, so that this does for 390 nodes, and for 1,500 with names and addresses as usual.
const maxStream = 256 << 10

var errTooLong = fmt.Errorf("the other node sends more than %d KiB", maxStream>>10)

// transport is memberlist's own, on sockets, with a bound on the streams from outside, and on what is read of any. Its outgoing
// streams can be ended, so that nobody waits for another node's silence when this one ends.
type transport struct {
	*memberlist.NetTransport
	streams chan net.Conn
	closed  chan struct{} // once the sockets are
	open    *conncap.Set  // streams from outside
	running sync.WaitGroup
	ended   sync.Once
	calls   context.Context //nolint:containedctx // the transport's own life: it ends with hangUp
	hangUp  context.CancelFunc
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func listen(at netip.AddrPort, logger *log.Logger) (*transport, error) {
	conf := &memberlist.NetTransportConfig{
		BindAddrs: []string{at.Addr().String()}, BindPort: int(at.Port()), Logger: logger,
	}
	tries := 1
	if at.Port() == 0 {
		tries = bindTries
	}
	for {
		inner, err := memberlist.NewNetTransport(conf)
		if err == nil {
			return newTransport(inner), nil
		}
		if tries--; tries == 0 {
			return nil, fmt.Errorf("gossip: listen on %s: %w", at, err)
		}
	}
}

func newTransport(inner *memberlist.NetTransport) *transport {
	//nolint:forbidigo // memberlist's interface gives no context to hang calls on
	calls, hangUp := context.WithCancel(context.Background())
	t := &transport{NetTransport: inner, streams: make(chan net.Conn), open: conncap.New(maxStreams, nil), closed: make(chan struct{}), calls: calls, hangUp: hangUp}
	t.running.Go(t.admit)
	return t
}

// StreamCh gives the streams from outside.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// admit takes streams until the sockets are closed, as these cannot be while one of them waits to be taken.
func (t *transport) admit() {
	for {
		select {
		case conn := <-t.NetTransport.StreamCh():
			t.pass(conn)
		case <-t.closed:
			return
		}
	}
}

// pass hands a stream on. One too many takes the place of the one that was silent for the longest.
func (t *transport) pass(conn net.Conn) {
	s := conncap.Wrap(&brief{Conn: conn, left: maxStream})
	s.Enter(t.open)
	select {
	case t.streams <- s:
	case <-t.calls.Done():
		_ = s.Close()
	}
}

// DialTimeout opens a stream that ends with hangUp at the latest.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(t.calls, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &call{Conn: &brief{Conn: conn, left: maxStream}, forget: context.AfterFunc(t.calls, func() { _ = conn.Close() })}, nil
}

// DialAddressTimeout is DialTimeout; names of nodes make no difference.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// Shutdown ends the streams that this node opened, and closes its sockets.
func (t *transport) Shutdown() error {
	t.hangUp()
	err := t.NetTransport.Shutdown()
	t.ended.Do(func() { close(t.closed) })
	t.running.Wait()
	return err
}

// brief is a stream that is closed where the other side sends more than maxStream. One goroutine reads at a time.
type brief struct {
	net.Conn
	left int
}

func (b *brief) Read(p []byte) (int, error) {
	if b.left == 0 {
		_ = b.Close() // at once: memberlist would answer first
		return 0, errTooLong
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// call is an outgoing stream.
type call struct {
	net.Conn
	forget func() bool
}

func (c *call) Close() error {
	c.forget()
	return c.Conn.Close()
}

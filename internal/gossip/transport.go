package gossip

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// bindTries is how often a free port is sought: the one that TCP got may be taken for UDP.
const bindTries = 10

// transport is memberlist's own, on sockets, whose outgoing streams can be ended, so that nobody waits for
// another node's silence when this one ends.
type transport struct {
	*memberlist.NetTransport
	calls  context.Context //nolint:containedctx // the transport's own life: it ends with hangUp
	hangUp context.CancelFunc
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
	return &transport{NetTransport: inner, calls: calls, hangUp: hangUp}
}

// DialTimeout opens a stream that ends with hangUp at the latest.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(t.calls, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &call{Conn: conn, forget: context.AfterFunc(t.calls, func() { _ = conn.Close() })}, nil
}

// DialAddressTimeout is DialTimeout; names of nodes make no difference.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// Shutdown ends the streams that this node opened, and closes its sockets.
func (t *transport) Shutdown() error {
	t.hangUp()
	return t.NetTransport.Shutdown()
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

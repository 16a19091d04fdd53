// Package memnet is a network inside one process, whose faults a test makes: whole clusters run on it, with the
// real code of Raft's transport and of net/http, also in a testing/synctest bubble, where time is virtual.
//
// Hosts have names ("n1"), addresses are HOST:PORT ("n1:7401"). A link is what leads from one host to another, in
// one direction; a host always reaches itself. The faults:
//
//   - A link is cut (Cut, CutOneWay, Isolate): what is sent is gone, and nobody is told. Writes seem to work,
//     reads hang, dials hang until their context ends. What had arrived can still be read. Closing a connection
//     is something that is sent as well. When the link is healed, a connection that lost anything is reset at
//     both ends, so no stream ever has a hole; one that was idle goes on.
//   - A link is held (Hold): what is sent waits, in order, and arrives when the link is healed, as old as it
//     may be by then. Writes block once the connection's buffer is full.
//   - A host is frozen (Freeze): all its links are held, those that come to be later as well, as if it were paused.
//   - A link is slow (Delay). A reset is quick nonetheless.
//   - Connections are reset (Reset), as by a box in between that forgets them.
//   - A host stops (Stop), as when its process is killed: its listeners and connections are gone, the other ends
//     see a reset, unless a link in between is cut. Dialling it is refused, as is a port that no one listens at.
//
// There is no loss or reordering within a stream, as there is none in TCP, and no corruption.
//
// In a bubble, the Net has to be made inside it. All methods are safe for concurrent use.
package memnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// DialTimeout is how long dialling over a cut link hangs if the context does not end before.
const DialTimeout = 30 * time.Second

const (
	backlog   = 128   // connections that wait to be accepted
	firstPort = 49152 // of those that are given out
)

// Net is a network. Make it by New.
type Net struct {
	mu        sync.Mutex // over all that the network's listeners and connections are made of
	changed   *sync.Cond // the network is not what it was, for those who dial
	listeners map[string]*listener
	conns     []*conn // in the order of their making, so that faults hit them in the same order each time
	ports     map[string]int
	lives     map[string]int // of each host, how often it was stopped
	links     map[link]*state
	isolated  map[string]bool
	frozen    map[string]bool
	traffic   Traffic
	sent      map[string]Sent // by host
}

// New makes a network without hosts: they come to be when they listen or dial.
func New() *Net {
	n := &Net{
		listeners: make(map[string]*listener),
		ports:     make(map[string]int),
		lives:     make(map[string]int),
		links:     make(map[link]*state),
		isolated:  make(map[string]bool),
		frozen:    make(map[string]bool),
		sent:      make(map[string]Sent),
	}
	n.changed = sync.NewCond(&n.mu)
	return n
}

// Addr is an address in a Net, HOST:PORT.
type Addr string

// Network is "tcp", which is what a Net stands in for.
func (Addr) Network() string  { return "tcp" }
func (a Addr) String() string { return string(a) }

func (a Addr) host() string {
	host, _, _ := net.SplitHostPort(string(a))
	return host
}

// Listen takes connections to addr. The host must be named; with port 0 a free one is taken. It fails with
// syscall.EADDRINUSE if addr is listened at already.
func (n *Net) Listen(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return nil, opError("listen", nil, Addr(addr), &net.AddrError{Err: "want HOST:PORT with a host", Addr: addr})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == "0" {
		addr = n.freePort(host)
	}
	if n.listeners[addr] != nil {
		return nil, opError("listen", nil, Addr(addr), os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	l := &listener{net: n, addr: Addr(addr), ready: sync.NewCond(&n.mu)}
	n.listeners[addr] = l
	n.changed.Broadcast()
	return l, nil
}

func (n *Net) freePort(host string) string {
	if n.ports[host] == 0 {
		n.ports[host] = firstPort
	}
	n.ports[host]++
	return net.JoinHostPort(host, strconv.Itoa(n.ports[host]-1))
}

// Dialer gives what host from connects by, fit for net/http's DialContext and the like. It is of the host's
// present life: after Stop(from) it fails, so that what is left of a killed node's goroutines reaches nobody, and
// the restarted node gets a Dialer of its own.
func (n *Net) Dialer(from string) func(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	life := n.lives[from]
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		c, err := n.dial(ctx, from, life, Addr(address))
		if err != nil {
			return nil, opError("dial", nil, Addr(address), err)
		}
		return c, nil
	}
}

func (n *Net) dial(ctx context.Context, from string, life int, to Addr) (*conn, error) {
	if to.host() == "" {
		return nil, &net.AddrError{Err: "want HOST:PORT with a host", Addr: string(to)}
	}
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, n.wakeDials)()
	if err := n.roundTrip(ctx, from, to.host()); err != nil {
		return nil, err
	}

	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if n.lives[from] != life {
			return nil, fmt.Errorf("host %s was stopped: %w", from, net.ErrClosed)
		}
		if n.open(from, to.host()) && n.open(to.host(), from) {
			l := n.listeners[string(to)]
			if l == nil {
				return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
			}
			if len(l.queue) < backlog {
				return n.connect(from, l), nil
			}
		}
		n.changed.Wait()
	}
}

func (n *Net) wakeDials() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changed.Broadcast()
}

// roundTrip takes the time that connecting over slow links takes.
func (n *Net) roundTrip(ctx context.Context, a, b string) error {
	n.mu.Lock()
	d := n.delay(a, b) + n.delay(b, a)
	n.mu.Unlock()
	if d == 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connect makes a connection between from and l, and queues it there.
func (n *Net) connect(from string, l *listener) *conn {
	near, far := newPair(n, Addr(n.freePort(from)), l.addr)
	n.conns = append(n.conns, near, far)
	l.queue = append(l.queue, far)
	l.ready.Signal()
	return near
}

func opError(op string, from, to net.Addr, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: from, Addr: to, Err: err}
}

type listener struct {
	net    *Net
	addr   Addr
	ready  *sync.Cond
	queue  []*conn
	closed bool
}

// Accept waits for the next connection.
func (l *listener) Accept() (net.Conn, error) {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	for !l.closed && len(l.queue) == 0 {
		l.ready.Wait()
	}
	if l.closed {
		return nil, opError("accept", nil, l.addr, net.ErrClosed)
	}
	c := l.queue[0]
	l.queue = l.queue[1:]
	l.net.changed.Broadcast()
	return c, nil
}

// Close ends Accept, and resets the connections that were not accepted yet.
func (l *listener) Close() error {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	if l.closed {
		return opError("close", nil, l.addr, net.ErrClosed)
	}
	l.shut()
	return nil
}

func (l *listener) shut() {
	l.closed = true
	delete(l.net.listeners, string(l.addr))
	for _, c := range l.queue {
		c.abort()
	}
	l.queue = nil
	l.ready.Broadcast()
	l.net.changed.Broadcast()
}

// Addr is the address that is listened at.
func (l *listener) Addr() net.Addr { return l.addr }

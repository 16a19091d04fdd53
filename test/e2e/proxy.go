//go:build unix

package e2e

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy is a way to a node on which answers can be slow.
type Proxy struct {
	// Addr is where it listens.
	Addr string

	to    string
	delay atomic.Int64
	l     net.Listener
	all   sync.WaitGroup
	mu    sync.Mutex
	open  map[net.Conn]struct{}
	ended bool
}

// NewProxy gives a way to the address, until the test ends.
func NewProxy(t testing.TB, to string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), to: to, l: l, open: make(map[net.Conn]struct{})}
	p.all.Go(p.accept)
	t.Cleanup(p.end)
	return p
}

// Delay has each piece of an answer come that much later.
func (p *Proxy) Delay(d time.Duration) { p.delay.Store(int64(d)) }

func (p *Proxy) accept() {
	for {
		from, err := p.l.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", p.to) //nolint:noctx // on loopback it is answered at once, one way or the other
		if err != nil {
			_ = from.Close()
			continue
		}
		if !p.keep(from, to) {
			return
		}
		p.all.Go(func() { p.pass(to, from, func() time.Duration { return 0 }) })
		p.all.Go(func() { p.pass(from, to, func() time.Duration { return time.Duration(p.delay.Load()) }) })
	}
}

// keep remembers connections for the end, and closes them where it has come.
func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.open[c] = struct{}{}
		if p.ended {
			_ = c.Close()
		}
	}
	return !p.ended
}

// pass carries one direction of a connection until either side ends it.
func (p *Proxy) pass(to, from net.Conn, delay func() time.Duration) {
	defer p.drop(to, from)
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		<-time.After(delay())
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (p *Proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(p.open, c)
	}
}

func (p *Proxy) end() {
	p.mu.Lock()
	p.ended = true
	_ = p.l.Close()
	for c := range p.open {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.all.Wait()
}

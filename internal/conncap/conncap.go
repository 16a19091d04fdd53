// Package conncap bounds the connections that others hold at a port. One too many is never turned away, which would let
// whoever holds all of them shut everybody else out: the one that has been silent for the longest goes instead.
package conncap

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Set is a number of connections within a bound. It is safe for concurrent use.
type Set struct {
	most int
	full func(victim net.Addr)

	mu   sync.Mutex
	open map[*Conn]struct{}
}

// New makes a Set of at most that many connections, at least one. full is told whenever one has to go, and whose; it must
// not wait. It may be nil.
func New(most int, full func(victim net.Addr)) *Set {
	if full == nil {
		full = func(net.Addr) {}
	}
	return &Set{most: max(1, most), full: full, open: make(map[*Conn]struct{})}
}

// Conn is a connection that knows when it was last heard of. It is as safe for concurrent use as a net.Conn.
type Conn struct {
	net.Conn
	heard atomic.Int64 // since the program began, in nanoseconds
	in    atomic.Pointer[Set]
}

var began = time.Now()

// Wrap makes a Conn that is in no Set yet.
func Wrap(c net.Conn) *Conn {
	w := &Conn{Conn: c}
	w.hear()
	return w
}

func (c *Conn) hear() { c.heard.Store(int64(time.Since(began))) }

// Read notes that the other side has said something.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.hear()
	}
	return n, err
}

// Enter puts the connection into s, and takes it out of the Set that it was in.
func (c *Conn) Enter(s *Set) {
	c.leave(c.in.Swap(s))
	if victim := s.add(c); victim != nil {
		s.full(victim.RemoteAddr())
		_ = victim.Close() // it has gone if it fails
	}
}

// Close also frees the connection's place.
func (c *Conn) Close() error {
	c.leave(c.in.Swap(nil))
	return c.Conn.Close()
}

func (c *Conn) leave(s *Set) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// add gives the connection that has to go; nil if there is room.
func (s *Set) add(c *Conn) *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var victim *Conn
	if len(s.open) >= s.most {
		for other := range s.open {
			if victim == nil || other.heard.Load() < victim.heard.Load() {
				victim = other
			}
		}
		delete(s.open, victim)
	}
	s.open[c] = struct{}{}
	return victim
}

// Len is the number of connections now.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

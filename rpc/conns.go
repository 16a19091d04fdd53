package rpc

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// conns keeps the number of a server's connections within bounds. To let new ones wait would let whoever holds idle
// ones shut everybody else out, so the one that has been idle longest makes room. Peers ask each other every second
// or so, so theirs are not the ones.
type conns struct {
	most, share int
	log         *slog.Logger
	told        seldom

	// open has a *conn for each net.Conn. It is read without a lock: each request passes here.
	open sync.Map

	mu    sync.Mutex // of what follows, taken only when connections come and go
	total int
	from  map[string]int
}

// conn is what is known of a connection.
type conn struct {
	host string
	// idle is the time since when, in nanoseconds since the epoch; 0 while it has a request.
	idle atomic.Int64
}

func newConns(most int, log *slog.Logger) *conns {
	return &conns{most: most, share: most - most/4, log: log, from: make(map[string]int)}
}

// note is the server's ConnState.
func (s *conns) note(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.opened(c)
	case http.StateActive:
		s.setIdle(c, 0)
	case http.StateIdle:
		s.setIdle(c, time.Now().UnixNano())
	case http.StateClosed, http.StateHijacked:
		s.closed(c)
	}
}

func (s *conns) setIdle(c net.Conn, since int64) {
	if known, ok := s.open.Load(c); ok {
		known.(*conn).idle.Store(since) //nolint:forcetypeassert // there is nothing else in it
	}
}

// opened takes note of a connection. One that has not sent anything yet counts as idle.
func (s *conns) opened(c net.Conn) {
	it := &conn{host: host(c.RemoteAddr().String())}
	it.idle.Store(time.Now().UnixNano())
	s.open.Store(c, it)
	s.mu.Lock()
	s.total++
	s.from[it.host]++
	greedy, full := s.from[it.host] > s.share, s.total > s.most
	s.mu.Unlock()
	switch {
	case greedy:
		s.makeRoom(c, it.host)
	case full:
		s.makeRoom(c, "")
	}
}

// makeRoom closes the connection, from a host if one is given, that has been idle longest. Where there is no other,
// that is the new one.
func (s *conns) makeRoom(fresh net.Conn, from string) {
	victim, oldest := fresh, int64(0)
	s.open.Range(func(key, value any) bool {
		c, it := key.(net.Conn), value.(*conn) //nolint:forcetypeassert // as above
		idle := it.idle.Load()
		if c != fresh && idle != 0 && (from == "" || it.host == from) && (oldest == 0 || idle < oldest) {
			victim, oldest = c, idle
		}
		return true
	})
	if s.told.again() {
		s.log.Warn("connections are turned away: there are too many", "most", s.most, "most_from_one_address", s.share)
	}
	s.closed(victim)
	_ = victim.Close() // it has gone if it fails
}

// closed forgets a connection, once.
func (s *conns) closed(c net.Conn) {
	known, ok := s.open.LoadAndDelete(c)
	if !ok {
		return
	}
	from := known.(*conn).host //nolint:forcetypeassert // as above
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.from[from]--; s.from[from] == 0 {
		delete(s.from, from)
	}
}

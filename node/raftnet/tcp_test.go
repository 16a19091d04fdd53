package raftnet

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// onLoopback makes a transport over real sockets.
func onLoopback(t *testing.T, tune func(*TCPConfig)) *Transport {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := TCPConfig{Listener: l}
	if tune != nil {
		tune(&cfg)
	}
	trans, err := NewTCP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trans.Close() })
	go follow(trans, new(int))
	return trans
}

func TestTCP(t *testing.T) {
	a, b := onLoopback(t, nil), onLoopback(t, nil)
	var resp raft.AppendEntriesResponse
	if err := a.AppendEntries("b", b.LocalAddr(), &raft.AppendEntriesRequest{Term: 1}, &resp); err != nil || !resp.Success {
		t.Errorf("append: %+v, %v", resp, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	for range 2 { // the pooled connection, then a new one
		if err := a.AppendEntries("b", b.LocalAddr(), &raft.AppendEntriesRequest{Term: 1}, &resp); err == nil {
			t.Error("append to a closed transport succeeded")
		}
	}
}

// Close ends the connections that others opened, which the library leaves open.
func TestTCPCloseEndsConnections(t *testing.T) {
	trans := onLoopback(t, nil)
	c, err := net.Dial("tcp", string(trans.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := trans.Close(); err != nil {
		t.Fatal(err)
	}
	expectEnd(t, c)
}

// Whoever holds connections to the port shuts no member out, and cannot hold them for long.
func TestTCPBoundsConnections(t *testing.T) {
	trans := onLoopback(t, func(c *TCPConfig) { c.MaxConns, c.LocalID = 8, "n" })
	ask := func(peer *Transport) error {
		return peer.AppendEntries("n", trans.LocalAddr(), &raft.AppendEntriesRequest{Term: 1}, new(raft.AppendEntriesResponse))
	}
	old := onLoopback(t, func(c *TCPConfig) { c.LocalID = "old" })
	if err := ask(old); err != nil { // its connection stays in the pool
		t.Fatal(err)
	}
	var strangers []net.Conn
	for range 10 {
		stranger, err := net.Dial("tcp", string(trans.LocalAddr()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stranger.Close() })
		strangers = append(strangers, stranger)
	}
	for _, stranger := range strangers[:8] {
		expectEnd(t, stranger)
	}
	for _, peer := range []*Transport{old, onLoopback(t, func(c *TCPConfig) { c.LocalID = "young" })} {
		if err := ask(peer); err != nil {
			t.Errorf("a member's connection: %v", err)
		}
	}
}

func TestTCPWaitsForNoStranger(t *testing.T) {
	trans := onLoopback(t, func(c *TCPConfig) { c.LocalID, c.Timeout = "n", 50*time.Millisecond })
	stranger, err := net.Dial("tcp", string(trans.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	expectEnd(t, stranger)
}

// expectEnd waits until the other side has closed c.
func expectEnd(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, c); err != nil && errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	} else if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		t.Fatal("the connection is still open")
	}
}

func TestTCPAdvertise(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, addr := range []string{"0.0.0.0:7401", "[::]:7401", ":7401", "node1"} {
		if trans, err := NewTCP(TCPConfig{Listener: l, Advertise: addr}); err == nil {
			trans.Close()
			t.Errorf("%q was taken", addr)
		}
	}
	if _, err := NewTCP(TCPConfig{Advertise: "node1:7401"}); err == nil {
		t.Error("no listener was taken")
	}
	trans, err := NewTCP(TCPConfig{Listener: l, Advertise: "node1:7401"})
	if err != nil {
		t.Fatal(err)
	}
	defer trans.Close()
	if got := trans.LocalAddr(); got != "node1:7401" {
		t.Errorf("advertises %q", got)
	}
}

// Raft keeps 256 KiB for each connection that it is given.
func TestTCPGivesRaftNoStranger(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := TCPConfig{Listener: l, Dial: new(net.Dialer).DialContext, LocalID: "n"}
	s := newStream(cfg.withDefaults())
	defer s.Close()
	var said []net.Conn
	for _, greeting := range []string{"", "\x01", "\x05other", "\x01n"} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, greeting); err != nil {
			t.Fatal(err)
		}
		said = append(said, c)
	}
	member, err := s.Accept()
	if err != nil || member.RemoteAddr().String() != said[3].LocalAddr().String() {
		t.Errorf("accepted %v, %v", member, err)
	}
}

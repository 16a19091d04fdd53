package memnet

import (
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"
)

// conn is one end of a connection. The Net's mutex guards it.
type conn struct {
	net           *Net
	local, remote Addr
	dialled       bool // this end dialled
	peer          *conn
	in, out       *pipe

	closed      bool
	reset       bool
	read, write deadline
}

// newPair makes both ends of a connection, that of near first.
func newPair(n *Net, near, far Addr) (*conn, *conn) {
	there, back := newPipe(n, near.host(), far.host()), newPipe(n, far.host(), near.host())
	a := &conn{net: n, local: near, remote: far, in: back, out: there, dialled: true}
	b := &conn{net: n, local: far, remote: near, in: there, out: back, peer: a}
	a.peer = b
	return a, b
}

// Read reads what has arrived, or waits for it.
func (c *conn) Read(b []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for {
		if err := c.fault(&c.read); err != nil {
			return 0, opError("read", c.local, c.remote, err)
		}
		if len(b) == 0 {
			return 0, nil
		}
		if n, ok := c.in.receive(b); n > 0 {
			return n, nil
		} else if ok {
			return 0, io.EOF
		}
		c.in.changed.Wait()
	}
}

// Write sends b, and waits while too much is under way. That it succeeds says nothing about b's arrival.
func (c *conn) Write(b []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	sent := 0
	for {
		err := c.fault(&c.write)
		if err == nil && c.out.deaf && c.in.over() {
			err = os.NewSyscallError("write", syscall.EPIPE)
		}
		if err != nil {
			return sent, opError("write", c.local, c.remote, err)
		}
		if sent == len(b) {
			return sent, nil
		}
		if room := window - c.out.size; room > 0 {
			part := b[sent:min(len(b), sent+room)]
			c.out.send(segment{data: slices.Clone(part)})
			sent += len(part)
			continue
		}
		c.out.changed.Wait()
	}
}

// fault tells why nothing can be read or written any more.
func (c *conn) fault(d *deadline) error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.reset:
		return syscall.ECONNRESET
	case d.passed():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Close ends the stream: the other end reads what was sent before, then io.EOF, and can write no more.
func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return opError("close", c.local, c.remote, net.ErrClosed)
	}
	c.shut()
	if !c.reset {
		c.out.send(segment{end: true})
	}
	if c.peer.closed {
		c.forget()
	}
	return nil
}

// shut ends this end, and tells nobody.
func (c *conn) shut() {
	c.closed = true
	c.read.stop()
	c.write.stop()
	c.in.deaf = true
	c.in.clear()
	c.out.changed.Broadcast()
}

// die ends this end as its process dies: the other end sees a reset, now or when the links are healed.
// What it had closed before is the system's to bring to an end.
func (c *conn) die() {
	if c.closed {
		return
	}
	c.shut()
	if c.net.open(c.local.host(), c.remote.host()) && !c.out.torn {
		c.abort()
		return
	}
	c.out.torn = true
}

// abort resets the connection at both ends.
func (c *conn) abort() {
	if c.reset {
		return
	}
	c.net.traffic.Reset++
	for _, end := range []*conn{c, c.peer} {
		end.reset = true
		end.in.clear()
	}
	c.forget()
}

// torn tells whether either direction has a hole.
func (c *conn) torn() bool { return c.out.torn || c.in.torn }

func (c *conn) forget() {
	c.net.conns = slices.DeleteFunc(c.net.conns, func(other *conn) bool { return other == c || other == c.peer })
}

// LocalAddr is the address of this end, RemoteAddr that of the other.
func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets the time after which Read and Write fail with os.ErrDeadlineExceeded; zero for never.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets the time after which Read fails.
func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.read, c.in, t) }

// SetWriteDeadline sets the time after which Write fails.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.write, c.out, t) }

func (c *conn) setDeadline(d *deadline, p *pipe, t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return opError("set", c.local, c.remote, net.ErrClosed)
	}
	d.stop()
	d.at = t
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, p.wake)
	}
	p.changed.Broadcast()
	return nil
}

// deadline is a time after which an operation fails.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}

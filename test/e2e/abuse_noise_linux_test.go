package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// halfOpen connections at a time say nothing, slow ones a byte a second of the beginning of a handshake.
	halfOpen, slow = 2000, 1000
	// slowInside are as slow once the handshake is done, some for each of the ways to be.
	slowInside = 300
	// noisy callers send random bytes, each a piece every noisePace at most.
	noisy     = 8
	noisePace = 2 * time.Millisecond
	// announcers say that they have announced bytes for a node, as often as announcePace lets them, and send what is taken.
	announcers   = 64
	announced    = 20 << 20
	announcePace = 200 * time.Millisecond
)

// dialing opens a connection to a port.
type dialing func(ctx context.Context) (net.Conn, error)

func dialer(network, address string) dialing {
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, network, address) }
}

// tally is what was done to a port.
type tally struct{ calls, pieces, bytes, held, announced atomic.Int64 }

func (d *tally) String() string {
	return fmt.Sprintf("%d random pieces of %d KiB in all, by %d connections; %d more that said little or nothing; %d that announced much",
		d.pieces.Load(), d.bytes.Load()>>10, d.calls.Load(), d.held.Load(), d.announced.Load())
}

// abuseOf is what is done to one kind of port alone.
type abuseOf func(ctx context.Context, all *sync.WaitGroup, address string, done *tally)

// attack does all that can be done to a port for as long as is asked, and gives what it did. Meanwhile it calls during.
func (a *attacker) attack(t *testing.T, udp bool, address string, also abuseOf, during func()) *tally {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), *abuse)
	defer cancel()
	var all sync.WaitGroup
	done := new(tally)
	network, largest := "tcp", 16<<10
	if udp {
		network, largest = "udp", 1400
	}
	dial := dialer(network, address)
	begin := slices.Concat(beginnings, []string{a.label, a.label + announcement})
	for i := range noisy {
		all.Go(func() { noise(ctx, dial, i, largest, begin, done) })
	}
	if !udp {
		hello := clientHello(ctx)
		for i := range min(halfOpen+slow, mayOpen(t)/2) {
			says := saying{slowly: hello}
			if i >= slow {
				says = saying{}
			}
			all.Go(func() { holdOpen(ctx, dial, says, done) })
		}
	}
	if also != nil {
		also(ctx, &all, address, done)
	}
	during()
	all.Wait()
	return done
}

// mayOpen is how many files this process can have open.
func mayOpen(t *testing.T) int {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return int(min(limit.Cur, 1<<20))
}

const (
	h2Begins = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	// h2Settings is an empty frame of settings, h2Headers the beginning of 4 KiB of headers.
	h2Settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	h2Headers  = "\x00\x10\x00\x01\x04\x00\x00\x00\x01"
	postVerify = "POST /keyquorum.v1.TokenService/Verify HTTP/1.1\r\nHost: n\r\n"
	aBody      = "Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"
	// announcement says in gossip that as much as announced follows, encrypted.
	announcement = "\x0a\x01\x40\x00\x00"
)

// beginnings are what the first bytes can be so that what follows is looked at: nothing, a record of TLS, HTTP/2's and
// HTTP/1's first line, and a label of gossip.
var beginnings = []string{"", "\x16\x03\x01\x40\x00", h2Begins, "POST / HTTP/1.1\r\n", "\xf4\x10"}

// noise sends random bytes, of which the first of a connection may be one of the beginnings, and calls again when it is hung up on.
func noise(ctx context.Context, dial dialing, caller, largest int, begin []string, done *tally) {
	tick := time.NewTicker(noisePace)
	defer tick.Stop()
	random := rand.NewChaCha8([32]byte{byte(caller)})
	draw := rand.New(random)
	var conn net.Conn
	for ctx.Err() == nil {
		piece := make([]byte, 1+draw.IntN(largest))
		random.Read(piece)
		if conn == nil {
			conn, _ = dial(ctx)
			done.calls.Add(1)
			piece = append([]byte(begin[draw.IntN(len(begin))]), piece...)
		}
		if conn != nil {
			conn.SetWriteDeadline(time.Now().Add(time.Second))
			n, err := conn.Write(piece)
			done.bytes.Add(int64(n))
			done.pieces.Add(1)
			if err != nil || draw.IntN(8) == 0 {
				conn.Close()
				conn = nil
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	if conn != nil {
		conn.Close()
	}
}

// saying is what a connection that is held open says: some at once, some a byte a second.
type saying struct{ atOnce, slowly string }

// holdOpen keeps a connection open. When it is hung up on, it calls again with the next second.
func holdOpen(ctx context.Context, dial dialing, says saying, done *tally) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		if conn, err := dial(ctx); err == nil {
			done.held.Add(1)
			hold(ctx, conn, says, tick.C)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// hold returns when the other side, or the time, has ended the connection.
func hold(ctx context.Context, conn net.Conn, says saying, tick <-chan time.Time) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, conn)
	}()
	defer func() { conn.Close(); <-over }()
	io.WriteString(conn, says.atOnce) // it may have been hung up on, here and below
	for {
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-tick:
			if says.slowly != "" {
				io.WriteString(conn, says.slowly[:1])
				says.slowly = says.slowly[1:]
			}
		}
	}
}

// clientHello is what a caller that means well begins with.
func clientHello(ctx context.Context) string {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_ = tls.Client(here, &tls.Config{ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13}).HandshakeContext(ctx)
	}()
	hello := make([]byte, 4<<10)
	n, _ := there.Read(hello)
	return string(hello[:n])
}

// insideTLS is for a port that shakes hands with anybody: noise, and slow headers and bodies, over HTTP/1.1 and HTTP/2.
func (a *attacker) insideTLS(ctx context.Context, all *sync.WaitGroup, address string, done *tally) {
	secured := func(protocol string) dialing {
		config := a.strangers["nobody"].Clone()
		config.NextProtos = []string{protocol}
		return func(ctx context.Context) (net.Conn, error) {
			return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
		}
	}
	one, two := secured("http/1.1"), secured("h2")
	for i := range noisy {
		all.Go(func() { noise(ctx, one, i, 16<<10, []string{"", postVerify, postVerify + aBody}, done) })
		all.Go(func() {
			noise(ctx, two, i, 16<<10, []string{"", h2Begins, h2Begins + h2Settings, h2Begins + h2Settings + h2Headers}, done)
		})
	}
	filler := strings.Repeat(" ", 4<<10)
	for range slowInside / 3 {
		all.Go(func() { holdOpen(ctx, one, saying{postVerify, "X-Header: " + filler}, done) })
		all.Go(func() { holdOpen(ctx, one, saying{postVerify + aBody, filler}, done) })
		all.Go(func() { holdOpen(ctx, two, saying{h2Begins + h2Settings, h2Headers + filler}, done) })
	}
}

// announceMuch is for gossip, where the label says whose it is, and the key is asked for once all that was announced is there.
func (a *attacker) announceMuch(ctx context.Context, all *sync.WaitGroup, address string, done *tally) {
	dial := dialer("tcp", address)
	for range announcers {
		all.Go(func() { announce(ctx, dial, a.label+announcement, done) })
	}
}

// announce sends all but the last of what it announces, as far as it is taken, and then waits.
func announce(ctx context.Context, dial dialing, begin string, done *tally) {
	tick := time.NewTicker(announcePace)
	defer tick.Stop()
	piece := make([]byte, 64<<10)
	for ctx.Err() == nil {
		if conn, err := dial(ctx); err == nil {
			done.announced.Add(1)
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			_, err := io.WriteString(conn, begin)
			for sent := 0; err == nil && sent < announced-len(piece); sent += len(piece) {
				_, err = conn.Write(piece)
			}
			if err == nil {
				_, _ = io.Copy(io.Discard, conn)
			}
			stop()
			conn.Close()
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

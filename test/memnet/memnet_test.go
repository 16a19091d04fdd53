package memnet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/test/memnet"
)

// inBubble runs f with a network of its own under virtual time. It fails when goroutines are left.
func inBubble(t *testing.T, name string, f func(t *testing.T, n *memnet.Net)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, memnet.New()) })
	})
}

// connect gives both ends of a connection from n1 to n2.
func connect(t *testing.T, n *memnet.Net) (near, far net.Conn) {
	t.Helper()
	l, err := n.Listen("n2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err = n.Dialer("n1")(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if n, err := c.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("write %q: %d, %v", text, n, err)
	}
}

func expect(t *testing.T, c net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v; want %q", got, err, text)
	}
}

// expectSilence says that nothing arrives for a minute.
func expectSilence(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	defer c.SetReadDeadline(time.Time{})
	expectError(t, c, os.ErrDeadlineExceeded)
}

func expectError(t *testing.T, c net.Conn, want error) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, want) {
		t.Fatalf("read: %d bytes, %v; want %v", n, err, want)
	}
}

func TestConnection(t *testing.T) {
	inBubble(t, "both ways, then the end", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		send(t, near, "question")
		expect(t, far, "question")
		send(t, far, "answer")
		far.Close()
		expect(t, near, "answer")
		expectError(t, near, io.EOF)
		if _, err := near.Write([]byte("more")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to a closed connection: %v", err)
		}
		near.Close()
		expectError(t, near, net.ErrClosed)
	})
	inBubble(t, "addresses name hosts and ports", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		if near.RemoteAddr().String() != far.LocalAddr().String() || far.RemoteAddr().String() != near.LocalAddr().String() {
			t.Errorf("%v-%v, %v-%v", near.LocalAddr(), near.RemoteAddr(), far.LocalAddr(), far.RemoteAddr())
		}
		for c, host := range map[net.Conn]string{near: "n1", far: "n2"} {
			if got, port, err := net.SplitHostPort(c.LocalAddr().String()); got != host || port == "0" || err != nil {
				t.Errorf("address %v of host %s", c.LocalAddr(), host)
			}
		}
	})
	inBubble(t, "a write waits for its reader", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		big := bytes.Repeat([]byte("0123456789"), 100_000)
		near.SetWriteDeadline(time.Now().Add(time.Minute))
		sent, err := near.Write(big)
		if !errors.Is(err, os.ErrDeadlineExceeded) || sent == 0 || sent > 64<<10 {
			t.Fatalf("%d bytes, %v with nobody reading", sent, err)
		}
		near.SetWriteDeadline(time.Time{})
		go func() {
			near.Write(big[sent:])
			near.Close()
		}()
		if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, big) {
			t.Fatalf("%d bytes, %v; want %d", len(got), err, len(big))
		}
	})
	inBubble(t, "closing ends a read that waits", func(t *testing.T, n *memnet.Net) {
		near, _ := connect(t, n)
		go func() {
			time.Sleep(time.Hour)
			near.Close()
		}()
		expectError(t, near, net.ErrClosed)
	})
	inBubble(t, "a deadline can be moved while a read waits", func(t *testing.T, n *memnet.Net) {
		near, _ := connect(t, n)
		start := time.Now()
		near.SetReadDeadline(start.Add(time.Hour))
		time.AfterFunc(time.Second, func() { near.SetReadDeadline(time.Unix(1, 0)) })
		expectError(t, near, os.ErrDeadlineExceeded)
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestListen(t *testing.T) {
	inBubble(t, "an address is taken once", func(t *testing.T, n *memnet.Net) {
		l, err := n.Listen("n1:7400")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Listen("n1:7400"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second listener: %v", err)
		}
		l.Close()
		if l, err = n.Listen("n1:7400"); err != nil {
			t.Errorf("after closing: %v", err)
		}
		l.Close()
	})
	inBubble(t, "without a host", func(t *testing.T, n *memnet.Net) {
		if _, err := n.Listen(":7400"); err == nil {
			t.Error("no error")
		}
	})
	inBubble(t, "closing ends Accept and refuses who comes", func(t *testing.T, n *memnet.Net) {
		l, _ := n.Listen("n1:7400")
		waiting, err := n.Dialer("n2")(t.Context(), "tcp", "n1:7400")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		expectError(t, waiting, syscall.ECONNRESET)
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		if _, err := n.Dialer("n2")(t.Context(), "tcp", "n1:7400"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v", err)
		}
	})
}

func TestCut(t *testing.T) {
	inBubble(t, "what is sent is gone, and healing resets", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		send(t, near, "before")
		n.Cut("n1", "n2")
		send(t, near, "lost")
		expect(t, far, "before")
		expectSilence(t, far)
		n.HealLink("n2", "n1")
		expectError(t, far, syscall.ECONNRESET)
		expectError(t, near, syscall.ECONNRESET)
	})
	inBubble(t, "an idle connection survives", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		n.Cut("n1", "n2")
		expectSilence(t, far)
		n.Heal()
		send(t, near, "after")
		expect(t, far, "after")
	})
	inBubble(t, "one way", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		n.CutOneWay("n1", "n2")
		send(t, far, "this arrives")
		expect(t, near, "this arrives")
		send(t, near, "this does not")
		expectSilence(t, far)
		n.Heal()
		expectError(t, near, syscall.ECONNRESET)
	})
	inBubble(t, "a stream with a hole stays silent until both ways are whole", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		n.CutOneWay("n1", "n2")
		send(t, near, "lost")
		n.CutOneWay("n2", "n1")
		n.Isolate("n1")
		n.HealLink("n1", "n2")
		send(t, near, "after the hole")
		expectSilence(t, far)
		n.Rejoin("n1")
		expectError(t, far, syscall.ECONNRESET)
	})
	inBubble(t, "closing is not noticed before healing", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		n.Cut("n1", "n2")
		near.Close()
		expectSilence(t, far)
		send(t, far, "to nobody")
		n.Heal()
		expectError(t, far, syscall.ECONNRESET)
	})
	inBubble(t, "an isolated host reaches itself", func(t *testing.T, n *memnet.Net) {
		n.Isolate("n1")
		l, _ := n.Listen("n1:7400")
		defer l.Close()
		c, err := n.Dialer("n1")(t.Context(), "tcp", "n1:7400")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
	inBubble(t, "dials hang", func(t *testing.T, n *memnet.Net) {
		l, _ := n.Listen("n2:7400")
		defer l.Close()
		dial := n.Dialer("n1")
		n.CutOneWay("n2", "n1")

		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := dial(ctx, "tcp", "n2:7400")
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(start) != time.Second {
			t.Errorf("until the context ends: %v after %v", err, time.Since(start))
		}
		start = time.Now()
		if _, err := dial(t.Context(), "tcp", "n2:7400"); err == nil || time.Since(start) != memnet.DialTimeout {
			t.Errorf("without a deadline: %v after %v", err, time.Since(start))
		}
		time.AfterFunc(time.Second, n.Heal)
		start = time.Now()
		c, err := dial(t.Context(), "tcp", "n2:7400")
		if err != nil || time.Since(start) != time.Second {
			t.Fatalf("until healed: %v after %v", err, time.Since(start))
		}
		c.Close()
	})
}

func TestHold(t *testing.T) {
	inBubble(t, "arrives late, in order", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		n.HoldOneWay("n1", "n2")
		send(t, near, "one ")
		expectSilence(t, far)
		send(t, far, "meanwhile")
		expect(t, near, "meanwhile")
		send(t, near, "two")
		near.Close()
		n.Heal()
		expect(t, far, "one two")
		expectError(t, far, io.EOF)
	})
	inBubble(t, "cutting loses what was held", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		n.Hold("n1", "n2")
		send(t, near, "held")
		n.Cut("n1", "n2")
		n.Heal()
		expectError(t, far, syscall.ECONNRESET)
	})
	inBubble(t, "is bounded", func(t *testing.T, n *memnet.Net) {
		near, _ := connect(t, n)
		n.Hold("n1", "n2")
		near.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := near.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v", err)
		}
	})
}

func TestDelay(t *testing.T) {
	inBubble(t, "each way", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		n.Delay("n1", "n2", 40*time.Millisecond)
		start := time.Now()
		send(t, near, "ping")
		expect(t, far, "ping")
		send(t, far, "pong")
		expect(t, near, "pong")
		if took := time.Since(start); took != 80*time.Millisecond {
			t.Errorf("round trip %v", took)
		}
		start = time.Now()
		connect(t, n)
		if took := time.Since(start); took != 80*time.Millisecond {
			t.Errorf("connecting %v", took)
		}
	})
	inBubble(t, "a quicker link does not overtake", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		n.Delay("n1", "n2", time.Second)
		send(t, near, "first ")
		n.Delay("n1", "n2", 0)
		send(t, near, "second")
		expect(t, far, "first second")
	})
}

func TestReset(t *testing.T) {
	inBubble(t, "between two hosts", func(t *testing.T, n *memnet.Net) {
		near, far := connect(t, n)
		n.Reset("n2", "n1")
		expectError(t, near, syscall.ECONNRESET)
		expectError(t, far, syscall.ECONNRESET)
		connect(t, n) // the link is as it was
	})
}

func TestStop(t *testing.T) {
	inBubble(t, "the process is gone, and comes back", func(t *testing.T, n *memnet.Net) {
		l, _ := n.Listen("n2:7400")
		old := n.Dialer("n2")
		near, far := connect(t, n)
		n.Stop("n2")
		expectError(t, near, syscall.ECONNRESET)
		expectError(t, far, net.ErrClosed)
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		if _, err := n.Dialer("n1")(t.Context(), "tcp", "n2:7400"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v", err)
		}
		l, err := n.Listen("n2:7400")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := old(t.Context(), "tcp", "n2:7400"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a dialer of the earlier life: %v", err)
		}
		c, err := n.Dialer("n2")(t.Context(), "tcp", "n2:7400")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
	inBubble(t, "is not noticed through a cut", func(t *testing.T, n *memnet.Net) {
		near, _ := connect(t, n)
		n.Cut("n1", "n2")
		n.Stop("n2")
		expectSilence(t, near)
		n.Heal()
		expectError(t, near, syscall.ECONNRESET)
	})
	inBubble(t, "ends dials that hang", func(t *testing.T, n *memnet.Net) {
		dial := n.Dialer("n1")
		n.Isolate("n2")
		time.AfterFunc(time.Second, func() { n.Stop("n1") })
		if _, err := dial(t.Context(), "tcp", "n2:7400"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial: %v", err)
		}
	})
}

func TestHTTP(t *testing.T) {
	inBubble(t, "keeps a connection, loses it, makes another", func(t *testing.T, n *memnet.Net) {
		l, err := n.Listen("n2:7400")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(w, r.Body)
			io.WriteString(w, r.RemoteAddr)
		})}
		var serving sync.WaitGroup
		serving.Go(func() { server.Serve(l) })
		transport := &http.Transport{DialContext: n.Dialer("n1")}
		client := &http.Client{Transport: transport, Timeout: time.Second}
		post := func() (string, error) {
			resp, err := client.Post("http://n2:7400/", "text/plain", bytes.NewReader(make([]byte, 200_000)))
			if err != nil {
				return "", err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			return string(bytes.TrimLeft(body, "\x00")), err
		}
		first, err := post()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := post(); err != nil || again != first {
			t.Errorf("second request from %q, %v; first from %q", again, err, first)
		}
		n.Isolate("n2")
		if _, err := post(); err == nil {
			t.Error("a request through a cut link succeeded")
		}
		n.Heal()
		if later, err := post(); err != nil || later == first {
			t.Errorf("after healing from %q, %v", later, err)
		}
		transport.CloseIdleConnections()
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
}

// BenchmarkThroughput is what a stream carries, to tell whether the network or what runs on it is slow.
func BenchmarkThroughput(b *testing.B) {
	n := memnet.New()
	l, err := n.Listen("n2:1")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := n.Dialer("n1")(b.Context(), "tcp", "n2:1")
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	far, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	go io.Copy(io.Discard, far)
	part := make([]byte, 4096)
	b.SetBytes(int64(len(part)))
	for b.Loop() {
		if _, err := c.Write(part); err != nil {
			b.Fatal(err)
		}
	}
}

package rpc_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyquorum/keyquorum/rpc"
)

// pipes is a listener in memory, for servers in a bubble.
type pipes struct {
	dialled chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.dialled:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return address("node:7400") }

type address string

func (address) Network() string  { return "pipe" }
func (a address) String() string { return string(a) }

// from is a connection that comes from an address.
type from struct {
	net.Conn
	address
}

func (f from) RemoteAddr() net.Addr { return f.address }

// dial connects from a host.
func (p *pipes) dial(host string) net.Conn {
	near, far := net.Pipe()
	p.dialled <- from{far, address(host + ":1000")}
	return near
}

// serveInBubble is serve on pipes.
func serveInBubble(t *testing.T, maxConns int, change func(*rpc.Config)) (*server, *pipes) {
	t.Helper()
	s := &server{node: &fakeNode{local: &fakeNode{}}, logs: new(lockedBuffer), reg: prometheus.NewRegistry()}
	cfg := rpc.Config{Node: s.node, Logger: s.log(), Registerer: s.reg, Gatherer: s.reg}
	if change != nil {
		change(&cfg)
	}
	p := &pipes{dialled: make(chan net.Conn), closed: make(chan struct{})}
	srv := rpc.NewServer(rpc.NewHandler(cfg), rpc.ServerConfig{Logger: s.log(), MaxConns: maxConns})
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(p) }()
	s.url = "http://node:7400"
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return s, p
}

// gauge reads a metric that has one value.
func (s *server) gauge(t *testing.T, name string) float64 {
	t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// frames is a caller that speaks HTTP/2 frame by frame (RFC 9113), so that it can do what no client does. It reads all
// that comes.
type frames struct {
	net.Conn
	stream uint32

	mu sync.Mutex
	// ok and other count the answers with status 200 and with another.
	ok, other int
	data      int
	gone      bool
}

const (
	dataFrame     = 0
	headersFrame  = 1
	settingsFrame = 4
	goAwayFrame   = 7
	windowUpdate  = 8
	endStream     = 1
	endHeaders    = 4
)

// speakFrames opens a connection on which no answer may have a body.
func speakFrames(t *testing.T, c net.Conn) *frames {
	t.Helper()
	f := &frames{Conn: c, stream: 1}
	done := make(chan struct{})
	go func() { defer close(done); f.read() }()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	f.send(t, settingsFrame, 0, 0, []byte{0, 4, 0, 0, 0, 0}) // SETTINGS_INITIAL_WINDOW_SIZE
	return f
}

func (f *frames) send(t *testing.T, kind, flags byte, stream uint32, payload []byte) {
	t.Helper()
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	frame = binary.BigEndian.AppendUint32(append(frame, flags), stream)
	if _, err := f.Write(append(frame, payload...)); err != nil {
		t.Fatal(err)
	}
}

// begin sends a request's headers.
func (f *frames) begin(t *testing.T, path string) {
	t.Helper()
	f.headers(t, http.MethodPost, path, endHeaders)
}

// get sends a whole request.
func (f *frames) get(t *testing.T, path string) {
	t.Helper()
	f.headers(t, http.MethodGet, path, endHeaders|endStream)
	f.stream += 2
}

func (f *frames) headers(t *testing.T, method, path string, flags byte) {
	t.Helper()
	var block []byte
	for _, h := range [][2]string{
		{":method", method}, {":scheme", "http"}, {":authority", "node"}, {":path", path}, {"content-type", "application/json"},
	} {
		block = append(block, 0, byte(len(h[0])))
		block = append(append(block, h[0]...), byte(len(h[1])))
		block = append(block, h[1]...)
	}
	f.send(t, headersFrame, flags, f.stream, block)
}

// post sends a whole request.
func (f *frames) post(t *testing.T, path, body string) {
	t.Helper()
	f.begin(t, path)
	f.send(t, dataFrame, endStream, f.stream, []byte(body))
	f.stream += 2
}

// read counts what comes until the connection is closed.
func (f *frames) read() {
	for {
		var head [9]byte
		_, err := io.ReadFull(f.Conn, head[:])
		payload := make([]byte, binary.BigEndian.Uint32(head[:])>>8)
		if err == nil {
			_, err = io.ReadFull(f.Conn, payload)
		}
		f.mu.Lock()
		switch {
		case err != nil:
			f.gone = true
		case head[3] == dataFrame:
			f.data += len(payload)
		case head[3] == headersFrame && payload[0] == 0x88: // :status: 200, in HPACK's static table
			f.ok++
		case head[3] == headersFrame:
			f.other++
		}
		f.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (f *frames) counts() (ok, other, data int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ok, f.other, f.data
}

func (f *frames) isGone() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gone
}

// over is an HTTP client on pipes, from a host.
func over(t *testing.T, p *pipes, host string, http2 bool) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	transport := &http.Transport{Protocols: protocols, DisableCompression: true, DialContext: dialContext(p, host)}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// raw sends text as it is and reads all that comes until the server closes, or the test does.
func raw(t *testing.T, c net.Conn, text string) func() string {
	t.Helper()
	var got lockedBuffer
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(&got, c) }()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	if _, err := io.Copy(c, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return got.String
}

func dialContext(p *pipes, host string) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return p.dial(host), nil }
}

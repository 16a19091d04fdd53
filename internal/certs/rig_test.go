//go:build unix

package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/pki"
)

// today is when the tests' certificates are made, unless a test is about other times.
var today = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// rig makes certificates, and the files that a Source reads.
type rig struct {
	t   *testing.T
	mu  sync.Mutex
	now time.Time
}

func newRig(t *testing.T) *rig { t.Helper(); return &rig{t: t, now: today} }

func (r *rig) time() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.now }

func (r *rig) setTime(now time.Time) { r.mu.Lock(); defer r.mu.Unlock(); r.now = now }

func (r *rig) ca() *pki.CA {
	r.t.Helper()
	ca, err := pki.NewCA(pki.CAOptions{Now: r.time})
	must(r.t, err)
	return ca
}

func (r *rig) node(ca *pki.CA, name string) *pki.Leaf {
	r.t.Helper()
	leaf, err := ca.IssueNode(pki.NodeRequest{Name: name, Hosts: []string{name, "127.0.0.1"}})
	must(r.t, err)
	return leaf
}

func (r *rig) client(ca *pki.CA, name string, roles ...pki.Role) *pki.Leaf {
	r.t.Helper()
	leaf, err := ca.IssueClient(pki.ClientRequest{Name: name, Roles: roles})
	must(r.t, err)
	return leaf
}

// files are in a folder of their own.
func (r *rig) files(leaf *pki.Leaf, cas ...*pki.CA) certs.Files {
	r.t.Helper()
	return r.filesIn(r.t.TempDir(), leaf, cas...)
}

func (r *rig) filesIn(dir string, leaf *pki.Leaf, cas ...*pki.CA) certs.Files {
	r.t.Helper()
	f := in(dir)
	must(r.t, leaf.Write(f.Certificate, f.Key))
	r.bundle(f, cas...)
	return f
}

func in(dir string) certs.Files {
	return certs.Files{Certificate: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt")}
}

func (r *rig) bundle(f certs.Files, cas ...*pki.CA) {
	r.t.Helper()
	var b bytes.Buffer
	for _, ca := range cas {
		b.Write(pki.EncodeCertificate(ca.Certificate()))
	}
	must(r.t, os.WriteFile(f.CA, b.Bytes(), 0o600))
}

// replace writes other files in the place of f.
func (r *rig) replace(f certs.Files, leaf *pki.Leaf, cas ...*pki.CA) {
	r.t.Helper()
	other := r.files(leaf, cas...)
	must(r.t, os.Rename(other.Certificate, f.Certificate))
	must(r.t, os.Rename(other.Key, f.Key))
	must(r.t, os.Rename(other.CA, f.CA))
}

func (r *rig) open(f certs.Files) *certs.Source {
	r.t.Helper()
	s, err := certs.Open(f, certs.Options{Now: r.time})
	must(r.t, err)
	return s
}

// source reads a leaf and the CAs whose certificates it is to trust.
func (r *rig) source(leaf *pki.Leaf, cas ...*pki.CA) *certs.Source {
	r.t.Helper()
	return r.open(r.files(leaf, cas...))
}

// link is a connection with both its ends.
type link struct {
	client, server       *tls.Conn
	clientErr, serverErr error
}

// connect shakes hands over a pipe. The client's outcome includes a first byte from the server, as with TLS 1.3 that is
// how it learns that the server has refused it.
func connect(t *testing.T, server, client *tls.Config) *link {
	t.Helper()
	a, b := net.Pipe()
	l := &link{client: tls.Client(a, client), server: tls.Server(b, server)}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.serverErr = l.server.Handshake()
		if l.serverErr == nil {
			_, l.serverErr = l.server.Write([]byte("+"))
		}
		if l.serverErr != nil {
			_ = b.Close()
		}
	}()
	l.clientErr = l.client.Handshake()
	if l.clientErr == nil {
		_, l.clientErr = io.ReadFull(l.client, make([]byte, 1))
	}
	if l.clientErr != nil {
		_ = a.Close()
	}
	<-done
	return l
}

// good wants the connection to stand.
func (l *link) good(t *testing.T) {
	t.Helper()
	if l.clientErr != nil || l.serverErr != nil {
		t.Fatalf("client: %v; server: %v", l.clientErr, l.serverErr)
	}
}

// refusedByServer wants the server to have said why in its own error, and the client to have got nothing.
func (l *link) refusedByServer(t *testing.T, told string) {
	t.Helper()
	if l.serverErr == nil || !strings.Contains(l.serverErr.Error(), told) {
		t.Errorf("server: %v, want %q", l.serverErr, told)
	}
	if l.clientErr == nil {
		t.Error("the client was let in")
	}
}

func (l *link) refusedByClient(t *testing.T, told string) {
	t.Helper()
	if l.clientErr == nil || !strings.Contains(l.clientErr.Error(), told) {
		t.Errorf("client: %v, want %q", l.clientErr, told)
	}
}

// talks sends a byte each way.
func (l *link) talks(t *testing.T) {
	t.Helper()
	for _, ends := range [][2]*tls.Conn{{l.client, l.server}, {l.server, l.client}} {
		sent := make(chan error, 1)
		go func() { _, err := ends[0].Write([]byte("x")); sent <- err }()
		if _, err := io.ReadFull(ends[1], make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
}

// logged is what a log was told.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(b) }

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func (l *logged) want(t *testing.T, text string, n int) {
	t.Helper()
	if got := l.count(text); got != n {
		t.Errorf("the log has %q %d times, want %d:\n%s", text, got, n, l.b.String())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func reload(t *testing.T, s *certs.Source) {
	t.Helper()
	must(t, s.Reload(context.Background()))
}

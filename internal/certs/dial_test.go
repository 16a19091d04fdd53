//go:build unix

package certs_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/pki"
)

// trusting gives a client that has no certificate.
func (r *rig) trusting(cas ...*pki.CA) certs.Files {
	r.t.Helper()
	f := certs.Files{CA: in(r.t.TempDir()).CA}
	r.bundle(f, cas...)
	return f
}

func TestPathsThatAreMissingAreNamed(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	f := r.files(r.node(ca, "n1"), ca)
	for _, c := range []struct {
		files certs.Files
		told  []string
	}{
		{certs.Files{}, []string{"CA: name the file"}},
		{certs.Files{Certificate: f.Certificate, Key: f.Key}, []string{"CA: name the file"}},
		{certs.Files{Certificate: f.Certificate, CA: f.CA}, []string{"a Certificate without a Key"}},
		{certs.Files{Key: f.Key, CA: f.CA}, []string{"a Key without a Certificate"}},
		{certs.Files{Key: f.Key}, []string{"CA: name the file", "a Key without a Certificate"}},
	} {
		_, err := certs.Open(c.files, certs.Options{Now: r.time})
		for _, told := range c.told {
			if err == nil || !strings.Contains(err.Error(), told) {
				t.Errorf("%+v: %v, want %q", c.files, err, told)
			}
		}
	}
}

func TestAClientMayHaveNoCertificate(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	n1, f := r.source(r.node(ca, "n1"), ca), r.trusting(ca)
	s := r.open(f)
	connect(t, n1.Server(certs.Anyone), s.Client("n1")).good(t)
	connect(t, n1.Server(certs.Identified), s.Client("n1")).refusedByServer(t, "didn't provide a certificate")
	connect(t, r.source(r.node(r.ca(), "n1"), ca).Server(certs.Anyone), s.Client("n1")).refusedByClient(t, "unknown authority")
	if s.Certificate() != nil {
		t.Error("it has a certificate")
	}
	if at, file := s.Expiry(); !at.Equal(ca.Certificate().NotAfter) || file != f.CA {
		t.Error(at, file)
	}
	next := r.ca()
	r.bundle(f, next)
	reload(t, s)
	connect(t, r.source(r.node(next, "n1"), next).Server(certs.Anyone), s.Client("n1")).good(t)
	defer func() {
		if told, _ := recover().(string); !strings.Contains(told, "needs a certificate of its own") {
			t.Errorf("it may serve: %q", told)
		}
	}()
	s.Server(certs.Anyone)
}

func TestFilesAreLookedAtWhereThatIsDue(t *testing.T) {
	r := newRig(t)
	old, next := r.ca(), r.ca()
	f := r.files(r.node(old, "n1"), old)
	s, err := certs.Open(f, certs.Options{Now: r.time, Interval: 10 * time.Second})
	must(t, err)
	first := s.Certificate()
	r.replace(f, r.node(next, "n1"), next)
	r.setTime(today.Add(9 * time.Second))
	must(t, s.ReloadIfDue(t.Context()))
	if s.Certificate() != first {
		t.Error("the files were read before it was due")
	}
	r.setTime(today.Add(10 * time.Second))
	done := s.HoldFiles()
	must(t, s.ReloadIfDue(t.Context())) // it would wait for ever
	if s.Certificate() != first {
		t.Error("the files were read by two at a time")
	}
	done()
	must(t, s.ReloadIfDue(t.Context()))
	if s.Certificate() == first {
		t.Error("the files were not read when it was due")
	}
	must(t, os.WriteFile(f.CA, nil, 0o600))
	r.setTime(today.Add(20 * time.Second))
	if err := s.ReloadIfDue(t.Context()); err == nil || s.Fault() == nil {
		t.Errorf("%v, %v", err, s.Fault())
	}
	must(t, s.ReloadIfDue(t.Context())) // and not again at once
	r.bundle(f, next)
	r.setTime(today.Add(30 * time.Second))
	must(t, s.ReloadIfDue(t.Context()))
	must(t, s.Fault())
}

// Dials while the files change, each a matter of either the old ones or the new.
func TestManyDialWhileFilesChange(t *testing.T) {
	r := newRig(t)
	old, next := r.ca(), r.ca()
	node := r.source(r.node(old, "n1"), old, next)
	f := r.files(r.client(old, "app", pki.Verifier), old)
	s, err := certs.Open(f, certs.Options{Now: r.time, Interval: time.Nanosecond})
	must(t, err)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 8 {
				r.setTime(r.time().Add(time.Second))
				if conn, err := dial(t, s, "n1", serving(node.Server(certs.Identified))); err != nil {
					t.Error(err)
				} else {
					_ = conn.Close()
				}
			}
		})
	}
	for range 8 {
		r.replace(f, r.client(next, "app", pki.Verifier), old, next)
		r.replace(f, r.client(old, "app", pki.Verifier), old, next)
	}
	all.Wait()
}

// serving answers a handshake, and then with a byte.
func serving(config *tls.Config) func(net.Conn) {
	return func(conn net.Conn) {
		secured := tls.Server(conn, config)
		if secured.Handshake() == nil {
			_, _ = secured.Write([]byte("+"))
		}
	}
}

// speaking hears the client out, and answers with text.
func speaking(text string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = bufio.NewReader(conn).ReadByte()
		_, _ = io.WriteString(conn, text)
	}
}

// dial reads the first byte too, which is where the server's refusal shows.
func dial(t *testing.T, s *certs.Source, host string, serve func(net.Conn)) (net.Conn, error) {
	t.Helper()
	near, far := net.Pipe()
	var served sync.WaitGroup
	served.Go(func() { serve(far); _ = far.Close() })
	defer served.Wait()
	conn, err := s.Dial(context.Background(), near, host, "h2")
	if err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		_ = near.Close()
		return nil, s.Explain(err)
	}
	return conn, nil
}

func TestAFailedHandshakeSaysWhatIsWrong(t *testing.T) {
	r := newRig(t)
	ca, otherCA := r.ca(), r.ca()
	n1 := r.source(r.node(ca, "n1"), ca)
	app := r.source(r.client(ca, "app", pki.Verifier), ca)
	serve := func(s *certs.Source) func(net.Conn) { return serving(s.Server(certs.Identified)) }
	tls12 := &tls.Config{MaxVersion: tls.VersionTLS12, GetCertificate: n1.Server(certs.Anyone).GetCertificate}
	short, err := ca.IssueNode(pki.NodeRequest{Name: "n1", Hosts: []string{"n1"}, ValidFor: time.Hour})
	must(t, err)
	expired := r.source(short, ca)
	appsShort, err := ca.IssueClient(pki.ClientRequest{Name: "app", Roles: []pki.Role{pki.Verifier}, ValidFor: time.Hour})
	must(t, err)
	late := r.source(appsShort, ca)
	r.setTime(today.Add(2 * time.Hour))
	for name, c := range map[string]struct {
		client *certs.Source
		host   string
		serve  func(net.Conn)
		told   string
	}{
		"plain HTTP":            {app, "n1", speaking("HTTP/1.1 400 Bad Request\r\n\r\n"), "the node speaks plain HTTP"},
		"something else":        {app, "n1", speaking("SSH-2.0-OpenSSH_10"), "what answers speaks no TLS"},
		"TLS 1.2":               {app, "n1", serving(tls12), "does not speak TLS 1.3"},
		"another CA":            {app, "n1", serve(r.source(r.node(otherCA, "n1"), ca)), "is not accepted: no CA in "},
		"another host":          {app, "n2", serve(n1), "is not accepted: it is not for n2, but for n1, 127.0.0.1"},
		"a client's":            {app, "n1", serve(app), "is not accepted: it is not for n1, but for no host: is it a client's?"},
		"expired":               {app, "n1", serve(expired), "is not accepted: it, or the CA that signed it, has expired: it was valid until 2026-11-24T13:00:00Z"},
		"no certificate":        {r.open(r.trusting(ca)), "n1", serve(n1), "the node wants a client certificate, and there is none to show"},
		"own certificate's CA":  {r.source(r.client(otherCA, "app", pki.Verifier), ca), "n1", serve(n1), "does not accept this side's certificate (tls: bad certificate): it is valid until 2027-11-24T14:00:00Z here"},
		"own certificate's end": {late, "n1", serve(n1), "this side's certificate (tls: bad certificate): has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := dial(t, c.client, c.host, c.serve)
			if _, ok := errors.AsType[*certs.HandshakeError](err); !ok || !strings.Contains(err.Error(), c.told) {
				t.Errorf("%v, want %q", err, c.told)
			}
		})
	}
	if err := app.Explain(io.EOF); !errors.Is(err, io.EOF) || err.Error() != "EOF" {
		t.Error(err)
	}
}

// With HTTP/2 a refusal is known before a request is sent, over sockets too, where a reset overtakes what was said.
func TestARefusalIsHeardBeforeARequestIsSent(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	config := r.source(r.node(ca, "n1"), ca).Server(certs.Identified)
	config.NextProtos = []string{"h2"}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	must(t, err)
	server := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	try := func(s *certs.Source) error {
		conn, err := net.Dial("tcp", listener.Addr().String())
		must(t, err)
		secured, err := s.Dial(t.Context(), conn, "127.0.0.1", "h2")
		if err == nil {
			_ = secured.Close()
		}
		return err
	}
	nobody, app := r.open(r.trusting(ca)), r.source(r.client(ca, "app", pki.Verifier), ca)
	for range 50 {
		if _, ok := errors.AsType[*certs.HandshakeError](try(nobody)); !ok {
			t.Fatal("the refusal was not heard")
		}
		must(t, try(app))
	}
}

// A certificate of a trusted CA is not enough, if it is not that of a node.
func TestWhatIsNoNodeIsNamed(t *testing.T) {
	r := newRig(t)
	own := newAuthority(t)
	node := func(c *x509.Certificate) { c.URIs = uris(t, "keyquorum://node/n1") }
	app := own.source(r, node)
	for told, change := range map[string]func(*x509.Certificate){
		`it is that of "n1" (operator)`:            func(c *x509.Certificate) { c.URIs = uris(t, "keyquorum://operator/n1") },
		"no URI of the form keyquorum://ROLE/NAME": func(*x509.Certificate) {},
	} {
		_, err := dial(t, app, "n1", serving(own.source(r, change).Server(certs.Anyone)))
		if err == nil || !strings.Contains(err.Error(), "what answers is no node of a cluster: ") || !strings.Contains(err.Error(), told) {
			t.Errorf("%v, want %q", err, told)
		}
	}
	notForServing := own.source(r, func(c *x509.Certificate) {
		node(c)
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	if _, err := dial(t, app, "n1", serving(notForServing.Server(certs.Anyone))); err == nil || !strings.Contains(err.Error(), "it is not for serving") {
		t.Error(err)
	}
}

func TestAFaultOfTheOwnFilesIsToldWhereAHandshakeFails(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	f := r.trusting(ca)
	app := r.open(f)
	must(t, os.WriteFile(f.CA, []byte("rubbish"), 0o600))
	r.setTime(today.Add(certs.DefaultInterval))
	_, err := dial(t, app, "n2", serving(r.source(r.node(ca, "n1"), ca).Server(certs.Anyone)))
	for _, told := range []string{"it is not for n2", "what this side's files hold now does not count: ", "ca.crt: it holds no certificate in PEM"} {
		if err == nil || !strings.Contains(err.Error(), told) {
			t.Errorf("%v, want %q", err, told)
		}
	}
}

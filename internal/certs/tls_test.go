//go:build unix

package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/pki"
)

func TestNodesKnowEachOther(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	n1, n2 := r.source(r.node(ca, "n1"), ca), r.source(r.node(ca, "n2"), ca)
	for _, host := range []string{"n1", "127.0.0.1"} {
		for _, who := range []certs.Callers{certs.NodesOnly, certs.Identified, certs.Anyone} {
			l := connect(t, n1.Server(who), n2.Client(host))
			l.good(t)
			l.talks(t)
			wantPeer(t, l.server, "n2")
			wantPeer(t, l.client, "n1")
			if l.client.ConnectionState().Version != tls.VersionTLS13 {
				t.Errorf("%x", l.client.ConnectionState().Version)
			}
		}
	}
}

func wantPeer(t *testing.T, conn *tls.Conn, name string) {
	t.Helper()
	id, err := pki.Identify(conn.ConnectionState().PeerCertificates[0])
	if err != nil || id.Name != name {
		t.Errorf("%v, %v, want %s", id, err, name)
	}
}

// The same over sockets, which hold what is written, and with what HTTP/2 asks for.
func TestAHandshakeOnLoopback(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	config := r.source(r.node(ca, "n1"), ca).Server(certs.Identified)
	config.NextProtos = []string{"h2"}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	must(t, err)
	defer listener.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = conn.Write([]byte("+"))
			defer conn.Close()
		}
		served <- err
	}()
	asks := r.source(r.client(ca, "ops", pki.Operator), ca).Client("127.0.0.1")
	asks.NextProtos = []string{"h2"}
	raw, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String())
	must(t, err)
	conn := tls.Client(raw, asks)
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	must(t, err)
	must(t, <-served)
	if conn.ConnectionState().NegotiatedProtocol != "h2" {
		t.Error(conn.ConnectionState().NegotiatedProtocol)
	}
}

func TestWhoIsLetIn(t *testing.T) {
	r := newRig(t)
	ca, otherCA := r.ca(), r.ca()
	server := r.source(r.node(ca, "n1"), ca)
	nobody := server.Client("n1")
	nobody.GetClientCertificate = nil
	client := r.source(r.client(ca, "ops", pki.Operator), ca).Client("n1")
	stranger := r.source(r.node(otherCA, "n1"), ca).Client("n1")
	for name, c := range map[string]struct {
		client *tls.Config
		told   map[certs.Callers]string // who is refused, and why
	}{
		"nobody":     {nobody, map[certs.Callers]string{certs.NodesOnly: "didn't provide a certificate", certs.Identified: "didn't provide a certificate"}},
		"a client":   {client, map[certs.Callers]string{certs.NodesOnly: `the certificate is not that of a node: it is that of "ops" (operator)`}},
		"another CA": {stranger, map[certs.Callers]string{certs.NodesOnly: "unknown authority", certs.Identified: "unknown authority", certs.Anyone: "unknown authority"}},
	} {
		for _, who := range []certs.Callers{certs.NodesOnly, certs.Identified, certs.Anyone} {
			t.Run(name, func(t *testing.T) {
				l := connect(t, server.Server(who), c.client)
				if told := c.told[who]; told != "" {
					l.refusedByServer(t, told)
				} else {
					l.good(t)
				}
			})
		}
	}
}

// Go itself refuses whoever shows none; should it not, this does.
func TestNobodyIsNoNode(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	s := r.source(r.node(ca, "n1"), ca)
	for who, want := range map[certs.Callers]error{certs.NodesOnly: certs.ErrNoCertificate, certs.Identified: certs.ErrNoCertificate, certs.Anyone: nil} {
		if err := s.Server(who).VerifyConnection(tls.ConnectionState{}); !errors.Is(err, want) {
			t.Errorf("%d: %v", who, err)
		}
	}
}

// Certificates of an authority of one's own, which has signed other things too.
func TestWhatACertificateMustSay(t *testing.T) {
	r := newRig(t)
	own := newAuthority(t)
	n1 := own.source(r, func(c *x509.Certificate) { c.URIs = uris(t, "keyquorum://node/n1") })
	good := func(c *x509.Certificate) {
		c.URIs = uris(t, "spiffe://x/y", "keyquorum://node/n2", "keyquorum://operator/n2")
	}
	connect(t, n1.Server(certs.NodesOnly), own.source(r, good).Client("n1")).good(t)
	for told, change := range map[string]func(c *x509.Certificate){
		"has no URI of the form keyquorum://ROLE/NAME": func(c *x509.Certificate) { c.URIs = uris(t, "spiffe://x/node") },
		"has two names": func(c *x509.Certificate) { c.URIs = uris(t, "keyquorum://node/n2", "keyquorum://node/n3") },
		"incompatible key usage": func(c *x509.Certificate) {
			good(c)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		},
	} {
		caller := own.source(r, change)
		for _, who := range []certs.Callers{certs.NodesOnly, certs.Anyone} {
			connect(t, n1.Server(who), caller.Client("n1")).refusedByServer(t, told)
		}
		if told != "incompatible key usage" {
			connect(t, caller.Server(certs.Anyone), n1.Client("n1")).refusedByClient(t, told)
		}
	}
}

func TestWhichServerIsTrusted(t *testing.T) {
	r := newRig(t)
	ca, otherCA := r.ca(), r.ca()
	n2 := r.source(r.node(ca, "n2"), ca)
	serve := func(leaf *pki.Leaf) *tls.Config { return r.source(leaf, ca).Server(certs.Anyone) }
	connect(t, serve(r.node(ca, "n1")), n2.Client("n3")).refusedByClient(t, "not n3")
	connect(t, serve(r.node(ca, "n1")), n2.Client("127.0.0.2")).refusedByClient(t, "not 127.0.0.2")
	connect(t, serve(r.node(otherCA, "n1")), n2.Client("n1")).refusedByClient(t, "unknown authority")
	connect(t, serve(r.client(ca, "n1", pki.Operator)), n2.Client("n1")).refusedByClient(t, "x509: ")

	own := newAuthority(t)
	impostor := own.source(r, func(c *x509.Certificate) { c.URIs = uris(t, "keyquorum://operator/ops") })
	connect(t, impostor.Server(certs.Anyone), impostor.Client("n1")).refusedByClient(t, `not that of a node: it is that of "ops" (operator)`)
}

func TestTimeRunsOutForOpenSourcesToo(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	n1, n2 := r.source(r.node(ca, "n1"), ca), r.source(r.node(ca, "n2"), ca)
	r.setTime(today.Add(366 * 24 * time.Hour))
	connect(t, n1.Server(certs.NodesOnly), n2.Client("n1")).refusedByClient(t, "expired")

	r.setTime(today.Add(-time.Hour))
	connect(t, n1.Server(certs.NodesOnly), n2.Client("n1")).refusedByClient(t, "not yet valid")

	r.setTime(today) // now the caller's alone runs out
	leaf, err := ca.IssueNode(pki.NodeRequest{Name: "n1", Hosts: []string{"n1"}, ValidFor: 3 * 365 * 24 * time.Hour})
	must(t, err)
	longer := r.source(leaf, ca)
	r.setTime(today.Add(366 * 24 * time.Hour))
	connect(t, longer.Server(certs.NodesOnly), n2.Client("n1")).refusedByServer(t, "expired")
}

func TestOlderVersionsAreRefused(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	n1, n2 := r.source(r.node(ca, "n1"), ca), r.source(r.node(ca, "n2"), ca)
	old := n2.Client("n1")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS12
	connect(t, n1.Server(certs.NodesOnly), old).refusedByServer(t, "unsupported versions")
	old = n1.Server(certs.NodesOnly)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS12
	connect(t, old, n2.Client("n1")).refusedByClient(t, "protocol version")
}

// A session that could be resumed would outlast the CA that vouched for it.
func TestSessionsAreNotResumed(t *testing.T) {
	r := newRig(t)
	ca := r.ca()
	n1, n2 := r.source(r.node(ca, "n1"), ca), r.source(r.node(ca, "n2"), ca)
	server, client := n1.Server(certs.NodesOnly), n2.Client("n1")
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		l := connect(t, server, client)
		l.good(t)
		l.talks(t)
		if l.client.ConnectionState().DidResume {
			t.Error("a session was resumed")
		}
	}
}

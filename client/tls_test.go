//go:build unix

package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/pki"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(pki.CAOptions{})
	must(t, err)
	return ca
}

// papers are the files of one who trusts the CAs; of a leaf, unless it is nil.
func papers(t *testing.T, leaf *pki.Leaf, trusted ...*pki.CA) certs.Files {
	t.Helper()
	dir := t.TempDir()
	f := certs.Files{CA: filepath.Join(dir, "ca.crt")}
	trust(t, f, trusted...)
	if leaf != nil {
		f.Certificate, f.Key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
		must(t, leaf.Write(f.Certificate, f.Key))
	}
	return f
}

// trust has the owner of the files trust these CAs alone.
func trust(t *testing.T, f certs.Files, trusted ...*pki.CA) {
	t.Helper()
	var b bytes.Buffer
	for _, ca := range trusted {
		b.Write(pki.EncodeCertificate(ca.Certificate()))
	}
	must(t, os.WriteFile(f.CA+".new", b.Bytes(), 0o600))
	must(t, os.Rename(f.CA+".new", f.CA))
}

// replace puts another leaf in the place of the files', as far as files allow one after the other.
func replace(t *testing.T, f certs.Files, leaf *pki.Leaf) {
	t.Helper()
	next := papers(t, leaf)
	must(t, os.Rename(next.Certificate, f.Certificate))
	must(t, os.Rename(next.Key, f.Key))
}

func nodeLeaf(t *testing.T, ca *pki.CA, host string, validFor time.Duration) *pki.Leaf {
	t.Helper()
	leaf, err := ca.IssueNode(pki.NodeRequest{Name: host, Hosts: []string{host}, ValidFor: validFor})
	must(t, err)
	return leaf
}

func appLeaf(t *testing.T, ca *pki.CA, validFor time.Duration) *pki.Leaf {
	t.Helper()
	leaf, err := ca.IssueClient(pki.ClientRequest{Name: "app", Roles: []pki.Role{pki.Verifier, pki.Issuer}, ValidFor: validFor})
	must(t, err)
	return leaf
}

// serverTLS is what a node speaks, which reads its files anew at each handshake.
func serverTLS(t *testing.T, f certs.Files, who certs.Callers) *tls.Config {
	t.Helper()
	source, err := certs.Open(f, certs.Options{})
	must(t, err)
	config := source.Server(who)
	config.NextProtos = []string{"h2", "http/1.1"}
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return nil, source.Reload(context.Background())
	}
	return config
}

// restart ends the node in good order and starts it again, with what it speaks then.
func (s *ship) restart(speaks *tls.Config) {
	synctest.Wait() // for a start that has only begun
	_ = s.server.Shutdown(context.Background())
	s.tls = speaks
	s.start()
}

// secure has all nodes speak TLS with certificates of ca, to those who are identified, and gives the nodes' files.
func (f *fleet) secure(ca *pki.CA, who certs.Callers) []certs.Files {
	f.t.Helper()
	var all []certs.Files
	for _, s := range f.nodes {
		files := papers(f.t, nodeLeaf(f.t, ca, s.host, 0), ca)
		all = append(all, files)
		s.restart(serverTLS(f.t, files, who))
	}
	return all
}

func tlsFiles(f certs.Files) client.TLSFiles {
	return client.TLSFiles{CA: f.CA, Certificate: f.Certificate, Key: f.Key}
}

// own makes a client with a transport of its own, which is given the nodes' addresses.
func (f *fleet) own(opts ...client.Option) *client.Client {
	f.t.Helper()
	var addresses []string
	for _, s := range f.nodes {
		addresses = append(addresses, s.address())
	}
	c, err := client.New(addresses, append([]client.Option{client.WithDialer(f.net.Dialer("app"))}, opts...)...)
	must(f.t, err)
	f.t.Cleanup(c.Close)
	return c
}

func TestMutualTLS(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		ca := newCA(t)
		f.secure(ca, certs.Identified)
		var heard atomic.Int32
		f.hears = func(_ http.ResponseWriter, r *http.Request) bool {
			id, err := pki.Identify(r.TLS.PeerCertificates[0])
			if r.ProtoMajor != 2 || err != nil || id.Name != "app" {
				t.Errorf("%s from %v, %v", r.Proto, id, err)
			}
			heard.Add(1)
			return false
		}
		late := f.launch("n3") // it is learnt of
		late.restart(serverTLS(t, papers(t, nodeLeaf(t, ca, "n3", 0), ca), certs.Identified))
		f.enlist(f.nodes...)
		f.nodes = f.nodes[:2]
		c := f.own(client.WithTLS(tlsFiles(papers(t, appLeaf(t, ca, 0), ca))))
		for range 50 {
			verify(t, c)
		}
		rest(time.Second)
		if got := c.Addresses(); !slices.Equal(got, []string{"https://n1:7400", "https://n2:7400", "https://n3:7400"}) {
			t.Error(got)
		}
		for range 50 {
			verify(t, c)
		}
		if heard.Load() < 100 || late.took() == 0 {
			t.Errorf("%d requests were heard", heard.Load())
		}
	})
}

// A fault of certificates is told in words that help, as a node that cannot be reached, and as nothing that was done.
func TestAFaultOfTLSIsToldAndNothingWasSent(t *testing.T) {
	type setting struct {
		ca, other *pki.CA
		node      *ship
		files     certs.Files // the client's
	}
	speak := func(t *testing.T, s *setting, leaf *pki.Leaf) {
		t.Helper()
		s.node.restart(serverTLS(t, papers(t, leaf, s.ca), certs.Identified))
	}
	for told, harm := range map[string]func(t *testing.T, s *setting){
		"the node's certificate is not accepted: no CA in ": func(t *testing.T, s *setting) { speak(t, s, nodeLeaf(t, s.other, "n1", 0)) },
		"it, or the CA that signed it, has expired": func(t *testing.T, s *setting) {
			speak(t, s, nodeLeaf(t, s.ca, "n1", time.Hour))
			s.node.tls.GetConfigForClient = nil // a node that does not look would say nothing itself
			rest(2 * time.Hour)
		},
		"it is not for n1, but for n2":                        func(t *testing.T, s *setting) { speak(t, s, nodeLeaf(t, s.ca, "n2", 0)) },
		"it is not for n1, but for no host: is it a client's": func(t *testing.T, s *setting) { speak(t, s, appLeaf(t, s.ca, 0)) },
		"the node speaks plain HTTP, not TLS":                 func(_ *testing.T, s *setting) { s.node.restart(nil) },
		"the node does not speak TLS 1.3": func(_ *testing.T, s *setting) {
			old := s.node.tls.Clone()
			old.MinVersion, old.MaxVersion = 0, tls.VersionTLS12
			s.node.restart(old)
		},
		"the node does not accept this side's certificate (tls: bad certificate): it is valid until": func(t *testing.T, s *setting) {
			s.files = papers(t, appLeaf(t, s.other, 0), s.ca)
		},
		"the node does not accept this side's certificate (tls: bad certificate): has expired": func(t *testing.T, s *setting) {
			s.files = papers(t, appLeaf(t, s.ca, 3*time.Hour), s.ca)
		},
		"the node wants a client certificate, and there is none to show": func(t *testing.T, s *setting) {
			s.files = papers(t, nil, s.ca)
		},
	} {
		sail(t, 1, func(t *testing.T, f *fleet) {
			s := &setting{ca: newCA(t), other: newCA(t), node: f.nodes[0]}
			s.files = papers(t, appLeaf(t, s.ca, 0), s.ca)
			f.secure(s.ca, certs.Identified)
			harm(t, s)
			c := f.own(client.WithTLS(tlsFiles(s.files)), client.InOrder())
			if strings.Contains(told, "(tls: bad certificate): has expired") {
				rest(4 * time.Hour) // with the client there
			}
			for name, call := range methods {
				err := call(t.Context(), c, "")
				e, ok := errors.AsType[*client.Error](err)
				if !ok || !errors.Is(err, client.ErrUnavailable) || !strings.Contains(e.Message, told) {
					t.Errorf("%s: %v, want %q", name, err, told)
				}
			}
		})
	}
}

func TestPlainHTTPToANodeThatSpeaksTLSIsTold(t *testing.T) {
	sail(t, 1, func(t *testing.T, f *fleet) {
		f.secure(newCA(t), certs.Anyone)
		err := methods["Rotate"](t.Context(), f.own(client.InOrder()), "")
		if !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "the node speaks TLS") {
			t.Error(err)
		}
	})
}

// Certificates of a new CA, for nodes and client, one after the other, while 32 callers verify: all goes on, as long as
// each trusts both CAs in between. Each node restarts now and then, as connections that are open outlive any certificate.
func TestANewCAUnderLoad(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		old, next := newCA(t), newCA(t)
		nodes := f.secure(old, certs.Identified)
		mine := papers(t, appLeaf(t, old, 0), old)
		c := f.own(client.WithTLS(tlsFiles(mine)))
		var mu sync.Mutex
		var issuer []byte // of the certificate that the client last showed
		f.hears = func(_ http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			issuer = r.TLS.PeerCertificates[0].RawIssuer
			return false
		}
		stop := f.load(c)
		roll := func(change func(i int)) {
			for i, s := range f.nodes {
				change(i)
				rest(time.Second)
				s.restart(serverTLS(t, nodes[i], certs.Identified))
				rest(3 * time.Second)
			}
		}
		roll(func(i int) { trust(t, nodes[i], old, next) })
		trust(t, mine, old, next)
		rest(11 * time.Second)
		roll(func(i int) { replace(t, nodes[i], nodeLeaf(t, next, f.nodes[i].host, 0)) })
		replace(t, mine, appLeaf(t, next, 0))
		rest(11 * time.Second)
		roll(func(int) {})
		trust(t, mine, next)
		roll(func(i int) { trust(t, nodes[i], next) })
		f.forgetCounts()
		rest(10 * time.Second)
		for _, s := range f.nodes {
			if s.took() == 0 {
				t.Errorf("%s is not asked any more", s.host)
			}
		}
		if n := stop(); n < 5000 {
			t.Errorf("%d verifications", n)
		}
		mu.Lock()
		defer mu.Unlock()
		if !bytes.Equal(issuer, next.Certificate().RawSubject) {
			t.Error("the client still shows its old certificate")
		}
	})
}

// watched counts the connections that are open.
type watched struct {
	net.Conn
	open *atomic.Int32
	once sync.Once
}

func (w *watched) Close() error {
	w.once.Do(func() { w.open.Add(-1) })
	return w.Conn.Close()
}

// With HTTP/2 a request that times out leaves its connection be: it takes a ping to find out that it leads nowhere.
func TestAConnectionThatLeadsNowhereIsGivenUp(t *testing.T) {
	sail(t, 1, func(t *testing.T, f *fleet) {
		ca := newCA(t)
		f.secure(ca, certs.Identified)
		var open atomic.Int32
		dial := f.net.Dialer("app")
		c := f.own(client.WithTLS(tlsFiles(papers(t, appLeaf(t, ca, 0), ca))), client.InOrder(),
			client.WithDialer(func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				if err != nil {
					return nil, err
				}
				open.Add(1)
				return &watched{Conn: conn, open: &open}, nil
			}))
		verify(t, c)
		rest(30 * time.Second)
		if open.Load() != 1 {
			t.Fatalf("%d connections", open.Load())
		}
		f.nodes[0].hang()
		rest(12 * time.Second)
		if open.Load() != 0 {
			t.Errorf("%d connections are still open", open.Load())
		}
		f.nodes[0].resume()
		verify(t, c)
	})
}

func TestANodeThatDoesNotShakeHandsIsUnavailable(t *testing.T) {
	sail(t, 1, func(t *testing.T, f *fleet) {
		ca := newCA(t)
		f.nodes[0].kill()
		l, err := f.net.Listen("n1:7400")
		must(t, err)
		t.Cleanup(func() { l.Close() })
		c := f.own(client.WithTLS(tlsFiles(papers(t, nil, ca))), client.InOrder())
		begun := time.Now()
		err = methods["Rotate"](t.Context(), c, "")
		if took := time.Since(begun); !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "did not shake hands") || took > 6*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestWhatTLSDoesNotGoWithIsNamed(t *testing.T) {
	ca := newCA(t)
	good := tlsFiles(papers(t, appLeaf(t, ca, 0), ca))
	for _, c := range []struct {
		addrs []string
		opts  []client.Option
		told  []string
	}{
		{[]string{"n1", "http://n2:7400", "http://127.0.0.1:7400"}, []client.Option{client.WithTLS(good)}, []string{
			`address "http://n2:7400" is plain HTTP, and TLS was asked for`, `address "http://127.0.0.1:7400" is plain HTTP`,
		}},
		{[]string{"http://n1"}, []client.Option{client.WithTLS(client.TLSFiles{Certificate: "x"}), client.WithHedging(-1)}, []string{
			`address "http://n1"`, "TLS: no CA: name the file", "a Certificate without a Key", "WithHedging",
		}},
		{[]string{"n1"}, []client.Option{client.WithTLS(client.TLSFiles{CA: "/no/such/file"})}, []string{"TLS: ", "open /no/such/file: no such file"}},
		{[]string{"n1"}, []client.Option{client.WithTLS(good), client.WithHTTPClient(http.DefaultClient)}, []string{"WithTLS: an HTTP client"}},
	} {
		_, err := client.New(c.addrs, c.opts...)
		for _, told := range c.told {
			if err == nil || !strings.Contains(err.Error(), told) {
				t.Errorf("%v, want %q", err, told)
			}
		}
	}
	c, err := client.New([]string{"n1", "n2:7401", "[::1]:7400", "https://n3"}, client.WithTLS(good))
	must(t, err)
	defer c.Close()
	if got := c.Addresses(); !slices.Equal(got, []string{"https://n1:7400", "https://n2:7401", "https://[::1]:7400", "https://n3"}) {
		t.Error(got)
	}
}

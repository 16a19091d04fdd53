//go:build unix

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/internal/certs"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

const (
	testToken      = "kq_7_dGhlIHNlY3JldA"
	anotherToken   = "kq_8_YW5vdGhlciBvbmU"
	needsAnAPIName = "who is calling?"
)

// office is a CA of a test's own, with the certificates of a node at 127.0.0.1 and of a client.
type office struct {
	dir string
	sh  *shell
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{dir: filepath.Join(t.TempDir(), "ca"), sh: &shell{t: t}}
	o.sh.must(0, "ca", "init", o.dir)
	o.sh.must(0, "ca", "issue-node", o.dir, "n1", "--host", "127.0.0.1")
	o.sh.must(0, "ca", "issue-client", o.dir, "ops", "--role", "operator,issuer")
	return o
}

func (o *office) path(name string) string { return filepath.Join(o.dir, name) }

// flags are those of one who trusts the CA, and shows the client's certificate.
func (o *office) flags() []string {
	return []string{"--tls-ca", o.path("ca.crt"), "--tls-cert", o.path("ops.crt"), "--tls-key", o.path("ops.key")}
}

// serveTLS runs a handler on loopback, with the node's certificate, and returns its address, without a scheme.
func (o *office) serveTLS(t *testing.T, who certs.Callers, handler http.Handler) string {
	t.Helper()
	return o.serveAs(t, "n1", who, handler)
}

// serveAs is serveTLS with the certificate of the node with that name.
func (o *office) serveAs(t *testing.T, name string, who certs.Callers, handler http.Handler) string {
	t.Helper()
	source, err := certs.Open(certs.Files{CA: o.path("ca.crt"), Certificate: o.path(name + ".crt"), Key: o.path(name + ".key")}, certs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	config := source.Server(who)
	config.NextProtos = []string{"h2", "http/1.1"}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go server.Serve(tls.NewListener(listener, config))
	t.Cleanup(func() { server.Close() })
	return listener.Addr().String()
}

// requires refuses requests without the token.
func requires(token string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer "+token {
			next.ServeHTTP(w, r)
			return
		}
		_ = connect.NewErrorWriter().Write(w, r, connect.NewError(connect.CodeUnauthenticated, errors.New(needsAnAPIName)))
	})
}

func TestCommandsSpeakTLS(t *testing.T) {
	o := newOffice(t)
	address := o.serveTLS(t, certs.Identified, (&fakeNode{}).handler())
	for _, addr := range []string{address, "https://" + address} {
		at(t, addr).must(0, append([]string{"issue", "alice"}, o.flags()...)...)
	}
	sh := at(t, address)
	file := settingsIn(t, fmt.Sprintf("tls-ca: %s\ntls-cert: %s\ntls-key: %s\n", o.path("ca.crt"), o.path("ops.crt"), o.path("ops.key")))
	sh.must(0, "rotate", "alice", "--config", file)
	for name, path := range map[string]string{"CA": "ca.crt", "CERT": "ops.crt", "KEY": "ops.key"} {
		sh.env["KEYQUORUM_TLS_"+name] = o.path(path)
	}
	sh.must(0, "rotate", "alice")
	wants(t, at(t, address).must(3, "rotate", "alice").errors, "unavailable: the node speaks TLS")
	wants(t, at(t, address).must(3, "rotate", "alice", "--tls-ca", o.path("ca.crt")).errors, "the node wants a client certificate")
	other := newOffice(t)
	wants(t, at(t, address).must(3, append([]string{"rotate", "alice"}, other.flags()...)...).errors,
		"unavailable: the node's certificate is not accepted: no CA in "+other.path("ca.crt"))
	plain := strings.TrimPrefix((&fakeNode{}).serve(t), "http://")
	wants(t, at(t, plain).must(3, append([]string{"rotate", "alice"}, o.flags()...)...).errors, "the node speaks plain HTTP")
}

func TestCommandsSendAnAPIToken(t *testing.T) {
	o := newOffice(t)
	address := o.serveTLS(t, certs.Anyone, requires(testToken, (&fakeNode{}).handler()))
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(testToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sh := at(t, address)
	sh.env["KEYQUORUM_TLS_CA"] = o.path("ca.crt")
	sh.must(0, "issue", "alice", "--api-token-file", path)
	r := sh.must(1, "issue", "alice")
	wants(t, r.errors, "unauthenticated: "+needsAnAPIName, "say who is calling: by --tls-cert and --tls-key, or --api-token-file")
	sh.env["KEYQUORUM_API_TOKEN"] = testToken
	sh.must(0, "issue", "alice")
	sh.env["KEYQUORUM_API_TOKEN"] = anotherToken
	r = sh.must(1, "issue", "alice", "--json")
	if strings.Contains(r.errors+r.out, anotherToken) {
		t.Errorf("the token shows: %+v", r)
	}
	for _, line := range []string{"issue --help", "completion bash"} {
		if out := sh.must(0, strings.Fields(line)...).out; strings.Contains(out, anotherToken) || strings.Contains(out, "--api-token ") {
			t.Errorf("%s: %s", line, out)
		}
	}
	wants(t, sh.must(2, "issue", "alice", "--api-token=x").errors, "unknown flag --api-token")
	wants(t, sh.must(2, "issue", "alice", "--config", settingsIn(t, "api-token: x\n")).errors, "api-token: there is no such setting")
}

func TestFaultsOfCredentialsAreToldAtOnce(t *testing.T) {
	o := newOffice(t)
	open := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(open, []byte(testToken), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line  string
		token string
		told  []string
	}{
		{"issue alice --tls-cert x --ttl 5", "", []string{"--tls-ca: name the file", "--tls-key: is missing beside --tls-cert", `--ttl: "5" is not a duration`}},
		{"rotate alice --tls-key x --tls-ca y", "", []string{"--tls-cert: is missing beside --tls-key"}},
		{"health --tls-key x --tls-ca y", "", []string{"--tls-cert: is missing beside --tls-key"}},
		{"health --tls-ca /no/such/file", "", []string{"TLS: ", "/no/such/file"}},
		{"cluster init --wait=-1s --tls-ca /no/such/file", "", []string{"--wait: must not be negative", "TLS: ", "/no/such/file"}},
		{"cluster settings set --tls-ca /no/such/file", "", []string{"name at least one setting", "/no/such/file"}},
		{"cluster status --tls-ca /no/such/file --api-token-file " + open, "", []string{"TLS: ", "/no/such/file", "API token: " + open + " has mode 0644"}},
		{"verify x --api-token-file " + open, testToken, []string{"KEYQUORUM_API_TOKEN: holds an API token, and so does --api-token-file"}},
		{"verify x", "not a token", []string{"API token: it is not of the form"}},
		{"verify x --addr n1:7400,127.0.0.1", testToken, []string{`address "n1:7400" is plain HTTP on another machine`}},
		{"verify x --addr http://n1 --tls-ca " + o.path("ca.crt"), "", []string{`address "http://n1" is plain HTTP, and TLS was asked for`}},
	} {
		sh := &shell{t: t, env: map[string]string{"KEYQUORUM_API_TOKEN": c.token}}
		r := sh.must(2, strings.Fields(c.line)...)
		wants(t, r.errors, c.told...)
		if strings.Contains(r.errors, testToken) || strings.Contains(r.errors, "not a token\n") {
			t.Errorf("the token shows: %s", r.errors)
		}
	}
}

// Each member is asked by TLS, and as the same caller as the first.
func TestClusterStatusAsksMembersAsTheSameCaller(t *testing.T) {
	o := newOffice(t)
	first, second := &fakeNode{}, &fakeNode{}
	a := o.serveTLS(t, certs.Anyone, requires(testToken, first.handler()))
	b := o.serveTLS(t, certs.Anyone, requires(testToken, second.handler()))
	one := &v1.Member{NodeId: "id-1", Name: "n1", RpcAddress: a, Role: v1.Member_VOTER}
	two := &v1.Member{NodeId: "id-2", Name: "n2", RpcAddress: b, Role: v1.Member_VOTER}
	first.status = &v1.StatusResponse{Node: one, Ready: true, Members: []*v1.Member{one, two}}
	second.status = &v1.StatusResponse{Node: two, NotReadyBecause: "it says so itself", Members: []*v1.Member{one, two}}
	sh := at(t, a)
	sh.env["KEYQUORUM_API_TOKEN"] = testToken
	out := sh.must(0, "cluster", "status", "--tls-ca", o.path("ca.crt")).out
	wants(t, out, "n2 is not ready: it says so itself")
	if strings.Contains(out, "no answer") {
		t.Error(out)
	}
}

func TestHealthOfANodeThatSpeaksTLS(t *testing.T) {
	o := newOffice(t)
	probes := http.NewServeMux()
	var mu sync.Mutex
	var carried string
	probes.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		carried += r.Header.Get("Authorization")
		_, _ = io.WriteString(w, "ok\n")
	})
	secured := o.serveTLS(t, certs.Anyone, probes)
	plain := httptest.NewServer(probes)
	t.Cleanup(plain.Close)
	ca := []string{"--tls-ca", o.path("ca.crt")}
	health := func(code int, addr string, flags ...string) result {
		sh := at(t, addr)
		sh.env["KEYQUORUM_API_TOKEN"] = testToken
		return sh.must(code, append([]string{"health"}, flags...)...)
	}
	wants(t, health(0, secured, ca...).out, "ok")
	wants(t, health(0, "https://"+secured, o.flags()...).out, "ok")
	wants(t, health(0, plain.URL, ca...).out, "ok") // where the probes have an address of their own
	wants(t, health(0, strings.TrimPrefix(plain.URL, "http://")).out, "ok")
	wants(t, health(3, strings.TrimPrefix(plain.URL, "http://"), ca...).errors, "the node speaks plain HTTP")
	wants(t, health(3, secured).errors, "speaks TLS: name the CA")
	wants(t, health(3, secured, "--tls-ca", newOffice(t).path("ca.crt")).errors, "no CA in ")
	other := newOffice(t)
	wants(t, health(3, secured, "--tls-ca", o.path("ca.crt"), "--tls-cert", other.path("ops.crt"), "--tls-key", other.path("ops.key")).errors,
		"the node does not accept this side's certificate")
	mu.Lock()
	defer mu.Unlock()
	if carried != "" {
		t.Errorf("a probe was sent %q", carried)
	}
}

// A node that answers for others has no certificate of theirs.
func TestAuditVerifyAsksForTheCertificateOfTheMember(t *testing.T) {
	o := newOffice(t)
	var honest, lying []*v1.Member
	var all []*keeper
	for _, name := range []string{"n1", "n2", "n3"} {
		if name != "n1" {
			o.sh.must(0, "ca", "issue-node", o.dir, name, "--host", "127.0.0.1")
		}
		id := strings.Replace(name, "n", "id-", 1)
		k, liar := &keeper{id: id, chain: history(9)}, &keeper{id: id, chain: history(5)}
		honest = append(honest, memberAt(id, o.serveAs(t, name, certs.Anyone, requires(testToken, k.handler()))))
		lying = append(lying, memberAt(id, o.serveAs(t, "n1", certs.Anyone, requires(testToken, liar.handler()))))
		all = append(all, k, liar)
	}
	for i, k := range all {
		k.members = [][]*v1.Member{honest, lying}[i%2]
	}
	verify := func(code int, addr, files string) result {
		sh := at(t, addr)
		sh.env["KEYQUORUM_API_TOKEN"] = testToken
		return sh.must(code, "audit", "verify", files, "--tls-ca", o.path("ca.crt"))
	}
	wants(t, verify(0, honest[2].GetRpcAddress(), filesOf(t, history(9))).out, "3 of 3 members", "  vouching  n1, n2, n3\n")
	liars := filesOf(t, history(5))
	wants(t, verify(3, lying[0].GetRpcAddress(), liars).errors, "these answered: n1;", `the certificate is that of "n1" (node), not of node "n2"`)
	for _, m := range lying {
		m.Name = "n1" // or none
	}
	wants(t, verify(3, lying[0].GetRpcAddress(), liars).errors, "no majority")
	for _, m := range lying {
		m.Name = ""
	}
	wants(t, verify(3, lying[0].GetRpcAddress(), liars).errors, "it has no name that a certificate could have")
}

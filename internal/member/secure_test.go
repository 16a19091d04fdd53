package member_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/certs/certstest"
	"github.com/keyquorum/keyquorum/internal/member"
	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// secureCluster is three members on real sockets that speak TLS, with one CA.
type secureCluster struct {
	t        *testing.T
	ca       *certstest.CA
	keyring  *seal.Keyring
	members  []*member.Member
	sources  []*certs.Source
	files    []certs.Files
	logs     *syncBuffer
	operator string
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}
func (b *syncBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

const loopback = "127.0.0.1"

func startSecure(t *testing.T) *secureCluster {
	t.Helper()
	ca := certstest.New(t)
	return startSecureWith(t, ca, nil, func(name string) certs.Files { return ca.Node(t, name, loopback) })
}

// startSecureWith has members connect by dial, if it is not nil, with the certificates that files gives.
func startSecureWith(t *testing.T, ca *certstest.CA, dial certs.Dial, files func(name string) certs.Files) *secureCluster {
	t.Helper()
	c := &secureCluster{t: t, ca: ca, keyring: testKeyring(t), logs: new(syncBuffer)}
	ctx, stop := context.WithCancel(t.Context())
	var all errgroup.Group
	t.Cleanup(func() {
		stop()
		if err := all.Wait(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(c.logs.String())
		}
	})
	for i := range 3 {
		name := fmt.Sprint("n", i+1)
		own := files(name)
		source := certstest.Open(t, own)
		cfg := testMember(t.TempDir(), c.keyring, c.logs)
		cfg.Name, cfg.Certs, cfg.Tune = name, source, func(c *node.Config) { c.Dial = dial }
		cfg.Timing = node.Timing{} // the tests are not about elections, and the machine may be busy
		cfg.Logger = slog.New(slog.NewTextHandler(c.logs, nil))
		if i > 0 {
			cfg.Seeds = []string{c.members[0].GossipAddress}
		}
		m, err := member.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.members, c.sources, c.files = append(c.members, m), append(c.sources, source), append(c.files, own)
		all.Go(func() error { return m.Run(ctx) })
	}
	c.found()
	return c
}

// found founds the cluster by a client certificate, and waits until all are members that answer.
func (c *secureCluster) found() {
	c.t.Helper()
	ada := c.ca.Client(c.t, "ada", pki.Operator, pki.Issuer, pki.Verifier)
	cluster := keyquorumv1connect.NewClusterServiceClient(httpAs(c.t, ada), c.url(0))
	res, err := cluster.Init(c.t.Context(), connect.NewRequest(&v1.InitRequest{}))
	if err != nil {
		c.t.Fatal(err)
	}
	c.operator = res.Msg.GetOperatorToken()
	await(c.t, "three ready members", func() bool {
		for _, m := range c.members {
			if m.Ready() != nil || len(m.View().Members()) != 3 {
				return false
			}
		}
		return true
	})
}

func (c *secureCluster) url(i int) string { return "https://" + c.members[i].RPCAddress }

// httpAs gives an HTTP client that shows the certificate in the files.
func httpAs(t *testing.T, files certs.Files) *http.Client { return httpFrom(t, loopback, files) }

// httpFrom is httpAs for a caller with that address.
func httpFrom(t *testing.T, address string, files certs.Files) *http.Client {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: certstest.Open(t, files).Client(loopback), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// bearing gives an HTTP client without a certificate that sends the token.
func (c *secureCluster) bearing(token string) *http.Client {
	files := c.ca.Client(c.t, "unused", pki.Auditor)
	cfg := certstest.Open(c.t, files).Client(loopback)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }
	transport := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	c.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: sends{transport, token}, Timeout: 10 * time.Second}
}

type sends struct {
	http.RoundTripper
	token string
}

func (s sends) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+s.token)
	return s.RoundTripper.RoundTrip(r)
}

// elsewhere is a caller's address: another than the nodes', where a machine has more than one of its own.
func elsewhere() string {
	if runtime.GOOS == "linux" {
		return "127.0.0.9"
	}
	return loopback
}

// The cluster's work goes over TLS, also what a follower forwards, and the record has the true caller.
func TestASecureClusterWorks(t *testing.T) {
	c := startSecure(t)
	ada := c.ca.Client(t, "ada", pki.Issuer, pki.Verifier)
	for i := range c.members {
		tokens := keyquorumv1connect.NewTokenServiceClient(httpFrom(t, elsewhere(), ada), c.url(i))
		issued, err := tokens.Issue(t.Context(), connect.NewRequest(&v1.IssueRequest{Subject: "eve"}))
		if err != nil {
			t.Fatalf("issue at n%d: %v", i+1, err)
		}
		for j := range c.members {
			tokens := keyquorumv1connect.NewTokenServiceClient(httpAs(t, ada), c.url(j))
			res, err := tokens.Verify(t.Context(), connect.NewRequest(&v1.VerifyRequest{Token: issued.Msg.GetToken()}))
			if err != nil || !res.Msg.GetValid() {
				t.Errorf("verify at n%d what n%d issued: %v, %v", j+1, i+1, res, err)
			}
		}
	}
	from := func(node string) string { return "cert:ada from " + elsewhere() + " at " + node }
	want := []string{from("n1"), from("n2"), from("n3")}
	olga := httpAs(t, c.ca.Client(t, "olga", pki.Auditor))
	for i := range c.members {
		var got []string
		await(t, fmt.Sprintf("the records of the tokens at n%d", i+1), func() bool {
			got = issuers(t, keyquorumv1connect.NewAuditServiceClient(olga, c.url(i)))
			return len(got) == len(want)
		})
		if !slices.Equal(got, want) {
			t.Errorf("n%d has on record: %q, want %q", i+1, got, want)
		}
	}
}

// issuers says by whom, from where and at which node the tokens were issued that a node has on record.
func issuers(t *testing.T, node keyquorumv1connect.AuditServiceClient) (all []string) {
	t.Helper()
	res, err := node.List(t.Context(), connect.NewRequest(&v1.AuditServiceListRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range res.Msg.GetRecords() {
		if r.GetKind() == string(audit.TokenIssued) {
			all = append(all, fmt.Sprintf("%s from %s at %s", r.GetActor(), r.GetSource(), r.GetNode()))
		}
	}
	return all
}

// An API token made at one node is known at all of them, and ends at all of them.
func TestAPITokensAreTheClusters(t *testing.T) {
	c := startSecure(t)
	if c.operator == "" {
		t.Fatal("founding gave no operator's token")
	}
	access := keyquorumv1connect.NewAccessServiceClient(c.bearing(c.operator), c.url(1))
	made, err := access.CreateToken(t.Context(), connect.NewRequest(&v1.CreateTokenRequest{
		Name: "the gateway's", Roles: []v1.ApiToken_Role{v1.ApiToken_VERIFIER},
	}))
	if err != nil {
		t.Fatal(err)
	}
	verify := func(i int) error {
		tokens := keyquorumv1connect.NewTokenServiceClient(c.bearing(made.Msg.GetToken()), c.url(i))
		_, err := tokens.Verify(t.Context(), connect.NewRequest(&v1.VerifyRequest{Token: "x"}))
		return err
	}
	for i := range c.members {
		await(t, fmt.Sprintf("the token at n%d", i+1), func() bool { return verify(i) == nil })
	}
	list, err := access.ListTokens(t.Context(), connect.NewRequest(&v1.ListTokensRequest{}))
	if err != nil || len(list.Msg.GetTokens()) != 2 {
		t.Fatalf("listed %v, %v", list, err)
	}
	for _, kept := range list.Msg.GetTokens() {
		if text := kept.String(); strings.Contains(text, c.operator) || strings.Contains(text, made.Msg.GetToken()) {
			t.Errorf("%s shows a token", kept.GetId())
		}
		if kept.GetId() == made.Msg.GetId() && !strings.HasPrefix(kept.GetCreator(), "token:") {
			t.Errorf("it was made by %q", kept.GetCreator())
		}
	}
	if _, err := access.RevokeToken(t.Context(), connect.NewRequest(&v1.RevokeTokenRequest{Id: made.Msg.GetId()})); err != nil {
		t.Fatal(err)
	}
	for i := range c.members {
		await(t, fmt.Sprintf("a refusal at n%d", i+1), func() bool { return connect.CodeOf(verify(i)) == connect.CodeUnauthenticated })
	}
}

// strangers are what does not get past a port that is for nodes.
func strangers(t *testing.T, c *secureCluster) map[string]*tls.Config {
	other := certstest.New(t)
	foreign := other.Node(t, "n2", loopback)
	foreign.CA = c.ca.File // it knows whom it calls, and is from elsewhere
	trusting := func(files certs.Files) *tls.Config { return certstest.Open(t, files).Client(loopback) }
	nobody := trusting(c.files[1])
	nobody.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }
	older := trusting(c.files[1])
	older.MinVersion, older.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	return map[string]*tls.Config{
		"an operator":            trusting(c.ca.Client(t, "ada", pki.Operator, pki.Issuer, pki.Verifier, pki.Auditor)),
		"another CA's node":      trusting(foreign),
		"nobody":                 nobody,
		"a node that speaks 1.2": older,
		"plaintext":              nil,
	}
}

func TestOnlyNodesGetPastTheRaftPort(t *testing.T) {
	c := startSecure(t)
	for name, cfg := range strangers(t, c) {
		if err := knock(t, c.members[0].RaftAddress, cfg, c.members[0].ID()); err == nil {
			t.Errorf("%s was answered", name)
		}
	}
	if err := knock(t, c.members[0].RaftAddress, certstest.Open(t, c.files[1]).Client(loopback), c.members[0].ID()); err != nil {
		t.Errorf("a node was not: %v", err)
	}
}

var errSilent = errors.New("no answer")

// knock greets the Raft port as a member does, and asks for a vote with a term of 0, which a node answers by a refusal.
func knock(t *testing.T, address string, cfg *tls.Config, id string) error {
	t.Helper()
	raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := raw
	if cfg != nil {
		conn = tls.Client(raw, cfg)
	}
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const requestVote = 1
	hello := append([]byte{byte(len(id))}, id...)
	if _, err := conn.Write(append(hello, requestVote, 0x80)); err != nil { // an empty map in msgpack
		return err
	}
	switch n, err := io.ReadAtLeast(conn, make([]byte, 1), 1); {
	case err != nil:
		return err
	case n == 0:
		return errSilent
	}
	return nil
}

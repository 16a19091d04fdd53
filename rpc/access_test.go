package rpc_test

import (
	"context"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/certs/certstest"
	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/rpc"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1/peerv1connect"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// whoMay is the table as the documentation has it: docs/ACCESS.md.
var whoMay = map[string]string{
	"keyquorum.v1.TokenService/Issue":                "issuer",
	"keyquorum.v1.TokenService/Verify":               "verifier",
	"keyquorum.v1.TokenService/VerifyBatch":          "verifier",
	"keyquorum.v1.KeyService/Rotate":                 "issuer",
	"keyquorum.v1.KeyService/Revoke":                 "issuer",
	"keyquorum.v1.KeyService/Delete":                 "issuer",
	"keyquorum.v1.KeyService/Get":                    "operator",
	"keyquorum.v1.KeyService/List":                   "operator",
	"keyquorum.v1.ClusterService/Init":               "operator node",
	"keyquorum.v1.ClusterService/Status":             "operator",
	"keyquorum.v1.ClusterService/Members":            "verifier issuer operator auditor node",
	"keyquorum.v1.ClusterService/Remove":             "operator",
	"keyquorum.v1.ClusterService/TransferLeadership": "operator",
	"keyquorum.v1.ClusterService/GetSettings":        "operator",
	"keyquorum.v1.ClusterService/UpdateSettings":     "operator",
	"keyquorum.v1.ClusterService/KeyringStatus":      "operator",
	"keyquorum.v1.ClusterService/RetireMasterKey":    "operator",
	"keyquorum.v1.AuditService/List":                 "auditor",
	"keyquorum.v1.AuditService/Watch":                "auditor",
	"keyquorum.v1.AuditService/Head":                 "auditor",
	"keyquorum.peer.v1.PeerService/AuditRecords":     "node",
	"keyquorum.v1.AccessService/CreateToken":         "operator",
	"keyquorum.v1.AccessService/ListTokens":          "operator",
	"keyquorum.v1.AccessService/RevokeToken":         "operator",
	"keyquorum.peer.v1.PeerService/Forward":          "node",
	"keyquorum.peer.v1.PeerService/Clock":            "node",
	"keyquorum.peer.v1.PeerService/Standing":         "node",
	"keyquorum.peer.v1.PeerService/Tick":             "node",
	"keyquorum.peer.v1.PeerService/Applied":          "node",
	"keyquorum.peer.v1.PeerService/Challenge":        "node",
	"keyquorum.peer.v1.PeerService/Join":             "node",
	"keyquorum.peer.v1.PeerService/Leave":            "node",
}

// secured is a server with access control over a fake node, whose API tokens are "token-ROLE".
type secured struct {
	*server
	ca   *certstest.CA
	host string
}

func secureServer(t *testing.T, change ...func(*rpc.Config)) *secured {
	t.Helper()
	s := &secured{server: &server{node: &fakeNode{local: &fakeNode{}}, logs: new(lockedBuffer)}, ca: certstest.New(t)}
	s.node.bearers = make(map[string]rpc.Bearer)
	for _, role := range []pki.Role{pki.Verifier, pki.Issuer, pki.Operator, pki.Auditor} {
		s.node.bearers["token-"+string(role)] = rpc.Bearer{ID: string(role), Roles: []pki.Role{role}}
	}
	s.reg = prometheus.NewRegistry()
	cfg := rpc.Config{Node: s.node, Logger: s.log(), Secure: true, Registerer: s.reg, Gatherer: s.reg}
	for _, do := range change {
		do(&cfg)
	}
	srv := rpc.NewServer(rpc.NewHandler(cfg), rpc.ServerConfig{Logger: s.log()})
	srv.TLSConfig = certstest.Open(t, s.ca.Node(t, "n1", "127.0.0.1")).Server(certs.Anyone)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	s.host = l.Addr().String()
	s.url = "https://" + s.host
	return s
}

// as gives an HTTP client that shows the certificate in the files; none if they are empty.
func (s *secured) as(t *testing.T, files certs.Files) *http.Client {
	t.Helper()
	cfg := certstest.Open(t, s.ca.Client(t, "nobody", pki.Auditor)).Client("127.0.0.1")
	if files.Certificate == "" {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }
	} else {
		cfg = certstest.Open(t, files).Client("127.0.0.1")
	}
	transport := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// post calls a procedure with an empty request, and gives the status of the answer and its body.
func (s *secured) post(t *testing.T, h *http.Client, procedure, bearer string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/"+procedure, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := h.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if (res.StatusCode == http.StatusUnauthorized) != (res.Header.Get("WWW-Authenticate") != "") {
		t.Errorf("%s: status %d with WWW-Authenticate %q", procedure, res.StatusCode, res.Header.Get("WWW-Authenticate"))
	}
	return res.StatusCode, string(text)
}

func TestEachRPCIsForTheRolesOfItsRowAlone(t *testing.T) {
	s := secureServer(t)
	var served []string
	for _, p := range rpc.Procedures() {
		served = append(served, strings.TrimPrefix(p, "/"))
	}
	if rows := slices.Sorted(maps.Keys(whoMay)); !slices.Equal(rows, slices.Sorted(slices.Values(served))) {
		t.Errorf("the table has %q, and the server %q", rows, served)
	}
	nobody := s.as(t, certs.Files{})
	shown := map[string]*http.Client{"node": s.as(t, s.ca.Node(t, "n2", "127.0.0.1"))}
	for _, role := range []pki.Role{pki.Verifier, pki.Issuer, pki.Operator, pki.Auditor} {
		shown[string(role)] = s.as(t, s.ca.Client(t, "caller", role))
	}
	for procedure, row := range whoMay {
		if status, _ := s.post(t, nobody, procedure, ""); status != http.StatusUnauthorized {
			t.Errorf("%s for nobody: status %d", procedure, status)
		}
		if status, _ := s.post(t, nobody, procedure, "token-none"); status != http.StatusUnauthorized {
			t.Errorf("%s for an unknown token: status %d", procedure, status)
		}
		for role, h := range shown {
			may := slices.Contains(strings.Fields(row), role)
			want := func(by string, status int, body string) {
				t.Helper()
				denied := strings.Contains(body, "permission_denied")
				if status == http.StatusUnauthorized || denied == may {
					t.Errorf("%s for %s by %s: status %d, %s", procedure, role, by, status, body)
				}
			}
			status, body := s.post(t, h, procedure, "")
			want("certificate", status, body)
			if role != "node" {
				status, body = s.post(t, nobody, procedure, "token-"+role)
				want("token", status, body)
			}
		}
	}
}

// A token says who calls, whatever the certificate says: nobody gains by showing both.
func TestATokenComesBeforeACertificate(t *testing.T) {
	s := secureServer(t)
	operator := s.as(t, s.ca.Client(t, "ada", pki.Operator))
	if status, body := s.post(t, operator, "keyquorum.v1.ClusterService/Status", "token-verifier"); status != http.StatusForbidden {
		t.Errorf("got %d, %s", status, body)
	}
	if status, body := s.post(t, operator, "keyquorum.v1.ClusterService/Status", "token-none"); status != http.StatusUnauthorized {
		t.Errorf("got %d, %s", status, body)
	}
}

func TestTheRecordHasWhoAsked(t *testing.T) {
	s := secureServer(t)
	body := strings.NewReader(`{"node":"n2"}`)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/keyquorum.v1.ClusterService/Remove", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := s.as(t, s.ca.Client(t, "ada", pki.Operator)).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if by := s.node.caller; by.Actor != "cert:ada" || by.Source != "127.0.0.1" || by.Node != "n1" {
		t.Errorf("the node was told that %+v asked", by)
	}
}

// A node cannot pass a request on in another one's name, nor bring in another one, nor have another one leave.
func TestANodeSpeaksForItself(t *testing.T) {
	s := secureServer(t)
	s.node.members = []*v1.Member{{NodeId: "id-n2", Name: "n2"}, {NodeId: "id-n3", Name: "n3"}}
	transport := s.as(t, s.ca.Node(t, "n2", "127.0.0.1"))
	peer := peerv1connect.NewPeerServiceClient(transport, s.url)
	issue := &peerv1.ForwardRequest_Issue{Issue: &v1.IssueRequest{Subject: "ada"}}
	for _, node := range []string{"n2", "n3"} {
		_, err := peer.Forward(t.Context(), connect.NewRequest(&peerv1.ForwardRequest{Actor: "cert:ada", Source: "10.0.0.1", Node: node, NodeId: "id-" + node, Write: issue}))
		if denied := connect.CodeOf(err) == connect.CodePermissionDenied; denied != (node == "n3") {
			t.Errorf("forwarding as %s: %v", node, err)
		}
		_, err = peer.Join(t.Context(), connect.NewRequest(&peerv1.JoinRequest{
			Member:    &v1.Member{NodeId: "id", Name: node, RpcAddress: "h:1", RaftAddress: "h:2", Format: 1},
			Challenge: []byte("c"), KeyringProof: []byte("p"), Nonce: []byte("n"), Process: []byte("p"),
		}))
		if denied := connect.CodeOf(err) == connect.CodePermissionDenied; denied != (node == "n3") {
			t.Errorf("joining as %s: %v", node, err)
		}
		_, err = peer.Leave(t.Context(), connect.NewRequest(&peerv1.LeaveRequest{NodeId: "id-" + node, Challenge: []byte("c"), KeyringProof: []byte("p")}))
		if denied := connect.CodeOf(err) == connect.CodePermissionDenied; denied != (node == "n3") {
			t.Errorf("leaving as %s: %v", node, err)
		}
		_, err = peer.Tick(t.Context(), connect.NewRequest(&peerv1.TickRequest{NodeId: "id-" + node}))
		if denied := connect.CodeOf(err) == connect.CodePermissionDenied; denied != (node == "n3") {
			t.Errorf("asking for a tick as %s: %v", node, err)
		}
	}
	if by := s.node.local.caller; by.Actor != "cert:ada" || by.Node != "n2" {
		t.Errorf("the leader was told that %+v asked", by)
	}
}

// A node that was removed, and has its certificate still, can pass nothing on, and reads no audit records; also where its name was
// given to another.
func TestANodeThatIsNoMemberPassesNothingOn(t *testing.T) {
	for name, member := range map[string]*v1.Member{
		"its name is nobody's": {NodeId: "id-n3", Name: "n3"}, "its name is another's": {NodeId: "id-of-another", Name: "n2"},
	} {
		t.Run(name, func(t *testing.T) { passesNothingOn(t, member) })
	}
}

func passesNothingOn(t *testing.T, member *v1.Member) {
	s := secureServer(t)
	s.node.members = []*v1.Member{member}
	peer := peerv1connect.NewPeerServiceClient(s.as(t, s.ca.Node(t, "n2", "127.0.0.1")), s.url)
	_, err := peer.Forward(t.Context(), connect.NewRequest(&peerv1.ForwardRequest{
		Actor: "cert:ada", Source: "10.0.0.1", Node: "n2", NodeId: "id-n2", Write: &peerv1.ForwardRequest_Issue{Issue: &v1.IssueRequest{Subject: "ada"}},
	}))
	if connect.CodeOf(err) != connect.CodePermissionDenied || !strings.Contains(err.Error(), "a member's certificate") {
		t.Errorf("it was told %v", err)
	}
	if len(s.node.local.requests()) != 0 {
		t.Error("the write was carried out")
	}
	if _, err := peer.Standing(t.Context(), connect.NewRequest(&peerv1.StandingRequest{})); err != nil {
		t.Errorf("it could not ask whether there is a cluster: %v", err)
	}
	_, err = peer.AuditRecords(t.Context(), connect.NewRequest(&peerv1.AuditRecordsRequest{NodeId: "id-n2"}))
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("asking for audit records, it was told %v", err)
	}
}

func TestMetricsAreForThoseWhoMaySeeThem(t *testing.T) {
	s := secureServer(t)
	for _, c := range []struct {
		path, bearer string
		want         int
	}{
		{"/livez", "", 200},
		{"/readyz", "", 200},
		{"/metrics", "", 401},
		{"/metrics", "token-issuer", 403},
		{"/metrics", "token-operator", 200},
		{"/metrics", "token-auditor", 200},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+c.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if c.bearer != "" {
			req.Header.Set("Authorization", "Bearer "+c.bearer)
		}
		res, err := s.as(t, certs.Files{}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("%s with %q: status %d, want %d", c.path, c.bearer, res.StatusCode, c.want)
		}
	}
}

// A refusal tells what was shown, and never what was secret.
func TestRefusalsShowNoToken(t *testing.T) {
	s := secureServer(t)
	const secret = "kq_aaaaaaaaaaaaaaaa_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I"
	_, body := s.post(t, s.as(t, certs.Files{}), "keyquorum.v1.TokenService/Verify", secret)
	for _, where := range []string{body, s.logs.String()} {
		if strings.Contains(where, "c2VjcmV0") {
			t.Errorf("%q has the token", where)
		}
	}
}

// A caller that asks without end leaves places to others, and is told when to ask again.
func TestACallerHasAShare(t *testing.T) {
	s := secureServer(t, func(c *rpc.Config) { c.Limits = rpc.Limits{Reads: 4} })
	release, inside := make(chan struct{}), make(chan struct{}, 4)
	s.node.do = func(ctx context.Context) {
		inside <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
	}
	greedy, modest := s.as(t, s.ca.Client(t, "greedy", pki.Operator)), s.as(t, s.ca.Client(t, "modest", pki.Operator))
	const status = "keyquorum.v1.ClusterService/Status"
	var calls errgroup.Group
	for range 3 {
		calls.Go(func() error { s.post(t, greedy, status, ""); return nil })
	}
	for range 3 {
		<-inside
	}
	code, body := s.post(t, greedy, status, "")
	if code != http.StatusTooManyRequests || !strings.Contains(body, "cert:greedy has 3 read requests") || !strings.Contains(body, "RetryAt") {
		t.Errorf("the fourth of one caller: %d, %s", code, body)
	}
	calls.Go(func() error {
		if code, body := s.post(t, modest, status, ""); code != http.StatusOK {
			t.Errorf("the first of another: %d, %s", code, body)
		}
		return nil
	})
	<-inside
	close(release)
	_ = calls.Wait()
	if code, body := s.post(t, greedy, status, ""); code != http.StatusOK {
		t.Errorf("once its own were answered: %d, %s", code, body)
	}
}

func TestACallerHasARate(t *testing.T) {
	s := secureServer(t, func(c *rpc.Config) { c.Limits = rpc.Limits{CallerRate: 2} })
	greedy, modest := s.as(t, s.ca.Client(t, "greedy", pki.Operator)), s.as(t, s.ca.Client(t, "modest", pki.Operator))
	node := s.as(t, s.ca.Node(t, "n2", "127.0.0.1"))
	refused := 0
	for range 20 {
		if code, _ := s.post(t, greedy, "keyquorum.v1.ClusterService/Status", ""); code == http.StatusTooManyRequests {
			refused++
		}
		if code, body := s.post(t, node, "keyquorum.peer.v1.PeerService/Clock", ""); code != http.StatusOK {
			t.Fatalf("a node's: %d, %s", code, body)
		}
	}
	if refused == 0 {
		t.Error("20 requests at once were within a rate of 2 in a second")
	}
	if code, body := s.post(t, modest, "keyquorum.v1.ClusterService/Status", ""); code != http.StatusOK {
		t.Errorf("another caller's: %d, %s", code, body)
	}
}

// A path that is not spelt as the table has it leads nowhere, by whatever method and protocol, so there is no way around it.
func TestNoSpellingLeadsAroundTheTable(t *testing.T) {
	s := secureServer(t)
	nobody := s.as(t, certs.Files{})
	nobody.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	one := s.as(t, certs.Files{})
	one.CheckRedirect = nobody.CheckRedirect
	one.Transport.(*http.Transport).Protocols = new(http.Protocols)
	one.Transport.(*http.Transport).Protocols.SetHTTP1(true)
	for _, path := range []string{
		"/keyquorum.v1.TokenService/Verify", "//keyquorum.v1.TokenService/Verify", "/keyquorum.v1.TokenService//Verify",
		"/keyquorum.v1.TokenService/Verify/", "/./keyquorum.v1.TokenService/Verify", "/x/../keyquorum.v1.TokenService/Verify",
		"/keyquorum.v1.TokenService/%56erify", "/keyquorum.v1.TokenService%2FVerify", "/KEYQUORUM.V1.TOKENSERVICE/VERIFY",
		"/keyquorum.v1.TokenService/Verify;x=1", "/keyquorum.v1.TokenService/Verify?message=%7B%7D&encoding=json&connect=v1",
		"/livez/../keyquorum.v1.TokenService/Verify", "/%6Detrics", "//metrics", "/metrics/", "/metrics?x=1",
	} {
		for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodHead, http.MethodPut, http.MethodOptions, http.MethodConnect, "post"} {
			for _, content := range []string{"application/json", "application/proto", "application/grpc", "application/grpc-web+proto", "application/connect+json"} {
				for _, h := range []*http.Client{nobody, one} {
					req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader("{}"))
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Content-Type", content)
					res, err := h.Do(req)
					if err != nil {
						continue // what the client does not send, or the server cuts off
					}
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
					// By gRPC and in streams, the refusal is in what follows the status.
					if res.StatusCode < 300 && res.Header.Get("WWW-Authenticate") == "" {
						t.Errorf("%s %s as %s: status %d, %v", method, path, content, res.StatusCode, res.Header)
					}
				}
			}
		}
	}
	if asked := s.node.requests(); len(asked) != 0 {
		t.Errorf("the node was asked %v", asked)
	}
}

// A header that comes twice, or is of another scheme, is no token; and it is never passed over for the certificate.
func TestAnOddAuthorizationIsNone(t *testing.T) {
	s := secureServer(t)
	operator := s.as(t, s.ca.Client(t, "ada", pki.Operator))
	for _, header := range [][]string{
		{""},
		{"Bearer"},
		{"Bearer "},
		{"Basic token-operator"},
		{"token-operator"},
		{"Bearer token-operator", "Bearer token-operator"},
		{"Bearer  token-operator"},
		{"Bearer token-operator,Bearer token-operator"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/keyquorum.v1.ClusterService/Status", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": header}
		res, err := operator.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%q: status %d", header, res.StatusCode)
		}
	}
}

// What a stream shows ends when its caller may no longer see it.
func TestAStreamEndsWithItsCallersToken(t *testing.T) {
	s := secureServer(t)
	s.node.watch = func(send func(*v1.AuditServiceWatchResponse) error) error {
		for n := range 4 {
			if n == 2 {
				s.node.bearers = nil // revoked
			}
			if err := send(&v1.AuditServiceWatchResponse{}); err != nil {
				return err
			}
		}
		return nil
	}
	c := keyquorumv1connect.NewAuditServiceClient(s.as(t, certs.Files{}), s.url)
	req := connect.NewRequest(&v1.AuditServiceWatchRequest{})
	req.Header().Set("Authorization", "Bearer token-auditor")
	stream, err := c.Watch(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	got := 0
	for stream.Receive() {
		got++
	}
	if got != 2 || connect.CodeOf(stream.Err()) != connect.CodeUnauthenticated {
		t.Errorf("after %d messages it ended with %v", got, stream.Err())
	}
}

// The longest name that a certificate can have fits into the record, whole or told apart from all others.
func TestTheLongestNameCanWrite(t *testing.T) {
	s := secureServer(t)
	actors := map[string]bool{}
	for _, name := range []string{strings.Repeat("é", 125) + "a", strings.Repeat("é", 128), strings.Repeat("é", 127) + "ab"} {
		status, body := s.post(t, s.as(t, s.ca.Client(t, name, pki.Operator)), "keyquorum.v1.ClusterService/TransferLeadership", "")
		actor := s.node.caller.Actor
		if c := (fsm.Command{Op: fsm.Tick{}, Origin: fsm.Origin{Actor: actor}}); status != http.StatusOK || c.Validate() != nil {
			t.Errorf("%d bytes: status %d, %s; %v", len(actor), status, body, c.Validate())
		}
		actors[actor] = true
	}
	if len(actors) != 3 || !actors["cert:"+strings.Repeat("é", 125)+"a"] {
		t.Errorf("got %q", slices.Collect(maps.Keys(actors)))
	}
}

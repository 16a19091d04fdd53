package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/rpc"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// fakeNode answers with what it is given and remembers what came.
type fakeNode struct {
	mu     sync.Mutex
	asked  []proto.Message
	caller rpc.Caller
	// fail is what every answer fails with, if set.
	fail error
	// do runs within each answer, if set.
	do      func(context.Context)
	verdict *v1.VerifyResponse
	local   *fakeNode
	ready   error
	live    error
	bearers map[string]rpc.Bearer
	members []*v1.Member
	// watch takes the place of AuditWatch.
	watch func(send func(*v1.AuditServiceWatchResponse) error) error
}

func (n *fakeNode) take(ctx context.Context, by rpc.Caller, req proto.Message) error {
	n.mu.Lock()
	n.asked, n.caller = append(n.asked, req), by
	n.mu.Unlock()
	if n.do != nil {
		n.do(ctx)
	}
	return n.fail
}

func (n *fakeNode) requests() []proto.Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

func give[Res any](ctx context.Context, n *fakeNode, by rpc.Caller, req proto.Message, res *Res) (*Res, error) {
	if err := n.take(ctx, by, req); err != nil {
		return nil, err
	}
	return res, nil
}

func (n *fakeNode) Issue(ctx context.Context, by rpc.Caller, req *v1.IssueRequest) (*v1.IssueResponse, error) {
	return give(ctx, n, by, req, &v1.IssueResponse{Token: secretToken, KeyId: "key"})
}

func (n *fakeNode) Rotate(ctx context.Context, by rpc.Caller, req *v1.RotateRequest) (*v1.RotateResponse, error) {
	return give(ctx, n, by, req, &v1.RotateResponse{KeyId: "key", Revision: 7})
}

func (n *fakeNode) Revoke(ctx context.Context, by rpc.Caller, req *v1.RevokeRequest) (*v1.RevokeResponse, error) {
	return give(ctx, n, by, req, &v1.RevokeResponse{KeyId: "key", Revision: 7})
}

func (n *fakeNode) Delete(ctx context.Context, by rpc.Caller, req *v1.DeleteRequest) (*v1.DeleteResponse, error) {
	return give(ctx, n, by, req, &v1.DeleteResponse{Revision: 7})
}

func (n *fakeNode) Remove(ctx context.Context, by rpc.Caller, req *v1.RemoveRequest) (*v1.RemoveResponse, error) {
	return give(ctx, n, by, req, &v1.RemoveResponse{NodeId: "id"})
}

func (n *fakeNode) TransferLeadership(ctx context.Context, by rpc.Caller, req *v1.TransferLeadershipRequest) (*v1.TransferLeadershipResponse, error) {
	return give(ctx, n, by, req, &v1.TransferLeadershipResponse{LeaderId: "id"})
}

func (n *fakeNode) UpdateSettings(ctx context.Context, by rpc.Caller, req *v1.UpdateSettingsRequest) (*v1.UpdateSettingsResponse, error) {
	return give(ctx, n, by, req, &v1.UpdateSettingsResponse{Settings: &v1.Settings{}})
}

func (n *fakeNode) RetireMasterKey(ctx context.Context, by rpc.Caller, req *v1.RetireMasterKeyRequest) (*v1.RetireMasterKeyResponse, error) {
	return give(ctx, n, by, req, &v1.RetireMasterKeyResponse{MasterKey: &v1.MasterKey{Id: 7}})
}

func (n *fakeNode) KeyringStatus(ctx context.Context) (*v1.KeyringStatusResponse, error) {
	return give(ctx, n, rpc.Caller{}, &v1.KeyringStatusRequest{}, &v1.KeyringStatusResponse{Keys: 7})
}

func (n *fakeNode) Verify(ctx context.Context, req *v1.VerifyRequest) (*v1.VerifyResponse, error) {
	verdict := n.verdict
	if verdict == nil {
		verdict = &v1.VerifyResponse{Reason: v1.VerifyResponse_EXPIRED, Revision: 7, Node: n.Name()}
	}
	return give(ctx, n, rpc.Caller{}, req, verdict)
}

func (n *fakeNode) VerifyBatch(ctx context.Context, req *v1.VerifyBatchRequest) (*v1.VerifyBatchResponse, error) {
	res := &v1.VerifyBatchResponse{}
	for range req.GetTokens() {
		res.Verdicts = append(res.Verdicts, &v1.VerifyResponse{Reason: v1.VerifyResponse_MALFORMED})
	}
	return give(ctx, n, rpc.Caller{}, req, res)
}

func (n *fakeNode) Get(ctx context.Context, req *v1.GetRequest) (*v1.GetResponse, error) {
	return give(ctx, n, rpc.Caller{}, req, &v1.GetResponse{Revision: 7})
}

func (n *fakeNode) List(ctx context.Context, req *v1.ListRequest) (*v1.ListResponse, error) {
	return give(ctx, n, rpc.Caller{}, req, &v1.ListResponse{Revision: 7})
}

func (n *fakeNode) Status(ctx context.Context) (*v1.StatusResponse, error) {
	return give(ctx, n, rpc.Caller{}, &v1.StatusRequest{}, &v1.StatusResponse{})
}

func (n *fakeNode) Members(ctx context.Context) (*v1.MembersResponse, error) {
	return give(ctx, n, rpc.Caller{}, &v1.MembersRequest{}, &v1.MembersResponse{Members: n.members})
}

func (n *fakeNode) GetSettings(ctx context.Context) (*v1.GetSettingsResponse, error) {
	return give(ctx, n, rpc.Caller{}, &v1.GetSettingsRequest{}, &v1.GetSettingsResponse{})
}

func (n *fakeNode) CreateToken(ctx context.Context, by rpc.Caller, req *v1.CreateTokenRequest) (*v1.CreateTokenResponse, error) {
	return give(ctx, n, by, req, &v1.CreateTokenResponse{Token: "kq_x", Id: "x"})
}

func (n *fakeNode) RevokeToken(ctx context.Context, by rpc.Caller, req *v1.RevokeTokenRequest) (*v1.RevokeTokenResponse, error) {
	return give(ctx, n, by, req, &v1.RevokeTokenResponse{})
}

func (n *fakeNode) ListTokens(ctx context.Context) (*v1.ListTokensResponse, error) {
	return give(ctx, n, rpc.Caller{}, &v1.ListTokensRequest{}, &v1.ListTokensResponse{})
}

func (n *fakeNode) Bearer(_ context.Context, token string) (rpc.Bearer, error) {
	held, ok := n.bearers[token]
	if !ok {
		return rpc.Bearer{}, fault.ErrUnauthenticated
	}
	return held, nil
}

func (n *fakeNode) Local() rpc.Writer { return n.local }

func (n *fakeNode) Admits(name, id string) bool {
	return n.members == nil || slices.ContainsFunc(n.members, func(m *v1.Member) bool {
		return m.GetName() == name && m.GetNodeId() == id
	})
}

func (n *fakeNode) Standing(ctx context.Context) (*peerv1.StandingResponse, error) {
	return give(ctx, n, rpc.Caller{}, &peerv1.StandingRequest{}, &peerv1.StandingResponse{NodeId: "id"})
}

func (n *fakeNode) Tick(ctx context.Context, req *peerv1.TickRequest) (*peerv1.TickResponse, error) {
	return give(ctx, n, rpc.Caller{}, req, &peerv1.TickResponse{Position: 7})
}

func (n *fakeNode) Applied(ctx context.Context, req *peerv1.AppliedRequest) (*peerv1.AppliedResponse, error) {
	return give(ctx, n, rpc.Caller{}, req, &peerv1.AppliedResponse{NodeId: "id", Position: 7})
}

func (n *fakeNode) Challenge(ctx context.Context) (*peerv1.ChallengeResponse, error) {
	return give(ctx, n, rpc.Caller{}, &peerv1.ChallengeRequest{}, &peerv1.ChallengeResponse{Challenge: []byte("c")})
}

func (n *fakeNode) Clock(ctx context.Context) (*peerv1.ClockResponse, error) {
	return give(ctx, n, rpc.Caller{}, &peerv1.ClockRequest{}, &peerv1.ClockResponse{WallNs: 5, NodeId: "id"})
}

func (n *fakeNode) Join(ctx context.Context, req *peerv1.JoinRequest) (*peerv1.JoinResponse, error) {
	return give(ctx, n, rpc.Caller{}, req, &peerv1.JoinResponse{ClusterId: "c"})
}

func (n *fakeNode) Leave(ctx context.Context, req *peerv1.LeaveRequest) (*peerv1.LeaveResponse, error) {
	return give(ctx, n, rpc.Caller{}, req, &peerv1.LeaveResponse{})
}

func (n *fakeNode) AuditRecords(ctx context.Context, req *peerv1.AuditRecordsRequest) (*peerv1.AuditRecordsResponse, error) {
	return give(ctx, n, rpc.Caller{}, req, &peerv1.AuditRecordsResponse{})
}

func (n *fakeNode) AuditList(ctx context.Context, req *v1.AuditServiceListRequest) (*v1.AuditServiceListResponse, error) {
	return give(ctx, n, rpc.Caller{}, req, &v1.AuditServiceListResponse{})
}

func (n *fakeNode) AuditHead(ctx context.Context) (*v1.AuditServiceHeadResponse, error) {
	return give(ctx, n, rpc.Caller{}, &v1.AuditServiceHeadRequest{}, &v1.AuditServiceHeadResponse{Sequence: 7})
}

func (n *fakeNode) AuditWatch(ctx context.Context, req *v1.AuditServiceWatchRequest, send func(*v1.AuditServiceWatchResponse) error) error {
	if n.watch != nil {
		return n.watch(send)
	}
	res, err := give(ctx, n, rpc.Caller{}, req, &v1.AuditServiceWatchResponse{PreviousHash: "h"})
	if err != nil {
		return err
	}
	return send(res)
}

func (n *fakeNode) Init(ctx context.Context, by rpc.Caller, req *v1.InitRequest) (*v1.InitResponse, error) {
	return give(ctx, n, by, req, &v1.InitResponse{ClusterId: "c"})
}

func (n *fakeNode) Name() string { return "n1" }
func (n *fakeNode) Ready() error { return n.ready }
func (n *fakeNode) Live() error  { return n.live }

const secretToken = "eyJsecret.token.whole"

// server is a handler over a fake node on a real port, with what it logged and counted.
type server struct {
	node *fakeNode
	url  string
	logs *lockedBuffer
	reg  *prometheus.Registry
	http *http.Client
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func serve(t testing.TB, change func(*rpc.Config)) *server {
	t.Helper()
	s := &server{
		node: &fakeNode{local: &fakeNode{}}, logs: new(lockedBuffer), reg: prometheus.NewRegistry(),
	}
	cfg := rpc.Config{
		Node: s.node, Registerer: s.reg, Gatherer: s.reg,
		Logger: s.log(),
	}
	if change != nil {
		change(&cfg)
	}
	s.listen(t, rpc.NewHandler(cfg))
	return s
}

// log is where the server says what it has to say.
func (s *server) log() *slog.Logger {
	return slog.New(slog.NewJSONHandler(s.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (s *server) listen(t testing.TB, h http.Handler) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := rpc.NewServer(h, rpc.ServerConfig{Logger: s.log()})
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(listener) }()
	s.url = "http://" + listener.Addr().String()
	s.http = &http.Client{Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(func() {
		s.http.CloseIdleConnections()
		_ = srv.Close()
		<-done
	})
}

// h2c is a client that speaks HTTP/2 without TLS.
func (s *server) h2c(t testing.TB) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// reply is what a plain POST got.
type reply struct {
	status int
	header http.Header
	body   string
}

// post sends JSON as curl would. Headers are given as "Name: value".
func (s *server) post(t testing.TB, procedure, body string, headers ...string) reply {
	t.Helper()
	return s.send(t, http.MethodPost, procedure, strings.NewReader(body), headers...)
}

func (s *server) send(t testing.TB, method, path string, body io.Reader, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{status: res.StatusCode, header: res.Header, body: string(text)}
}

// failure is an error in Connect's JSON.
type failure struct {
	Code, Message string
	Details       []struct {
		Type  string
		Debug map[string]any
	}
}

func (r reply) failure(t testing.TB) failure {
	t.Helper()
	var f failure
	if err := json.Unmarshal([]byte(r.body), &f); err != nil {
		t.Fatalf("status %d, body %q: %v", r.status, r.body, err)
	}
	return f
}

// detail gives the failure's detail of a type, which it has once at most.
func (f failure) detail(t testing.TB, name string) map[string]any {
	t.Helper()
	var found map[string]any
	for _, d := range f.Details {
		if d.Type != "keyquorum.v1."+name {
			continue
		}
		if found != nil {
			t.Errorf("%s stands there twice: %+v", name, f)
		}
		if found = d.Debug; found == nil {
			found = map[string]any{}
		}
	}
	return found
}

// detailOf gives the detail of type M of an error that a client got, which has it once at most.
func detailOf[M proto.Message](t testing.TB, err error) (found M, ok bool) {
	t.Helper()
	wire, is := errors.AsType[*connect.Error](err)
	if !is {
		t.Fatalf("not a connect error: %v", err)
	}
	for _, d := range wire.Details() {
		value, err := d.Value()
		if err != nil {
			t.Fatal(err)
		}
		if m, is := value.(M); is {
			if ok {
				t.Errorf("%T stands there twice", m)
			}
			found, ok = m, true
		}
	}
	return found, ok
}

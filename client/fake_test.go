package client_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// fake is a node that answers everything alike: with err if it is set, else with what the test looks for.
type fake struct {
	keyquorumv1connect.UnimplementedTokenServiceHandler
	keyquorumv1connect.UnimplementedKeyServiceHandler
	keyquorumv1connect.UnimplementedClusterServiceHandler
	name  string
	err   error
	calls atomic.Int32
	// failure is an err that a test sets while the node is asked; stall is what each Verify and Revoke
	// waits for.
	failure atomic.Pointer[error]
	stall   func(context.Context)
	// believes is the subject of whom every token is said to be; empty for judging them.
	believes string
}

// fail has the node fail everything from now on with err, or nothing if that is nil.
func (f *fake) fail(err error) { f.failure.Store(&err) }

func (f *fake) linger(ctx context.Context) {
	if f.stall != nil {
		f.stall(ctx)
	}
}

func (f *fake) handler() http.Handler {
	if f.name == "" {
		f.name = "node" // it stands for token and key id, which no node leaves empty
	}
	mux := http.NewServeMux()
	mux.Handle(keyquorumv1connect.NewTokenServiceHandler(f))
	mux.Handle(keyquorumv1connect.NewKeyServiceHandler(f))
	mux.Handle(keyquorumv1connect.NewClusterServiceHandler(f))
	return mux
}

// serve runs the node on loopback and returns its address.
func (f *fake) serve(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(f.handler())
	t.Cleanup(s.Close)
	return s.URL
}

func answer[T any](f *fake, m *T) (*connect.Response[T], error) {
	f.calls.Add(1)
	if err := f.failure.Load(); err != nil && *err != nil {
		return nil, *err
	}
	if f.err != nil {
		return nil, f.err
	}
	return connect.NewResponse(m), nil
}

func (f *fake) Issue(context.Context, *connect.Request[v1.IssueRequest]) (*connect.Response[v1.IssueResponse], error) {
	return answer(f, &v1.IssueResponse{Token: f.name})
}

func (f *fake) Verify(ctx context.Context, r *connect.Request[v1.VerifyRequest]) (*connect.Response[v1.VerifyResponse], error) {
	f.linger(ctx)
	if f.believes != "" {
		return answer(f, &v1.VerifyResponse{Valid: true, Subject: f.believes})
	}
	return answer(f, &v1.VerifyResponse{Valid: r.Msg.GetToken() == "good", Reason: reasons[r.Msg.GetToken() == "good"], Node: f.name})
}

func (f *fake) VerifyBatch(_ context.Context, r *connect.Request[v1.VerifyBatchRequest]) (*connect.Response[v1.VerifyBatchResponse], error) {
	res := &v1.VerifyBatchResponse{}
	for _, token := range r.Msg.GetTokens() {
		res.Verdicts = append(res.Verdicts, &v1.VerifyResponse{Valid: token == "good", Reason: reasons[token == "good"], Node: f.name})
	}
	return answer(f, res)
}

func (f *fake) Rotate(ctx context.Context, _ *connect.Request[v1.RotateRequest]) (*connect.Response[v1.RotateResponse], error) {
	f.linger(ctx)
	return answer(f, &v1.RotateResponse{KeyId: f.name})
}

func (f *fake) Revoke(ctx context.Context, _ *connect.Request[v1.RevokeRequest]) (*connect.Response[v1.RevokeResponse], error) {
	f.linger(ctx)
	return answer(f, &v1.RevokeResponse{KeyId: f.name})
}

func (f *fake) Delete(context.Context, *connect.Request[v1.DeleteRequest]) (*connect.Response[v1.DeleteResponse], error) {
	return answer(f, &v1.DeleteResponse{Revision: 7})
}

func (f *fake) Get(context.Context, *connect.Request[v1.GetRequest]) (*connect.Response[v1.GetResponse], error) {
	return answer(f, &v1.GetResponse{Revision: 7})
}

func (f *fake) List(context.Context, *connect.Request[v1.ListRequest]) (*connect.Response[v1.ListResponse], error) {
	return answer(f, &v1.ListResponse{Revision: 7})
}

func (f *fake) Status(context.Context, *connect.Request[v1.StatusRequest]) (*connect.Response[v1.StatusResponse], error) {
	return answer(f, &v1.StatusResponse{Node: &v1.Member{Name: f.name}})
}

func (f *fake) Members(context.Context, *connect.Request[v1.MembersRequest]) (*connect.Response[v1.MembersResponse], error) {
	return answer(f, &v1.MembersResponse{LeaderId: f.name})
}

func (f *fake) UpdateSettings(context.Context, *connect.Request[v1.UpdateSettingsRequest]) (*connect.Response[v1.UpdateSettingsResponse], error) {
	return answer(f, &v1.UpdateSettingsResponse{Settings: &v1.Settings{}})
}

func (f *fake) RetireMasterKey(context.Context, *connect.Request[v1.RetireMasterKeyRequest]) (*connect.Response[v1.RetireMasterKeyResponse], error) {
	return answer(f, &v1.RetireMasterKeyResponse{MasterKey: &v1.MasterKey{}})
}

var reasons = map[bool]v1.VerifyResponse_Reason{false: v1.VerifyResponse_MALFORMED}

// refusal is an error as a node sends it: with the request's id and what else it tells.
func refusal(t testing.TB, code connect.Code, message string, details ...proto.Message) error {
	t.Helper()
	e := connect.NewError(code, errorText(message))
	for _, m := range append(details, &v1.RequestInfo{RequestId: "req-1"}) {
		d, err := connect.NewErrorDetail(m)
		if err != nil {
			t.Fatal(err)
		}
		e.AddDetail(d)
	}
	return e
}

type errorText string

func (e errorText) Error() string { return string(e) }

// nobody returns an address where nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	return s.URL
}

// hangingUp takes each request, and closes the connection without an answer.
func hangingUp(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(s.Close)
	return s.URL
}

// newClient asks the addresses in their order, so that a test says which node fails.
func newClient(t *testing.T, addrs ...string) *client.Client {
	t.Helper()
	c, err := client.New(addrs, client.InOrder())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// inProcess carries requests to handlers by host, without a network, so that time can be virtual. A host without
// a handler takes the request and never answers.
type inProcess map[string]http.Handler

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	h, ok := p[r.URL.Host]
	if !ok {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/client/clienttest"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// nobodyThere is a client of a cluster that is gone.
func nobodyThere(t *testing.T) *client.Client { return newClient(t, nobody(t)) }

func TestAVerifiedTokenTellsWhatItWasIssuedWith(t *testing.T) {
	cluster := clienttest.New(t)
	type mine struct {
		Plan string `json:"plan"`
		ID   int64  `json:"id"`
		List []any  `json:"list"`
	}
	const big = 1<<53 - 1
	c := cluster.Client()
	issued, err := c.Issue(t.Context(), &v1.IssueRequest{
		Subject: "alice", Audience: []string{"shop"},
		Claims: claimsOf(t, mine{"pro", big, []any{big, "x"}}),
	})
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.VerifyToken(t.Context(), issued.GetToken(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	if v.Subject() != "alice" || v.KeyID() != issued.GetKeyId() || !v.ExpiresAt().Equal(issued.GetExpiresAt().AsTime()) ||
		!v.IssuedAt().Equal(issued.GetIssuedAt().AsTime()) {
		t.Errorf("%v, %v to %v", v, v.IssuedAt(), v.ExpiresAt())
	}
	var got mine
	if err := v.Claims(&got); err != nil || got.Plan != "pro" || got.ID != big {
		t.Errorf("%+v, %v", got, err)
	}
	var all map[string]any
	if err := v.Claims(&all); err != nil || all["sub"] != "alice" || all["id"].(interface{ String() string }).String() != "9007199254740991" {
		t.Errorf("%v, %v", all, err)
	}
	var text struct{ ID string }
	if err := v.Claims(&text); err == nil {
		t.Error("a number was taken for a text")
	}
	if _, err := c.VerifyToken(t.Context(), issued.GetToken(), "forum"); reason(err) != v1.VerifyResponse_AUDIENCE_MISMATCH {
		t.Error(err)
	}
	if strings.Contains(v.String(), issued.GetToken()) || strings.Contains(v.String(), "pro") {
		t.Error("a verified token prints what it holds")
	}
}

func claimsOf(t *testing.T, v any) *structpb.Struct {
	t.Helper()
	s, err := client.Claims(v)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reason is that of an *InvalidTokenError; NONE for another error.
func reason(err error) v1.VerifyResponse_Reason {
	var invalid *client.InvalidTokenError
	if !errors.As(err, &invalid) || !errors.Is(err, client.ErrInvalidToken) {
		return v1.VerifyResponse_NONE
	}
	return invalid.Reason
}

func TestEveryReasonHasItsError(t *testing.T) {
	sentinels := map[v1.VerifyResponse_Reason]error{
		v1.VerifyResponse_MALFORMED:         client.ErrTokenMalformed,
		v1.VerifyResponse_EXPIRED:           client.ErrTokenExpired,
		v1.VerifyResponse_KEY_NOT_FOUND:     client.ErrTokenKeyNotFound,
		v1.VerifyResponse_SIGNATURE_INVALID: client.ErrTokenSignatureInvalid,
		v1.VerifyResponse_NOT_YET_VALID:     client.ErrTokenNotYetValid,
		v1.VerifyResponse_ISSUER_MISMATCH:   client.ErrTokenIssuerMismatch,
		v1.VerifyResponse_AUDIENCE_MISMATCH: client.ErrTokenAudienceMismatch,
	}
	if want := len(v1.VerifyResponse_Reason_name) - 1; len(sentinels) != want {
		t.Errorf("%d reasons are told apart, and there are %d", len(sentinels), want)
	}
	for is := range v1.VerifyResponse_Reason_name {
		err := fmt.Errorf("the cart: %w", &client.InvalidTokenError{Reason: v1.VerifyResponse_Reason(is)})
		if !errors.Is(err, client.ErrInvalidToken) {
			t.Errorf("%v is not ErrInvalidToken", err)
		}
		for reason, sentinel := range sentinels {
			if got, want := errors.Is(err, sentinel), v1.VerifyResponse_Reason(is) == reason; got != want {
				t.Errorf("%v is %v: %t", err, sentinel, got)
			}
		}
	}
}

func TestWhatCannotBeATokenIsNotSent(t *testing.T) {
	f := &fake{}
	c := newClient(t, f.serve(t))
	for _, token := range []string{
		"", "nonsense", "a.b", "a.b.c.d", "a.b.c\n", "a.b.é", "a.b.\xff", "a. b.c", "a.b.c=",
		"a." + strings.Repeat("b", client.MaxTokenBytes) + ".c",
	} {
		if _, err := c.VerifyToken(t.Context(), token, ""); reason(err) != v1.VerifyResponse_MALFORMED {
			t.Errorf("%.20q: %v", token, err)
		}
	}
	if f.calls.Load() != 0 {
		t.Errorf("the node was asked %d times", f.calls.Load())
	}
}

// What a node, or something in its place, calls valid must be this token, and of this user.
func TestAVerdictThatDoesNotFitTheTokenIsNotBelieved(t *testing.T) {
	f := &fake{believes: "alice"}
	c := newClient(t, f.serve(t))
	for token, payload := range map[string]string{
		"e30.eyJzdWIiOiJib2IifQ.c2ln":          `{"sub":"bob"}`,
		"e30.eyJzdWIiOiJhbGljZSJ9e30.c2ln":     `no base64url, as a whole`,
		"e30.eyJzdWIiOiJhbGljZSJ9IHt9.c2ln":    `{"sub":"alice"} {}`,
		"e30.W10.c2ln":                         `[]`,
		"e30..c2ln":                            ``,
		"e30.eyJzdWIiOiJhbGljZSJ-.c2ln":        `{"sub":"alice"~`,
		"e30.eyJzdWIiOiJhbGljZSIsIngiOn0.c2ln": `{"sub":"alice","x":}`,
	} {
		if _, err := c.VerifyToken(t.Context(), token, ""); !errors.Is(err, client.ErrInternal) {
			t.Errorf("%s: %v", payload, err)
		}
	}
	if v, err := c.VerifyToken(t.Context(), "e30.eyJzdWIiOiJhbGljZSJ9.c2ln", ""); err != nil || v.Subject() != "alice" {
		t.Error(err)
	}
}

// request is what a guard is shown.
type request struct {
	name    string
	headers []string // of Authorization
	cookies []string
	opts    []client.GuardOption

	status    int
	challenge string
	subject   string // of whom the handler was told, where it was reached
}

// requests are what Middleware and Interceptor judge alike; token is a valid one, late one whose key was revoked.
func requests(token, late string) []request {
	cookie := client.WithCookie("session")
	const invalid, unclear = `Bearer error="invalid_token"`, `Bearer error="invalid_request"`
	return []request{
		{name: "a valid token", headers: []string{"Bearer " + token}, status: 200, subject: "alice"},
		{name: "another spelling", headers: []string{"bearer  " + token}, status: 200, subject: "alice"},
		{name: "none", status: 401, challenge: "Bearer"},
		{name: "another scheme", headers: []string{"Basic YTpi"}, status: 401, challenge: "Bearer"},
		{name: "revoked", headers: []string{"Bearer " + late}, status: 401, challenge: invalid},
		{name: "nonsense", headers: []string{"Bearer nonsense"}, status: 401, challenge: invalid},
		{name: "too long", headers: []string{"Bearer " + strings.Repeat("a", 9000)}, status: 401, challenge: invalid},
		{name: "for others", headers: []string{"Bearer " + token}, opts: []client.GuardOption{client.WithAudience("shop")}, status: 401, challenge: invalid},
		{name: "empty", headers: []string{"Bearer"}, status: 400, challenge: unclear},
		{name: "two words", headers: []string{"Bearer a b"}, status: 400, challenge: unclear},
		{name: "two headers", headers: []string{"Bearer " + token, "Bearer " + token}, status: 400, challenge: unclear},

		{name: "a cookie", cookies: []string{token}, opts: []client.GuardOption{cookie}, status: 200, subject: "alice"},
		{name: "a cookie unasked", cookies: []string{token}, status: 401, challenge: "Bearer"},
		{name: "a deleted cookie", cookies: []string{""}, opts: []client.GuardOption{cookie}, status: 401, challenge: "Bearer"},
		{name: "a revoked cookie", cookies: []string{late}, opts: []client.GuardOption{cookie}, status: 401, challenge: invalid},
		{name: "two cookies", cookies: []string{token, late}, opts: []client.GuardOption{cookie}, status: 400, challenge: unclear},
		{name: "a cookie and a header", cookies: []string{token}, headers: []string{"Bearer " + token}, opts: []client.GuardOption{cookie}, status: 400, challenge: unclear},
		{name: "a header where a cookie may be", headers: []string{"Bearer " + token}, opts: []client.GuardOption{cookie}, status: 200, subject: "alice"},

		{name: "anonymous", opts: []client.GuardOption{client.WithOptionalToken()}, status: 200},
		{name: "optional and revoked", headers: []string{"Bearer " + late}, opts: []client.GuardOption{client.WithOptionalToken()}, status: 401, challenge: invalid},
		{name: "optional and valid", headers: []string{"Bearer " + token}, opts: []client.GuardOption{client.WithOptionalToken()}, status: 200, subject: "alice"},
	}
}

func (r request) addTo(h http.Header) {
	h["Authorization"] = r.headers
	for _, c := range r.cookies {
		h.Add("Cookie", "session="+c)
	}
}

// tokens gives a valid token of alice's and a revoked one of bob's.
func tokens(cluster *clienttest.Cluster) (token, late string) {
	token, late = cluster.Issue("alice", nil), cluster.Issue("bob", nil)
	cluster.Revoke("bob")
	return token, late
}

func subjectOf(ctx context.Context) string {
	if v, ok := client.FromContext(ctx); ok {
		return v.Subject()
	}
	return ""
}

func TestMiddleware(t *testing.T) {
	cluster := clienttest.New(t)
	for _, r := range requests(tokens(cluster)) {
		handler := cluster.Client().Middleware(r.opts...)(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			io.WriteString(w, subjectOf(req.Context()))
		}))
		req, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
		r.addTo(req.Header)
		handler.ServeHTTP(w, req)
		if w.Code != r.status || w.Header().Get("WWW-Authenticate") != r.challenge {
			t.Errorf("%s: %d, challenge %q", r.name, w.Code, w.Header().Get("WWW-Authenticate"))
		}
		if w.Code == 200 && w.Body.String() != r.subject {
			t.Errorf("%s: the handler was told of %q", r.name, w.Body.String())
		}
	}
}

func TestInterceptor(t *testing.T) {
	cluster := clienttest.New(t)
	codes := map[int]connect.Code{400: connect.CodeInvalidArgument, 401: connect.CodeUnauthenticated}
	for _, protocol := range []connect.ClientOption{connect.WithClientOptions(), connect.WithGRPCWeb()} {
		for _, r := range requests(tokens(cluster)) {
			subject, err := whoAmI(t, cluster.Client(), r, protocol)
			if r.status == 200 {
				if err != nil || subject != r.subject {
					t.Errorf("%s: the handler was told of %q: %v", r.name, subject, err)
				}
				continue
			}
			var refused *connect.Error
			if !errors.As(err, &refused) || refused.Code() != codes[r.status] || refused.Meta().Get("WWW-Authenticate") != r.challenge {
				t.Errorf("%s: %v", r.name, err)
			}
		}
	}
}

// whoAmI asks a Connect service behind the interceptor who the request is of.
func whoAmI(t *testing.T, c *client.Client, r request, opts ...connect.ClientOption) (string, error) {
	t.Helper()
	const procedure = "/test.v1.Who/Am"
	s := httptest.NewServer(connect.NewUnaryHandler(procedure,
		func(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[wrapperspb.StringValue], error) {
			return connect.NewResponse(wrapperspb.String(subjectOf(ctx))), nil
		}, connect.WithInterceptors(c.Interceptor(r.opts...))))
	defer s.Close()
	req := connect.NewRequest(&emptypb.Empty{})
	r.addTo(req.Header())
	res, err := connect.NewClient[emptypb.Empty, wrapperspb.StringValue](s.Client(), s.URL+procedure, opts...).CallUnary(t.Context(), req)
	if err != nil {
		return "", err
	}
	return res.Msg.GetValue(), nil
}

func TestTheInterceptorGuardsStreamsToo(t *testing.T) {
	cluster := clienttest.New(t)
	token, late := tokens(cluster)
	const procedure = "/test.v1.Who/Tell"
	s := httptest.NewServer(connect.NewServerStreamHandler(procedure,
		func(ctx context.Context, _ *connect.Request[emptypb.Empty], to *connect.ServerStream[wrapperspb.StringValue]) error {
			return to.Send(wrapperspb.String(subjectOf(ctx)))
		}, connect.WithInterceptors(cluster.Client().Interceptor())))
	defer s.Close()
	for sent, want := range map[string]connect.Code{token: 0, late: connect.CodeUnauthenticated} {
		req := connect.NewRequest(&emptypb.Empty{})
		req.Header().Set("Authorization", "Bearer "+sent)
		stream, err := connect.NewClient[emptypb.Empty, wrapperspb.StringValue](s.Client(), s.URL+procedure).CallServerStream(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if got := stream.Receive(); got != (want == 0) || got && stream.Msg().GetValue() != "alice" {
			t.Errorf("received %t, %v", got, stream.Msg())
		}
		if err := stream.Err(); (err == nil) != (want == 0) || err != nil && connect.CodeOf(err) != want {
			t.Error(err)
		}
		stream.Close()
	}
}

func TestWithNobodyToAskRequestsAreRefusedForNow(t *testing.T) {
	c := nobodyThere(t)
	r := request{headers: []string{"Bearer e30.e30.e30"}, opts: []client.GuardOption{client.WithOptionalToken()}}
	req, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
	r.addTo(req.Header)
	reached := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was let through") })
	c.Middleware(r.opts...)(reached).ServeHTTP(w, req)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || w.Header().Get("WWW-Authenticate") != "" {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
	_, err := whoAmI(t, c, r)
	var refused *connect.Error
	if !errors.As(err, &refused) || refused.Code() != connect.CodeUnavailable || refused.Meta().Get("Retry-After") != "1" {
		t.Error(err)
	}
	if strings.Contains(err.Error(), c.Addresses()[0]) {
		t.Errorf("%v tells strangers where the nodes are", err)
	}
}

func TestANodesTimeToRetryIsPassedOn(t *testing.T) {
	for want, at := range map[string]time.Time{
		"30": time.Now().Add(30 * time.Second),
		"1":  time.Now().Add(-time.Hour),
		"60": time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		f := &fake{err: refusal(t, connect.CodeUnavailable, "not now", &v1.RetryAt{Time: timestamp(at)})}
		req, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
		req.Header.Set("Authorization", "Bearer e30.e30.e30")
		newClient(t, f.serve(t)).Middleware()(http.NotFoundHandler()).ServeHTTP(w, req)
		if got := w.Header().Get("Retry-After"); got != want {
			t.Errorf("told to wait until %v, Retry-After is %q, want %q", at, got, want)
		}
	}
}

// Who came in by an outer guard, for another audience say, is nobody to an inner one that was shown no token.
func TestAnInnerGuardDoesNotTakeOverAnOuterOnesToken(t *testing.T) {
	cluster := clienttest.New(t)
	outer := cluster.Client().Middleware(client.WithCookie("session"))
	inner := cluster.Client().Middleware(client.WithOptionalToken())
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header.Set("Cookie", "session="+cluster.Issue("alice", nil))
	reached := false
	outer(inner(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		reached = true
		if v, ok := client.FromContext(req.Context()); ok || v != nil {
			t.Errorf("the handler was told of %v", v)
		}
	}))).ServeHTTP(httptest.NewRecorder(), req)
	if !reached {
		t.Error("the request was refused")
	}
}

func TestARefusalCanBeWrittenByTheService(t *testing.T) {
	write := func(w http.ResponseWriter, r *http.Request, why *client.Refusal) {
		if !errors.Is(why, client.ErrInvalidToken) || r.URL.Path != "/cart" {
			t.Errorf("%s: %v", r.URL.Path, why)
		}
		w.WriteHeader(why.Status)
		io.WriteString(w, "log in again")
	}
	req, w := httptest.NewRequest(http.MethodGet, "/cart", nil), httptest.NewRecorder()
	req.Header.Set("Authorization", "Bearer nonsense")
	nobodyThere(t).Middleware(client.WithRefusal(write))(http.NotFoundHandler()).ServeHTTP(w, req)
	if w.Code != 401 || w.Body.String() != "log in again" || w.Header().Get("WWW-Authenticate") != `Bearer error="invalid_token"` {
		t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
	}
}

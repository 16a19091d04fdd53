package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
	"github.com/keyquorum/keyquorum/rpc/jsoncodec"
)

// began is when the fake cluster's keys and tokens are made.
var began = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// fakeNode is a node with a small key map of its own, or one that fails everything with fail.
type fakeNode struct {
	keyquorumv1connect.UnimplementedTokenServiceHandler
	keyquorumv1connect.UnimplementedKeyServiceHandler
	keyquorumv1connect.UnimplementedClusterServiceHandler

	mu       sync.Mutex
	fail     error
	revision uint64
	active   map[string]string             // key id by subject
	tokens   map[string]*v1.VerifyResponse // what is told of a token while its key is there
	issued   *v1.IssueRequest              // the last one
	verified *v1.VerifyRequest             // the last one
	pages    []int32                       // sizes of the pages asked for
	page     *v1.ListResponse              // the answer to every List, if there is one
	status   *v1.StatusResponse
}

// serve runs the node on loopback and returns its address.
func (n *fakeNode) serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(n.handler())
	t.Cleanup(server.Close)
	return server.URL
}

func (n *fakeNode) handler() http.Handler {
	n.active, n.tokens = map[string]string{}, map[string]*v1.VerifyResponse{}
	mux := http.NewServeMux()
	codec := connect.WithCodec(jsoncodec.New("json"))
	mux.Handle(keyquorumv1connect.NewTokenServiceHandler(n, codec))
	mux.Handle(keyquorumv1connect.NewKeyServiceHandler(n, codec))
	mux.Handle(keyquorumv1connect.NewClusterServiceHandler(n, codec))
	return mux
}

func reply[T any](n *fakeNode, do func() *T) (*connect.Response[T], error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return nil, n.fail
	}
	return connect.NewResponse(do()), nil
}

// newKey gives the subject a new active key.
func (n *fakeNode) newKey(subject string) string {
	n.revision++
	n.active[subject] = fmt.Sprintf("%d-k", n.revision)
	return n.active[subject]
}

func (n *fakeNode) Issue(_ context.Context, r *connect.Request[v1.IssueRequest]) (*connect.Response[v1.IssueResponse], error) {
	return reply(n, func() *v1.IssueResponse {
		n.issued = r.Msg
		id, ok := n.active[r.Msg.GetSubject()]
		if !ok {
			id = n.newKey(r.Msg.GetSubject())
		}
		from, to := timestamppb.New(began), timestamppb.New(began.Add(15*time.Minute))
		token := fmt.Sprintf("token-%d.of.%s", len(n.tokens), r.Msg.GetSubject())
		n.tokens[token] = &v1.VerifyResponse{
			Valid: true, Subject: r.Msg.GetSubject(), KeyId: id, Claims: r.Msg.GetClaims(), IssuedAt: from, ExpiresAt: to, Node: "n1",
		}
		return &v1.IssueResponse{Token: token, KeyId: id, IssuedAt: from, ExpiresAt: to}
	})
}

func (n *fakeNode) Verify(_ context.Context, r *connect.Request[v1.VerifyRequest]) (*connect.Response[v1.VerifyResponse], error) {
	return reply(n, func() *v1.VerifyResponse {
		n.verified = r.Msg
		res, ok := n.tokens[r.Msg.GetToken()]
		switch {
		case !ok:
			return &v1.VerifyResponse{Reason: v1.VerifyResponse_MALFORMED, Node: "n1", Revision: n.revision}
		case n.active[res.GetSubject()] != res.GetKeyId():
			return &v1.VerifyResponse{Reason: v1.VerifyResponse_KEY_NOT_FOUND, Node: "n1", Revision: n.revision}
		}
		res.Revision = n.revision
		return res
	})
}

func (n *fakeNode) Rotate(_ context.Context, r *connect.Request[v1.RotateRequest]) (*connect.Response[v1.RotateResponse], error) {
	if err := n.expect(r.Msg.GetSubject(), r.Msg.GetExpectedKeyId()); err != nil {
		return nil, err
	}
	return reply(n, func() *v1.RotateResponse {
		return &v1.RotateResponse{KeyId: n.newKey(r.Msg.GetSubject()), Revision: n.revision}
	})
}

func (n *fakeNode) Revoke(_ context.Context, r *connect.Request[v1.RevokeRequest]) (*connect.Response[v1.RevokeResponse], error) {
	if err := n.expect(r.Msg.GetSubject(), r.Msg.GetExpectedKeyId()); err != nil {
		return nil, err
	}
	return reply(n, func() *v1.RevokeResponse {
		return &v1.RevokeResponse{KeyId: n.newKey(r.Msg.GetSubject()), Revision: n.revision, Finality: &v1.Finality{
			AppliedNodes: 3, ExpiredNodes: 2, Took: durationpb.New(6250400 * time.Microsecond),
		}}
	})
}

func (n *fakeNode) Delete(_ context.Context, r *connect.Request[v1.DeleteRequest]) (*connect.Response[v1.DeleteResponse], error) {
	if err := n.expect(r.Msg.GetSubject(), r.Msg.GetExpectedKeyId()); err != nil {
		return nil, err
	}
	return reply(n, func() *v1.DeleteResponse {
		n.revision++
		delete(n.active, r.Msg.GetSubject())
		return &v1.DeleteResponse{Revision: n.revision, Finality: &v1.Finality{AppliedNodes: 3, Took: durationpb.New(4 * time.Millisecond)}}
	})
}

// expect refuses what the cluster would.
func (n *fakeNode) expect(subject, keyID string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	id, ok := n.active[subject]
	switch {
	case n.fail != nil:
		return n.fail
	case !ok:
		return refusal(connect.CodeNotFound, "there is no such subject")
	case keyID != "" && keyID != id:
		return refusal(connect.CodeAborted, "the active key is another one")
	}
	return nil
}

func (n *fakeNode) keys(subject string) *v1.SubjectKeys {
	id, ok := n.active[subject]
	if !ok {
		return nil
	}
	return &v1.SubjectKeys{Subject: subject, Keys: []*v1.Key{
		{KeyId: id, State: v1.Key_ACTIVE, CreatedAt: timestamppb.New(began)},
		{KeyId: "0-old", State: v1.Key_RETIRING, CreatedAt: timestamppb.New(began.Add(-time.Hour)), LatestExpiry: timestamppb.New(began)},
	}}
}

func (n *fakeNode) Get(_ context.Context, r *connect.Request[v1.GetRequest]) (*connect.Response[v1.GetResponse], error) {
	if err := n.expect(r.Msg.GetSubject(), ""); err != nil {
		return nil, err
	}
	return reply(n, func() *v1.GetResponse {
		return &v1.GetResponse{Keys: n.keys(r.Msg.GetSubject()).GetKeys(), Revision: n.revision}
	})
}

func (n *fakeNode) List(_ context.Context, r *connect.Request[v1.ListRequest]) (*connect.Response[v1.ListResponse], error) {
	return reply(n, func() *v1.ListResponse {
		n.pages = append(n.pages, r.Msg.GetPageSize())
		if n.page != nil {
			return n.page
		}
		var after []string
		for subject := range n.active {
			if subject > r.Msg.GetPageToken() {
				after = append(after, subject)
			}
		}
		slices.Sort(after)
		res := &v1.ListResponse{Revision: n.revision}
		for _, subject := range after[:min(len(after), int(r.Msg.GetPageSize()))] {
			res.Subjects = append(res.Subjects, n.keys(subject))
		}
		if len(after) > len(res.Subjects) {
			res.NextPageToken = res.Subjects[len(res.Subjects)-1].GetSubject()
		}
		return res
	})
}

func (n *fakeNode) Status(context.Context, *connect.Request[v1.StatusRequest]) (*connect.Response[v1.StatusResponse], error) {
	return reply(n, func() *v1.StatusResponse { return n.status })
}

// refusal is an error as a node sends it.
func refusal(code connect.Code, message string, details ...proto.Message) error {
	e := connect.NewError(code, errors.New(message))
	for _, m := range append(details, &v1.RequestInfo{RequestId: "req-1"}) {
		d, err := connect.NewErrorDetail(m)
		if err != nil {
			panic(err)
		}
		e.AddDetail(d)
	}
	return e
}

// nobody returns an address where nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	return s.URL
}

// shell runs command lines as a user would, with an environment and a stdin of its own.
type shell struct {
	t     *testing.T
	env   map[string]string
	stdin string
}

// result is what one command line came to.
type result struct {
	code        int
	out, errors string
}

// at is a shell whose KEYQUORUM_ADDR is addr.
func at(t *testing.T, addr string) *shell {
	return &shell{t: t, env: map[string]string{"KEYQUORUM_ADDR": addr}}
}

func (s *shell) run(args ...string) result {
	s.t.Helper()
	return s.runContext(s.t.Context(), args...)
}

func (s *shell) runContext(ctx context.Context, args ...string) result {
	s.t.Helper()
	var out, errors bytes.Buffer
	env := func(name string) (string, bool) { v, ok := s.env[name]; return v, ok }
	code := run(ctx, args, strings.NewReader(s.stdin), &out, &errors, env)
	return result{code, out.String(), errors.String()}
}

// must runs a command that has to exit with code, and returns what it printed.
func (s *shell) must(code int, args ...string) result {
	s.t.Helper()
	r := s.run(args...)
	if r.code != code {
		s.t.Fatalf("keyquorum %s: exit %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), r.code, code, r.out, r.errors)
	}
	return r
}

// wants checks that text has each of the parts.
func wants(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in\n%s", part, text)
		}
	}
}

func claimsOf(t *testing.T, m map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

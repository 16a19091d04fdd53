package rpc_test

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

const watch = "/keyquorum.v1.AuditService/Watch"

// TestAStreamInEachProtocol: what the node sends arrives, and what it fails with has the request's id.
func TestAStreamInEachProtocol(t *testing.T) {
	s := serve(t, nil)
	for name, opts := range map[string][]connect.ClientOption{
		"connect": nil, "connect in JSON": {connect.WithProtoJSON()}, "gRPC": {connect.WithGRPC()}, "gRPC-Web": {connect.WithGRPCWeb()},
	} {
		c := keyquorumv1connect.NewAuditServiceClient(s.h2c(t), s.url, opts...)
		stream, err := c.Watch(t.Context(), connect.NewRequest(&v1.AuditServiceWatchRequest{From: 3}))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !stream.Receive() || stream.Msg().GetPreviousHash() != "h" || stream.Receive() || stream.Err() != nil {
			t.Errorf("%s: got %v, %v", name, stream.Msg(), stream.Err())
		}
		_ = stream.Close()
	}
	s.node.fail = fault.ErrShuttingDown
	c := keyquorumv1connect.NewAuditServiceClient(s.http, s.url)
	stream, err := c.Watch(t.Context(), connect.NewRequest(&v1.AuditServiceWatchRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnavailable {
		t.Fatalf("it ended with %v", stream.Err())
	}
	if info, ok := detailOf[*v1.RequestInfo](t, stream.Err()); !ok || info.GetRequestId() == "" {
		t.Error("the failure has no request id")
	}
}

// TestAStreamIsNoPlainRequest, and a plain request is no stream.
func TestAStreamIsNoPlainRequest(t *testing.T) {
	s := serve(t, nil)
	if got := s.post(t, watch, `{}`); got.status != http.StatusBadRequest || !strings.Contains(got.body, "application/connect+json") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if got := s.post(t, verify, `{"token":"x"}`, "Content-Type: application/connect+json"); !strings.Contains(got.body, "invalid_argument") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if n := len(s.node.requests()); n != 0 {
		t.Errorf("%d requests reached the node", n)
	}
}

// TestStreamsAreBounded by themselves.
func TestStreamsAreBounded(t *testing.T) {
	s := serve(t, func(c *rpc.Config) { c.Limits.Watches = 1 })
	held := make(chan struct{})
	entered := make(chan struct{})
	s.node.do = func(ctx context.Context) {
		close(entered)
		select {
		case <-held:
		case <-ctx.Done():
		}
	}
	c := keyquorumv1connect.NewAuditServiceClient(s.h2c(t), s.url)
	done := make(chan error, 1)
	go func() {
		stream, err := c.Watch(context.Background(), connect.NewRequest(&v1.AuditServiceWatchRequest{}))
		if err == nil {
			for stream.Receive() {
				continue // to its end
			}
			err = stream.Err()
		}
		done <- err
	}()
	<-entered
	stream, err := c.Watch(t.Context(), connect.NewRequest(&v1.AuditServiceWatchRequest{}))
	if err == nil {
		stream.Receive()
		err = stream.Err()
	}
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("the second got %v", err)
	}
	close(held)
	if err := <-done; err != nil {
		t.Errorf("the first got %v", err)
	}
}

func TestAuditRecordsSurviveTheWire(t *testing.T) {
	full := audit.Entry{Record: audit.Record{
		Sequence: 7, Time: 1_800_000_000_123, Position: 9, Kind: audit.KeyRotated, Subject: "ada", KeyID: "k", PreviousKeyID: "p",
		Reason: audit.Expiry, Actor: "a", Source: "::1", Node: "n1", TokenID: "jti", Expires: 1_800_000_900,
		Changes: []audit.Change{{Name: "mode", From: "overlap", To: "strict"}},
	}, Hash: audit.Hash{1, 2, 3}}
	want := []audit.Entry{full, {Record: audit.Record{Sequence: 8, Kind: "LATER"}}}
	got, err := rpc.AuditEntries(rpc.AuditMessages(want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v\nbecame\n%+v (%v)", want, got, err)
	}
	if _, err := rpc.AuditEntries([]*v1.AuditRecord{{Hash: "beef"}}); err == nil {
		t.Error("half a hash is taken")
	}
}

package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// mapping is what callers are told of each failure of a node's.
var mapping = []struct {
	name string
	err  error
	code connect.Code
	// message is how the message begins; the error's own text if empty.
	message string
	field   string
	unknown bool
	retryAt bool
}{
	{name: "ErrAhead", err: fault.ErrAhead, code: connect.CodeUnavailable},
	{name: "ErrNotLeader", err: fault.ErrNotLeader, code: connect.CodeUnavailable},
	{name: "ErrNoLeader", err: fault.ErrNoLeader, code: connect.CodeUnavailable},
	{name: "ErrTimeUnknown", err: fault.ErrTimeUnknown, code: connect.CodeUnavailable},
	{name: "ErrBehind", err: fault.ErrBehind, code: connect.CodeUnavailable},
	{name: "ErrStale", err: fault.ErrStale, code: connect.CodeUnavailable},
	{name: "ErrClockOff", err: fault.ErrClockOff, code: connect.CodeUnavailable},
	{name: "ErrNotFounded", err: fault.ErrNotFounded, code: connect.CodeUnavailable},
	{name: "ErrOverloaded", err: fault.ErrOverloaded, code: connect.CodeUnavailable},
	{name: "ErrAudit", err: fault.ErrAudit, code: connect.CodeUnavailable},
	{name: "ErrShuttingDown", err: fault.ErrShuttingDown, code: connect.CodeUnavailable},
	{name: "ErrFormat", err: fault.ErrFormat, code: connect.CodeUnavailable},
	{name: "ErrHalted", err: fault.ErrHalted, code: connect.CodeUnavailable},
	{name: "ErrOutcomeUnknown", err: fault.ErrOutcomeUnknown, code: connect.CodeUnknown, unknown: true},
	{name: "ErrNoSuchMember", err: fault.ErrNoSuchMember, code: connect.CodeNotFound},
	{name: "ErrNotVoter", err: fault.ErrNotVoter, code: connect.CodeInvalidArgument, message: "node: ", field: "node"},
	{name: "ErrChallenge", err: fault.ErrChallenge, code: connect.CodeUnavailable},
	{name: "ErrRemoved", err: fault.ErrRemoved, code: connect.CodeUnavailable},
	{name: "ErrTwin", err: fault.ErrTwin, code: connect.CodeUnavailable},
	{name: "ErrQuorumAtRisk", err: fault.ErrQuorumAtRisk, code: connect.CodeUnavailable},
	{name: "ErrLastVoter", err: fault.ErrLastVoter, code: connect.CodeInvalidArgument, message: "node: ", field: "node"},
	{name: "ErrUnauthenticated", err: fault.ErrUnauthenticated, code: connect.CodeUnauthenticated},
	{name: "ErrPermissionDenied", err: fault.ErrPermissionDenied, code: connect.CodePermissionDenied},
	{name: "ErrMasterKey", err: fmt.Errorf("%w: %w", fault.ErrMasterKey, fault.ErrKeyring), code: connect.CodeUnavailable},
	{name: "ErrKeyring", err: fault.ErrKeyring, code: connect.CodePermissionDenied},
	{name: "Invalid", err: fault.Invalid("claims.sub", "is reserved"), code: connect.CodeInvalidArgument, message: "claims.sub: is reserved", field: "claims.sub"},

	{name: "CodeInvalid", err: &fsm.Refusal{Code: fsm.CodeInvalid, Field: "ttl", Message: "is over the bound"}, code: connect.CodeInvalidArgument, message: "ttl: is over the bound", field: "ttl"},
	{name: "CodeUnknownSubject", err: &fsm.Refusal{Code: fsm.CodeUnknownSubject, Field: "subject", Message: "has no key"}, code: connect.CodeNotFound, field: "subject"},
	{name: "CodeKeyMismatch", err: &fsm.Refusal{Code: fsm.CodeKeyMismatch, Field: "expectedKeyId", Message: "is not the active key"}, code: connect.CodeAborted, field: "expectedKeyId"},
	{name: "CodeNeedCandidate", err: &fsm.Refusal{Code: fsm.CodeNeedCandidate, Message: "needs a key"}, code: connect.CodeInternal, message: "an internal error"},
	{name: "CodeTooManyRetiring", err: &fsm.Refusal{Code: fsm.CodeTooManyRetiring, Message: "too many", RetryAt: retryTime}, code: connect.CodeResourceExhausted, retryAt: true},
	{name: "CodeNeedTime", err: &fsm.Refusal{Code: fsm.CodeNeedTime, Message: "no time"}, code: connect.CodeUnavailable},
	{name: "CodeFounded", err: &fsm.Refusal{Code: fsm.CodeFounded, Message: "founded already"}, code: connect.CodeAborted},
	{name: "CodeNotFounded", err: &fsm.Refusal{Code: fsm.CodeNotFounded, Message: "not founded"}, code: connect.CodeUnavailable},
	{name: "CodeAPITokenExists", err: &fsm.Refusal{Code: fsm.CodeAPITokenExists, Message: "is taken"}, code: connect.CodeAborted},
	{name: "CodeTooManyAPITokens", err: &fsm.Refusal{Code: fsm.CodeTooManyAPITokens, Message: "too many"}, code: connect.CodeResourceExhausted},
	{name: "CodeUnknownAPIToken", err: &fsm.Refusal{Code: fsm.CodeUnknownAPIToken, Message: "there is none"}, code: connect.CodeNotFound},
	{name: "CodeRemovedMember", err: &fsm.Refusal{Code: fsm.CodeRemovedMember, Message: "was removed"}, code: connect.CodeNotFound},
	{name: "CodeUnknownMember", err: &fsm.Refusal{Code: fsm.CodeUnknownMember, Message: "no such member"}, code: connect.CodeNotFound},

	{name: "CodeMasterKeyRetired", err: &fsm.Refusal{Code: fsm.CodeMasterKeyRetired, Message: "is retired"}, code: connect.CodeInternal, message: "an internal error"},
	{name: "CodeMasterKeyInUse", err: &fsm.Refusal{Code: fsm.CodeMasterKeyInUse, Field: "masterKey", Message: "still seals 3"}, code: connect.CodeInvalidArgument, message: "masterKey: still seals 3", field: "masterKey"},
	{name: "CodeMasterKeyUsed", err: &fsm.Refusal{Code: fsm.CodeMasterKeyUsed, Message: "was in use"}, code: connect.CodeAborted},
	{name: "CodeMasterKeyLacking", err: &fsm.Refusal{Code: fsm.CodeMasterKeyLacking, Message: "n2 lacks it"}, code: connect.CodeUnavailable},
	{name: "deadline", err: context.DeadlineExceeded, code: connect.CodeDeadlineExceeded, message: "the request's time has run out"},
	{name: "canceled", err: context.Canceled, code: connect.CodeCanceled, message: "the caller gave the request up"},
	{name: "anything else", err: errors.New("disk on fire"), code: connect.CodeInternal, message: "an internal error"},

	{
		name: "a write that was proposed when its time ran out",
		err:  fmt.Errorf("%w: %w", context.DeadlineExceeded, fault.ErrOutcomeUnknown), code: connect.CodeUnknown, unknown: true,
	},
	{
		name: "a write that lost its leader on the way",
		err:  fmt.Errorf("%w: %w", fault.ErrOutcomeUnknown, connect.NewError(connect.CodeUnavailable, fault.ErrNoLeader)),
		code: connect.CodeUnknown, unknown: true,
	},
	{
		name: "no leader until the time ran out",
		err:  fmt.Errorf("%w: %w", fault.ErrNoLeader, context.DeadlineExceeded), code: connect.CodeUnavailable,
	},
}

var retryTime = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func TestEveryFailureHasItsCode(t *testing.T) {
	s := serve(t, nil)
	client := keyquorumv1connect.NewKeyServiceClient(s.http, s.url)
	for _, c := range mapping {
		t.Run(c.name, func(t *testing.T) {
			s.node.fail = fmt.Errorf("revoke: %w", c.err)
			if c.message == "" {
				c.message = "revoke: "
				if _, plain := errors.AsType[*fsm.Refusal](c.err); plain {
					c.message = c.err.Error()
				}
			}
			_, err := client.Revoke(t.Context(), connect.NewRequest(&v1.RevokeRequest{Subject: "ada"}))
			wire, ok := errors.AsType[*connect.Error](err)
			if !ok || wire.Code() != c.code || !strings.HasPrefix(wire.Message(), c.message) {
				t.Errorf("got %v, want %s: %s…", err, c.code, c.message)
			}
			violation, _ := detailOf[*v1.FieldViolation](t, err)
			if violation.GetField() != c.field {
				t.Errorf("names the field %q, want %q", violation.GetField(), c.field)
			}
			if _, ahead := detailOf[*v1.TokenAhead](t, err); ahead != errors.Is(c.err, fault.ErrAhead) {
				t.Errorf("token ahead: %v", ahead)
			}
			if _, open := detailOf[*v1.OutcomeUnknown](t, err); open != c.unknown {
				t.Errorf("outcome unknown: %v", open)
			}
			retry, _ := detailOf[*v1.RetryAt](t, err)
			if got := retry.GetTime().AsTime(); c.retryAt && !got.Equal(retryTime) {
				t.Errorf("retry at %s", got)
			}
			info, _ := detailOf[*v1.RequestInfo](t, err)
			if id := info.GetRequestId(); id == "" || id != wire.Meta().Get(rpc.RequestIDHeader) || !strings.Contains(s.logs.String(), id) {
				t.Errorf("the request id %q is not the header's, or not in the log", id)
			}
		})
	}
}

func TestAnInternalErrorIsToldToTheLogAlone(t *testing.T) {
	s := serve(t, nil)
	s.node.fail = errors.New("disk on fire")
	got := s.post(t, revoke, `{"subject":"ada"}`)
	if strings.Contains(got.body, "fire") {
		t.Errorf("the caller was told: %s", got.body)
	}
	if !strings.Contains(s.logs.String(), "disk on fire") || !strings.Contains(s.logs.String(), `"level":"ERROR"`) {
		t.Errorf("the log was not told: %s", s.logs)
	}
}

// What the packages below can fail with is read from their sources, so that a new one cannot be forgotten.
func TestNoFailureIsForgotten(t *testing.T) {
	var known []string
	for _, c := range mapping {
		known = append(known, c.name)
	}
	names := append(declared(t, "../internal/fault/fault.go", "Err"), declared(t, "../fsm/refusal.go", "Code")...)
	if len(names) < 20 {
		t.Fatalf("found only %v", names)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			t.Errorf("%s has no line in the mapping", name)
		}
	}
}

// declared gives the variables and constants of a file that have a prefix.
func declared(t *testing.T, path, prefix string) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for _, name := range spec.Names {
			if strings.HasPrefix(name.Name, prefix) {
				names = append(names, name.Name)
			}
		}
		return true
	})
	return names
}

// The leader's answer passes a follower unchanged: here the leader is one server, and the follower fails with what its
// client got from it.
func TestTheLeadersErrorPassesAFollower(t *testing.T) {
	leader, follower := serve(t, nil), serve(t, nil)
	client := keyquorumv1connect.NewKeyServiceClient(leader.http, leader.url)
	for _, c := range mapping {
		t.Run(c.name, func(t *testing.T) {
			leader.node.fail = c.err
			ask := connect.NewRequest(&v1.RevokeRequest{Subject: "ada"})
			ask.Header().Set(rpc.RequestIDHeader, "the-one-id")
			_, atLeader := client.Revoke(t.Context(), ask)
			follower.node.fail = fmt.Errorf("forward: %w", atLeader)

			again := connect.NewRequest(&v1.RevokeRequest{Subject: "ada"})
			again.Header().Set(rpc.RequestIDHeader, "the-one-id")
			_, err := keyquorumv1connect.NewKeyServiceClient(follower.http, follower.url).Revoke(t.Context(), again)
			want, _ := errors.AsType[*connect.Error](atLeader)
			got, ok := errors.AsType[*connect.Error](err)
			if !ok || got.Code() != want.Code() || got.Message() != want.Message() {
				t.Fatalf("got %v, want %v", err, atLeader)
			}
			if len(got.Details()) != len(want.Details()) {
				t.Fatalf("got details %v, want %v", got.Details(), want.Details())
			}
			for i, d := range want.Details() {
				was, _ := d.Value()
				is, _ := got.Details()[i].Value()
				if !proto.Equal(was, is) {
					t.Errorf("detail %d: got %v, want %v", i, is, was)
				}
			}
		})
	}
}

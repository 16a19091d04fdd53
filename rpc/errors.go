package rpc

import (
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

var (
	errInternal = errors.New("an internal error: the node's log says more under this request's id")
	errDeadline = errors.New("the request's time has run out")
	errCanceled = errors.New("the caller gave the request up")
)

// sentinels is the mapping of what a node can fail at. The first that an error wraps decides.
var sentinels = []struct {
	is   error
	code connect.Code
	// field is the request's field that is at fault, if one is.
	field string
	// detail goes with the error, if there is one.
	detail proto.Message
}{
	// Above all: whatever else is said of such a write, the caller must not take it for undone.
	{is: fault.ErrOutcomeUnknown, code: connect.CodeUnknown, detail: &v1.OutcomeUnknown{}},
	{is: fault.ErrAhead, code: connect.CodeUnavailable, detail: &v1.TokenAhead{}},
	{is: fault.ErrNotLeader, code: connect.CodeUnavailable},
	{is: fault.ErrNoLeader, code: connect.CodeUnavailable},
	{is: fault.ErrTimeUnknown, code: connect.CodeUnavailable},
	{is: fault.ErrBehind, code: connect.CodeUnavailable},
	{is: fault.ErrStale, code: connect.CodeUnavailable},
	{is: fault.ErrClockOff, code: connect.CodeUnavailable},
	{is: fault.ErrNotFounded, code: connect.CodeUnavailable},
	{is: fault.ErrRemoved, code: connect.CodeUnavailable},
	{is: fault.ErrTwin, code: connect.CodeUnavailable},
	{is: fault.ErrAudit, code: connect.CodeUnavailable},
	{is: fault.ErrShuttingDown, code: connect.CodeUnavailable},
	{is: fault.ErrFormat, code: connect.CodeUnavailable},
	{is: fault.ErrHalted, code: connect.CodeUnavailable},
	{is: fault.ErrOverloaded, code: connect.CodeUnavailable},
	{is: fault.ErrNoSuchMember, code: connect.CodeNotFound},
	{is: fault.ErrNotVoter, code: connect.CodeInvalidArgument, field: "node"},
	{is: fault.ErrLastVoter, code: connect.CodeInvalidArgument, field: "node"},
	{is: fault.ErrChallenge, code: connect.CodeUnavailable},
	{is: fault.ErrQuorumAtRisk, code: connect.CodeUnavailable},
	{is: fault.ErrUnauthenticated, code: connect.CodeUnauthenticated},
	{is: fault.ErrPermissionDenied, code: connect.CodePermissionDenied},
	{is: fault.ErrMasterKey, code: connect.CodeUnavailable},
	{is: fault.ErrKeyring, code: connect.CodePermissionDenied},
}

// refusals is the mapping of what the replicated state refuses. fsm.CodeNeedCandidate and fsm.CodeMasterKeyRetired are not
// in it: the node proposes again by itself, so that one that gets here is a fault of the node's.
var refusals = map[fsm.Code]connect.Code{
	fsm.CodeInvalid:          connect.CodeInvalidArgument,
	fsm.CodeUnknownSubject:   connect.CodeNotFound,
	fsm.CodeKeyMismatch:      connect.CodeAborted,
	fsm.CodeTooManyRetiring:  connect.CodeResourceExhausted,
	fsm.CodeNeedTime:         connect.CodeUnavailable,
	fsm.CodeFounded:          connect.CodeAborted,
	fsm.CodeNotFounded:       connect.CodeUnavailable,
	fsm.CodeUnknownMember:    connect.CodeNotFound,
	fsm.CodeAPITokenExists:   connect.CodeAborted,
	fsm.CodeTooManyAPITokens: connect.CodeResourceExhausted,
	fsm.CodeUnknownAPIToken:  connect.CodeNotFound,
	fsm.CodeRemovedMember:    connect.CodeNotFound,

	fsm.CodeMasterKeyInUse:   connect.CodeInvalidArgument,
	fsm.CodeMasterKeyUsed:    connect.CodeAborted,
	fsm.CodeMasterKeyLacking: connect.CodeUnavailable,
}

// wireError is the one mapping from what a node fails with to what a caller is told. It never gives nil.
func wireError(err error) *connect.Error {
	for _, s := range sentinels {
		if errors.Is(err, s.is) {
			return ofSentinel(err, s.code, s.field, s.detail)
		}
	}
	if refusal, ok := errors.AsType[*fsm.Refusal](err); ok {
		return ofRefusal(refusal)
	}
	if invalid, ok := errors.AsType[*fault.InvalidError](err); ok {
		return ofInvalid(invalid)
	}
	if told, ok := errors.AsType[*connect.Error](err); ok && told != nil {
		return ofPeer(told)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, errDeadline)
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, errCanceled)
	}
	return connect.NewError(connect.CodeInternal, errInternal)
}

func ofSentinel(err error, code connect.Code, field string, detail proto.Message) *connect.Error {
	if field != "" {
		return ofField(code, field, err.Error())
	}
	out := connect.NewError(code, err)
	if detail != nil {
		addDetail(out, detail)
	}
	return out
}

func ofRefusal(r *fsm.Refusal) *connect.Error {
	code, ok := refusals[r.Code]
	if !ok {
		return connect.NewError(connect.CodeInternal, errInternal)
	}
	out := ofField(code, r.Field, r.Message)
	if !r.RetryAt.IsZero() {
		addDetail(out, &v1.RetryAt{Time: timestamppb.New(r.RetryAt)})
	}
	return out
}

func ofInvalid(e *fault.InvalidError) *connect.Error {
	return ofField(connect.CodeInvalidArgument, e.Field, e.Reason)
}

// maxField is the longest path to a field that an error tells: names of claims are the caller's, and can be long.
const maxField = 200

// ofField makes an error that names a field, where there is one, before all else.
func ofField(code connect.Code, field, reason string) *connect.Error {
	if field == "" {
		return connect.NewError(code, errors.New(reason))
	}
	if len(field) > maxField {
		field = strings.ToValidUTF8(field[:maxField], "") + "…"
	}
	out := connect.NewError(code, errors.New(field+": "+reason))
	addDetail(out, &v1.FieldViolation{Field: field, Description: reason})
	return out
}

// ofPeer passes on what another node answered. That node's headers and its note of the request's id are left behind.
func ofPeer(told *connect.Error) *connect.Error {
	out := connect.NewError(told.Code(), errors.New(told.Message()))
	info := string((&v1.RequestInfo{}).ProtoReflect().Descriptor().FullName())
	for _, d := range told.Details() {
		if d.Type() != info {
			out.AddDetail(d)
		}
	}
	return out
}

// withRequestInfo puts the request's id into an error.
func withRequestInfo(err *connect.Error, id string) *connect.Error {
	addDetail(err, &v1.RequestInfo{RequestId: id})
	return err
}

func addDetail(err *connect.Error, detail proto.Message) {
	d, failed := connect.NewErrorDetail(detail)
	if failed != nil {
		return // text that is not UTF-8: the message has it as well
	}
	err.AddDetail(d)
}

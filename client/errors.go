package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// What a call can fail with; errors.Is finds exactly one of them in an *Error. Each says what it asks of the caller.
var (
	// ErrUnavailable says that nobody could answer now: no node could be reached, or those that could have no
	// leader, are behind, or do not know the time. Nothing was changed, except that an Issue may have made a token that
	// nobody has, and a key for it. Try again later: the client has tried already.
	ErrUnavailable = errors.New("unavailable")
	// ErrDeadlineExceeded says that the time for the call ran out. Nothing was changed, except by an Issue, as with
	// ErrUnavailable. Try again, or give it longer.
	ErrDeadlineExceeded = errors.New("out of time")
	// ErrOutcomeUnknown says that a write may or may not have happened, now or shortly. Look, with Get or what else shows
	// it, before sending it again; or name the expected key from the start, and send it again as it is.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrInvalidArgument says that the request is not acceptable; Error.Field names what is wrong with it. Mend it: sent
	// again it fails again.
	ErrInvalidArgument = errors.New("invalid argument")
	// ErrNotFound says that there is no such subject, or member. For a subject that is to have no valid tokens, that is as
	// good as done.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that the subject's active key is not the one that the request expected. Somebody else was first:
	// look, with Get, and decide anew.
	ErrConflict = errors.New("conflict")
	// ErrResourceExhausted says that a limit stands in the way; Error.RetryAt tells when it no longer will, if
	// that is known. Wait until then, as the client has done where the call had that much time, or ask for less.
	ErrResourceExhausted = errors.New("limit reached")
	// ErrFailedPrecondition says that the cluster is not in a state for this. An operator has to change it.
	ErrFailedPrecondition = errors.New("not possible now")
	// ErrUnauthenticated says that the node does not know who is calling. The service's own credentials, a certificate or an
	// API token, are missing or have run out: this is not about a user's token. No other node would know better.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrPermissionDenied says that the caller's role does not include this call. An operator has to grant it.
	ErrPermissionDenied = errors.New("permission denied")
	// ErrUnimplemented says that the address answers but does not know the call: an older node, or no node. See to the
	// addresses and versions.
	ErrUnimplemented = errors.New("unimplemented")
	// ErrCanceled says that the caller gave up. Nothing was changed, except by an Issue, as with ErrUnavailable.
	ErrCanceled = errors.New("canceled")
	// ErrInternal says that a node failed in a way that it should not, or that its answer makes no sense. The node's log
	// says more under Error.RequestID; report it.
	ErrInternal = errors.New("internal error")
)

// requestIDHeader has the request's id in each of a node's responses, also where an error has no details.
const requestIDHeader = "Keyquorum-Request-Id"

// kinds is the one mapping back from wire codes. What is not in it is ErrInternal.
var kinds = map[connect.Code]error{
	connect.CodeCanceled:           ErrCanceled,
	connect.CodeInvalidArgument:    ErrInvalidArgument,
	connect.CodeOutOfRange:         ErrInvalidArgument,
	connect.CodeDeadlineExceeded:   ErrDeadlineExceeded,
	connect.CodeNotFound:           ErrNotFound,
	connect.CodeAborted:            ErrConflict,
	connect.CodePermissionDenied:   ErrPermissionDenied,
	connect.CodeResourceExhausted:  ErrResourceExhausted,
	connect.CodeFailedPrecondition: ErrFailedPrecondition,
	connect.CodeUnimplemented:      ErrUnimplemented,
	connect.CodeUnavailable:        ErrUnavailable,
	connect.CodeUnauthenticated:    ErrUnauthenticated,
}

// Error is a call that failed. It unwraps to one of the package's sentinels and to what was underneath, such as
// context.DeadlineExceeded or a *connect.Error.
type Error struct {
	// Op is the method that was called.
	Op string
	// Node is the URL of the node that the failure came from; empty if the request never left.
	Node string
	// Message says what is wrong, without node and request.
	Message string
	// Field is the path of the field at fault, in JSON spelling, with ErrInvalidArgument.
	Field string
	// RequestID finds the request in the node's logs; empty if no node answered.
	RequestID string
	// RetryAt is when the same request can succeed; zero if that is not known.
	RetryAt time.Time
	// Earlier holds the attempts that failed before this one, in order, those left out that failed at the same node in the
	// same way.
	Earlier []*Error

	kind  error
	cause error
	// ahead says that it is the token's doing that the node could not judge.
	ahead bool
	// unsent says that the request did not leave.
	unsent bool
}

// Kind returns the sentinel that the error is.
func (e *Error) Kind() error { return e.kind }

// Unwrap returns the sentinel and the cause.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.cause}
}

// Error says what failed, where and why, in one line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s", e.Op, e.kind, e.Message)
	switch {
	case e.Node != "" && e.RequestID != "":
		fmt.Fprintf(&b, " (%s, request %s)", e.Node, e.RequestID)
	case e.Node != "":
		fmt.Fprintf(&b, " (%s)", e.Node)
	}
	for _, earlier := range e.Earlier {
		fmt.Fprintf(&b, "; before that: %s (%s)", earlier.Message, earlier.Node)
	}
	return b.String()
}

// explain turns what a generated client returned into an *Error.
func explain(op string, n *node, err error) *Error {
	e := &Error{Op: op, Node: n.address, Message: describe(err), kind: ErrInternal, cause: err}
	if kind, ok := kinds[connect.CodeOf(err)]; ok {
		e.kind = kind
	}
	if wire, ok := errors.AsType[*connect.Error](err); ok {
		e.RequestID = wire.Meta().Get(requestIDHeader)
		for _, d := range wire.Details() {
			e.take(d)
		}
	}
	return e
}

// invalid is a request that is not sent.
func invalid(op, field, message string) *Error {
	return &Error{Op: op, Field: field, Message: field + ": " + message, kind: ErrInvalidArgument, unsent: true}
}

// take reads one detail. Those that are not known, or cannot be read, say nothing.
func (e *Error) take(d *connect.ErrorDetail) {
	m, err := d.Value()
	if err != nil {
		return
	}
	switch m := m.(type) {
	case *v1.RequestInfo:
		e.RequestID = m.GetRequestId()
	case *v1.FieldViolation:
		e.Field = m.GetField()
	case *v1.OutcomeUnknown:
		e.kind = ErrOutcomeUnknown
	case *v1.TokenAhead:
		e.ahead = true
	case *v1.RetryAt:
		if m.GetTime().IsValid() {
			e.RetryAt = m.GetTime().AsTime()
		}
	}
}

// describe finds the words that tell most: a node's own, or what the network said.
func describe(err error) string {
	if asked, ok := errors.AsType[*url.Error](err); ok {
		err = asked.Err
	}
	var wire *connect.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, context.Canceled):
		return "given up by the caller"
	case errors.As(err, &wire):
		return wire.Message()
	}
	return err.Error()
}

package sim

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
)

// outcomeOf reads what a call came back with, as the product documents it.
func outcomeOf(err error) Outcome {
	refusal, refused := errors.AsType[*fsm.Refusal](err)
	lib, fromLib := errors.AsType[*client.Error](err)
	wire, fromWire := errors.AsType[*connect.Error](err)
	switch {
	case err == nil:
		return OK
	case errors.Is(err, errNotSent):
		return Failed
	case errors.Is(err, errDied), errors.Is(err, fault.ErrOutcomeUnknown):
		return Open
	case fromLib:
		return outcomeOfKind(lib.Kind())
	case retryable(err): // whatever another node said on the way to that
		return Failed
	case refused:
		return outcomeOfRefusal(refusal.Code)
	case fromWire:
		return outcomeOfCode(wire.Code())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Failed
	}
	return Open
}

func outcomeOfKind(kind error) Outcome {
	for _, k := range []struct {
		kind    error
		outcome Outcome
	}{
		{client.ErrOutcomeUnknown, Open},
		{client.ErrInternal, Open},
		{client.ErrNotFound, NotFound},
		{client.ErrConflict, Conflict},
		{client.ErrResourceExhausted, Exhausted},
	} {
		if errors.Is(kind, k.kind) {
			return k.outcome
		}
	}
	return Failed
}

func outcomeOfRefusal(code fsm.Code) Outcome {
	switch code {
	case fsm.CodeUnknownSubject:
		return NotFound
	case fsm.CodeKeyMismatch:
		return Conflict
	case fsm.CodeTooManyRetiring:
		return Exhausted
	default:
		return Failed
	}
}

func outcomeOfCode(code connect.Code) Outcome {
	switch code {
	case connect.CodeNotFound:
		return NotFound
	case connect.CodeAborted:
		return Conflict
	case connect.CodeResourceExhausted:
		return Exhausted
	case connect.CodeUnknown, connect.CodeInternal:
		return Open
	default:
		return Failed
	}
}

// retryable tells whether a node says that nothing was changed.
func retryable(err error) bool {
	for _, definite := range []error{
		fault.ErrNotLeader, fault.ErrNoLeader, fault.ErrTimeUnknown, fault.ErrBehind, fault.ErrNotFounded, fault.ErrRemoved,
		fault.ErrOverloaded, fault.ErrStale, fault.ErrClockOff, fault.ErrShuttingDown, fault.ErrHalted, fault.ErrFormat,
	} {
		if errors.Is(err, definite) {
			return true
		}
	}
	return false
}

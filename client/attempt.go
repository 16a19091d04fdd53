package client

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"slices"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/internal/certs"
)

// attempt puts the request to a node, within which it was counted in, once.
func attempt[Req, Res any](ctx context.Context, c *Client, op operation, n *node, until time.Time, req *Req, do procedure[Req, Res]) (*Res, *Error) {
	bounded, cancel := ctx, context.CancelFunc(func() {})
	if !until.IsZero() {
		bounded, cancel = context.WithDeadline(ctx, until)
	}
	defer cancel()
	begun := time.Now()
	res, err := send(bounded, c, op, n, req, do)
	c.settle(ctx, op, n, time.Since(begun), err)
	return res, err
}

func send[Req, Res any](ctx context.Context, c *Client, op operation, n *node, req *Req, do procedure[Req, Res]) (*Res, *Error) {
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	res, err := do(ctx, connect.NewRequest(req))
	if err == nil && hollow(res.Msg) {
		err = connect.NewError(connect.CodeInternal, errHollow)
	}
	if err == nil {
		return res.Msg, nil
	}
	if field := illegible(req); field != "" {
		return nil, invalid(op.name, field, "is not valid UTF-8")
	}
	e := explain(op.name, n, err)
	if fault := c.tokenFault(); fault != nil && e.kind == ErrUnauthenticated {
		e.Message += "; and what is in the API token's file now does not count: " + fault.Error()
	}
	e.unsent = neverSent(err) || c.ownHTTP && !connected.Load()
	if e.kind == ErrCanceled && e.RequestID == "" && ctx.Err() == nil {
		e.kind = ErrUnavailable // connect takes a connection that was reset for a caller that has gone
	}
	if !e.unsent && unreadable(err) {
		e.kind, e.Message = ErrInternal, "the answer cannot be read, or is too long: is there a Keyquorum node at this address?"
	}
	if op.safety != repeatable && e.leavesOpen() {
		e.kind = ErrOutcomeUnknown
	}
	return nil, e
}

// settle counts the attempt out, and draws from it what it tells of the node.
func (c *Client) settle(ctx context.Context, op operation, n *node, took time.Duration, err *Error) {
	did := c.judge(ctx, op.kind, n, took, err)
	sample := took
	if err != nil && !err.timedOut() && !errors.Is(context.Cause(ctx), errOutrun) {
		sample = 0 // failing is quick
	}
	if err == nil && op.kind == quick && c.hedgePercentile > 0 {
		c.reads.add(took, c.hedgePercentile)
	}
	probe := n.end(op.kind, did, sample)
	if c.inOrder || err == nil || did == well {
		return
	}
	if did != unjudged || err.kind == ErrUnavailable {
		c.leader.CompareAndSwap(n, nil)
		if op.kind != probing { // who looks the members up goes on by itself
			c.suspect()
		}
	}
	if probe {
		c.background.run(func(ctx context.Context) { c.probe(ctx, n) })
	}
}

// hasty is what is too short a time for a node to be blamed that it did not answer.
const hasty = 50 * time.Millisecond

// judge says how a node did. A refusal is an answer. That it can take no write may be the fault of others, that it cannot
// read is its own.
func (c *Client) judge(ctx context.Context, k kind, n *node, took time.Duration, err *Error) conduct {
	switch {
	case err == nil:
		return well
	case err.Node == "" || errors.Is(ctx.Err(), context.Canceled):
		return unjudged
	case errors.Is(err, errForeign):
		return foreign
	case err.timedOut():
		if took >= max(hasty, patience*n.expected(k, time.Now())) {
			return failed
		}
		return unjudged
	}
	return err.conduct(k)
}

func (e *Error) conduct(k kind) conduct {
	switch {
	case e.RequestID == "" && (e.kind == ErrUnavailable || e.kind == ErrOutcomeUnknown), e.fromStranger():
		return failed
	case e.kind != ErrUnavailable && e.kind != ErrInternal && e.kind != ErrOutcomeUnknown:
		return well
	case e.ahead:
		return unjudged
	case k.reads() || k == probing:
		return failed
	}
	return unjudged
}

func (e *Error) timedOut() bool {
	return e.kind == ErrDeadlineExceeded || errors.Is(e, context.DeadlineExceeded)
}

// unreadable reports whether err is of this side's own making although a node answered: connect gives what it cannot
// decode, or is too long, the codes with which a node refuses a request.
func unreadable(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeInvalidArgument, connect.CodeResourceExhausted:
		return !connect.IsWireError(err)
	}
	return false
}

// neverSent reports whether err arose before there was a connection to send anything over, or anybody who would take it.
func neverSent(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	var handshake *certs.HandshakeError
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns) || errors.As(err, &handshake) ||
		errors.Is(err, errSpeaksTLS) || errors.Is(err, errReadable)
}

// leavesOpen reports whether a write that failed like this may have happened all the same: it went out, and no
// node said that nothing was done. What a node says carries the request's id; what a gateway says does not.
func (e *Error) leavesOpen() bool {
	switch e.kind {
	case ErrUnavailable:
		return !e.unsent && e.RequestID == ""
	case ErrInternal, ErrDeadlineExceeded, ErrCanceled:
		return !e.unsent
	}
	return false
}

// allowsAnother reports whether another node may be asked.
func (e *Error) allowsAnother(s safety) bool {
	if e.limited() {
		return true
	}
	switch e.kind {
	case ErrUnavailable, ErrDeadlineExceeded, ErrOutcomeUnknown:
		return e.unsent || s != onceSent
	}
	return e.fromStranger() && s == repeatable
}

// limited reports whether a node refused a request for now, by a limit of which it said when it no longer stands in the way.
func (e *Error) limited() bool {
	return e.kind == ErrResourceExhausted && !e.RetryAt.IsZero() && e.RequestID != ""
}

// fromStranger reports whether what answered seems to be no node at all, as when another service has its old address: what
// a node says carries the request's id.
func (e *Error) fromStranger() bool {
	switch e.kind {
	case ErrUnavailable, ErrDeadlineExceeded, ErrOutcomeUnknown, ErrCanceled:
		return false
	}
	return e.Node != "" && e.RequestID == "" && !e.unsent
}

// verdict makes one error of those of all attempts. After a write whose outcome was open, no later failure is the
// last word: a conflict, say, may be that write's own doing.
func verdict(failed []*Error, s safety) *Error {
	last := len(failed) - 1
	final := *failed[last]
	for _, e := range failed[:last] {
		if s != repeatable && e.kind == ErrOutcomeUnknown {
			final.kind = ErrOutcomeUnknown
		}
		if !slices.ContainsFunc(final.Earlier, e.repeats) {
			final.Earlier = append(final.Earlier, e)
		}
	}
	return &final
}

// repeats reports whether e says no more than another failure did.
func (e *Error) repeats(other *Error) bool { return e.Node == other.Node && e.Message == other.Message }

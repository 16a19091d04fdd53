package client

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
)

// safety says when a call may be sent again.
type safety int

const (
	// onceSent may be tried elsewhere only while it was never sent.
	onceSent safety = iota
	// checked names the state that it expects, so that it cannot happen twice.
	checked
	// repeatable changes nothing that a second sending would make worse.
	repeatable
)

// expecting is the safety of a write that may name the key it expects.
func expecting(keyID string) safety {
	if keyID == "" {
		return onceSent
	}
	return checked
}

// operation is a method of the client: its name, and whether it may be repeated.
type operation struct {
	name   string
	safety safety
}

// procedure is a generated method, bound to one node.
type procedure[Req, Res any] = func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error)

// call tries the nodes in order until one answers, or refuses for good, or trying on is not safe.
func call[Req, Res any](ctx context.Context, c *Client, op operation, req *Req, of func(*node) procedure[Req, Res]) (*Res, error) {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	var failed []*Error
	for i, n := range c.nodes {
		res, err := share(ctx, c, op, n, len(c.nodes)-i, req, of(n))
		if err == nil {
			return res, nil
		}
		failed = append(failed, err)
		if ctx.Err() != nil || !err.allowsAnother(op.safety) {
			break
		}
	}
	return nil, verdict(failed, op.safety)
}

// share asks one node. A call that may be repeated leaves each node after it an equal part of the time.
func share[Req, Res any](ctx context.Context, c *Client, op operation, n *node, left int, req *Req, do procedure[Req, Res]) (*Res, *Error) {
	deadline, bounded := ctx.Deadline()
	if bounded && left > 1 && op.safety != onceSent {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	return attempt(ctx, c, op, n, req, do)
}

func attempt[Req, Res any](ctx context.Context, c *Client, op operation, n *node, req *Req, do procedure[Req, Res]) (*Res, *Error) {
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
	e.unsent = neverSent(err) || c.ownHTTP && !connected.Load()
	if !e.unsent && unreadable(err) {
		e.kind, e.Message = ErrInternal, "the answer cannot be read, or is too long: is there a Keyquorum node at this address?"
	}
	if op.safety != repeatable && e.leavesOpen() {
		e.kind = ErrOutcomeUnknown
	}
	return nil, e
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

// neverSent reports whether err arose before there was a connection to send anything over.
func neverSent(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns)
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

// allowsAnother reports whether the next node may be asked.
func (e *Error) allowsAnother(s safety) bool {
	switch e.kind {
	case ErrUnavailable, ErrDeadlineExceeded, ErrOutcomeUnknown:
		return e.unsent || s != onceSent
	}
	return false
}

// verdict makes one error of those of all attempts. After a write whose outcome was open, no later failure is the
// last word: a conflict, say, may be that write's own doing.
func verdict(failed []*Error, s safety) *Error {
	last := len(failed) - 1
	final := *failed[last]
	final.Earlier = failed[:last]
	for _, e := range final.Earlier {
		if s != repeatable && e.kind == ErrOutcomeUnknown {
			final.kind = ErrOutcomeUnknown
		}
	}
	return &final
}

package client

import (
	"context"
	"time"

	"connectrpc.com/connect"
)

// safety says when a call may be sent again.
type safety int

const (
	// onceSent may be tried elsewhere only while it was never sent.
	onceSent safety = iota
	// checked names the state that it expects, so that it cannot happen twice, or the one that there shall be, so that
	// twice is as good as once. Where no attempt succeeds, it may have happened.
	checked
	// repeatable changes nothing that anybody would miss or meet.
	repeatable
)

// expecting is the safety of a write that may name the key it expects.
func expecting(keyID string) safety {
	if keyID == "" {
		return onceSent
	}
	return checked
}

// kind parts calls by what a node has to do for them, since their times do not compare.
type kind int

const (
	// quick reads are answered from a node's memory, bulk reads take it longer.
	quick kind = iota
	bulk
	// write goes through the leader. ending does too, and can take as long as it takes until no node accepts what was
	// revoked, so nobody is given up for being slow.
	write
	ending
	// probing is the client's own asking whether a node is there, and who else is.
	probing
	// founding is for one node only.
	founding
	kindCount = iota
)

// reads tells whether any node answers by itself.
func (k kind) reads() bool { return k == quick || k == bulk }

// led tells whether the leader is the one to ask.
func (k kind) led() bool { return k == write || k == ending }

// operation is a method of the client: its name, whether it may be repeated, and what it is to a node.
type operation struct {
	name   string
	safety safety
	kind   kind
}

// procedure is a generated method, bound to one node.
type procedure[Req, Res any] = func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error)

// route says which nodes a call goes to.
type route interface {
	// next counts the call in at the node to ask now, which has until then to answer; the zero time is for ever. After
	// the first, last is what the latest attempt failed with. It gives nil to end the call.
	next(ctx context.Context, last *Error) (n *node, until time.Time)
}

// call asks one node after another until one answers, or refuses for good, or trying on is not safe or not worth while.
func call[Req, Res any](ctx context.Context, c *Client, op operation, req *Req, of func(*node) procedure[Req, Res]) (*Res, error) {
	c.watch()
	deadline := c.deadline(ctx, op)
	r := c.route(op, deadline)
	var failed []*Error
	for n, until := r.next(ctx, nil); n != nil; n, until = r.next(ctx, failed[len(failed)-1]) {
		res, errs := ask(ctx, c, op, r, n, until, req, of)
		if res != nil {
			return res, nil
		}
		failed = append(failed, errs...)
		if ctx.Err() != nil || passed(deadline) || !errs[len(errs)-1].allowsAnother(op.safety) {
			break
		}
	}
	return nil, verdict(failed, op.safety)
}

// ask puts the request to a node, and to a second one where that is wanted and the first is slow.
func ask[Req, Res any](ctx context.Context, c *Client, op operation, r route, n *node, until time.Time, req *Req,
	of func(*node) procedure[Req, Res],
) (*Res, []*Error) {
	if p, ok := r.(*balanced); ok {
		if after := c.hedging(op); after > 0 {
			return hedged(ctx, c, p, after, n, until, req, of)
		}
	}
	res, err := attempt(ctx, c, op, n, until, req, of(n))
	if err != nil {
		return nil, []*Error{err}
	}
	return res, nil
}

// deadline is when the call has to be over; zero for never.
func (c *Client) deadline(ctx context.Context, op operation) time.Time {
	deadline, _ := ctx.Deadline()
	timeout := c.timeout
	if op.kind == ending {
		timeout = c.revocation
	}
	if timeout <= 0 {
		return deadline
	}
	return earlier(deadline, time.Now().Add(timeout))
}

// earlier gives the earlier of two times, either of which may be zero for never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func passed(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

func (c *Client) route(op operation, deadline time.Time) route {
	switch {
	case op.kind == founding:
		return &ordered{nodes: c.seeds[:1], op: op, deadline: deadline}
	case c.inOrder:
		return &ordered{nodes: c.seeds, op: op, deadline: deadline}
	}
	c.budget.earn()
	b := &balanced{c: c, op: op, deadline: deadline}
	b.tried = b.room[:0]
	return b
}

// ordered asks each node once, in their order.
type ordered struct {
	nodes    []*node
	op       operation
	deadline time.Time
}

// next leaves each node after it an equal part of the time, where the call may be repeated.
func (o *ordered) next(_ context.Context, last *Error) (*node, time.Time) {
	left := len(o.nodes)
	if left == 0 || last != nil && last.limited() {
		return nil, time.Time{}
	}
	n := o.nodes[0]
	o.nodes = o.nodes[1:]
	n.beginAnyway()
	if o.deadline.IsZero() || left == 1 || o.op.safety == onceSent || o.op.kind == ending {
		return n, o.deadline
	}
	return n, time.Now().Add(time.Until(o.deadline) / time.Duration(left))
}

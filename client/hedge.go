package client

import (
	"context"
	"errors"
	"slices"
	"time"
)

// errOutrun ends an attempt whose answer came from another node first.
var errOutrun = errors.New("another node answered first")

// hedging is how long the first node has before a second is asked; zero for ever.
func (c *Client) hedging(op operation) time.Duration {
	switch {
	case op.kind != quick:
		return 0
	case c.hedgePercentile > 0:
		return c.reads.value()
	}
	return c.hedgeAfter
}

// race is the attempts of one hedged call.
type race[Res any] struct {
	answers chan answer[Res]
	running int
	failed  []*Error
}

type answer[Res any] struct {
	res *Res
	err *Error
}

// hedged asks a second node where the first takes longer than after. The first answer counts; the other attempt is
// ended, and waited for, which is a matter of microseconds.
func hedged[Req, Res any](ctx context.Context, c *Client, b *balanced, after time.Duration, first *node, until time.Time,
	req *Req, of func(*node) procedure[Req, Res],
) (*Res, []*Error) {
	ctx, outrun := context.WithCancelCause(ctx)
	r := &race[Res]{answers: make(chan answer[Res], 2)}
	start := func(n *node) {
		r.running++
		go func() {
			res, err := attempt(ctx, c, b.op, n, until, req, of(n))
			r.answers <- answer[Res]{res, err}
		}()
	}
	defer r.wait()
	defer outrun(errOutrun)
	start(first)
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case a := <-r.answers:
		r.running--
		return r.result(a)
	case <-timer.C:
	}
	if second := b.second(); second != nil {
		start(second)
	}
	return r.first(b.op.safety)
}

// first gives the first answer that settles the call, or all that the attempts failed with.
func (r *race[Res]) first(s safety) (*Res, []*Error) {
	for {
		a := <-r.answers
		r.running--
		if a.err == nil || r.running == 0 || !a.err.allowsAnother(s) {
			return r.result(a)
		}
		r.failed = append(r.failed, a.err)
	}
}

func (r *race[Res]) result(a answer[Res]) (*Res, []*Error) {
	if a.err == nil {
		return a.res, nil
	}
	return nil, append(r.failed, a.err)
}

// wait waits for attempts that were outrun.
func (r *race[Res]) wait() {
	for ; r.running > 0; r.running-- {
		<-r.answers
	}
}

// second gives another usable node, if there is one and it can be paid for.
func (b *balanced) second() *node {
	usable := func(n *node) bool { return !slices.Contains(b.tried, n) && n.usable(time.Now()) }
	r := b.c.roster.Load()
	if !slices.ContainsFunc(r.all, usable) || !b.c.budget.take() {
		return nil
	}
	n := r.choose(b.op.kind, b.tried)
	if n != nil {
		b.tried = append(b.tried, n)
	}
	return n
}

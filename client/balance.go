package client

import (
	"context"
	"time"
)

const (
	// maxRounds is how often a call goes to all nodes.
	maxRounds = 8
	// firstPause is between the first two rounds; each that follows is twice as long, up to longestPause.
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
	// patience is how many times longer than usual a node may take before another is asked.
	patience = 10
)

// shortest is the least that a node is given to answer in, however quick it usually is: a collection of garbage, a slow
// disk or an election must not set off a wave of retries.
var shortest = [kindCount]time.Duration{
	quick: 500 * time.Millisecond, bulk: 2 * time.Second, write: 2 * time.Second, probing: probeTimeout,
}

// balanced goes to the nodes that seem best, each of them once before any a second time.
type balanced struct {
	c        *Client
	op       operation
	deadline time.Time
	// tried are those of this round, in the room that few nodes need.
	tried  []*node
	room   [4]*node
	rounds int
	told   bool
}

func (b *balanced) next(ctx context.Context, last *Error) (*node, time.Time) {
	if last != nil && !b.again(ctx, last) {
		return nil, time.Time{}
	}
	n := b.pick()
	if n == nil {
		return nil, time.Time{}
	}
	b.tried = append(b.tried, n)
	return n, b.limit(n)
}

// again tells whether there is to be another attempt. Where all nodes have been tried, or one has named the time until
// which it takes no more, it waits first, unless none of them seems worth it.
func (b *balanced) again(ctx context.Context, last *Error) bool {
	r := b.c.roster.Load()
	exhausted := r.exhausted(b.tried)
	if exhausted || last.limited() {
		if b.rounds++; b.rounds == maxRounds || last.fromStranger() || r.dead(time.Now()) || !b.wait(ctx, last) {
			return false
		}
	}
	if exhausted {
		b.tried = b.tried[:0]
	}
	return b.c.budget.take()
}

// wait backs off, at least until the node said that trying again makes sense. It is no use if the call is over by then.
func (b *balanced) wait(ctx context.Context, last *Error) bool {
	d := jitter(min(firstPause<<(b.rounds-1), longestPause))
	if !last.RetryAt.IsZero() {
		d = max(d, time.Until(last.RetryAt))
	}
	if !b.deadline.IsZero() && d >= time.Until(b.deadline) {
		return false
	}
	return pause(ctx, d, nil)
}

// pick gives the leader for the first attempt at a write, and else the node that seems best.
func (b *balanced) pick() *node {
	if n := b.c.leader.Load(); b.op.kind.led() && !b.told && n != nil {
		b.told = true
		if n.begin(time.Now()) {
			return n
		}
	}
	r := b.c.roster.Load()
	if n := r.choose(b.op.kind, b.tried); n != nil {
		return n
	}
	return r.lastResort(b.tried)
}

// limit is how long a node has: what is much longer than usual is better spent on another node, as far as asking that
// one is safe and can be paid for.
func (b *balanced) limit(n *node) time.Time {
	if b.op.safety == onceSent || b.op.kind == ending || len(b.c.roster.Load().all) < 2 || !b.c.budget.left() {
		return b.deadline
	}
	now := time.Now()
	var half time.Time
	if !b.deadline.IsZero() {
		half = now.Add(b.deadline.Sub(now) / 2)
	}
	if b.op.safety == checked {
		return half
	}
	return earlier(half, now.Add(max(shortest[b.op.kind], patience*n.expected(b.op.kind, now))))
}

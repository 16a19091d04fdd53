package client

import (
	"context"
	"slices"
	"strings"
	"time"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

const (
	// refreshEvery is the longest time between two looks at the members; it is jittered.
	refreshEvery = 6 * time.Second
	// unsettledEvery is that where the last look found no leader, or nobody who answers.
	unsettledEvery = time.Second
	// refreshGap is the shortest time between two looks, whatever fails.
	refreshGap = 250 * time.Millisecond
	// probeTimeout bounds the asking of one node for the members.
	probeTimeout = time.Second
)

// watch starts what goes on in the background, at the first call.
func (c *Client) watch() {
	if c.inOrder || c.stay {
		return
	}
	c.start.Do(func() { c.background.run(c.discover) })
}

// discover looks the members up, every few seconds and when something has failed, until ctx ends.
func (c *Client) discover(ctx context.Context) {
	for {
		wait := refreshEvery
		if !c.refresh(ctx) || c.leader.Load() == nil {
			wait = unsettledEvery
		}
		if !pause(ctx, refreshGap, nil) || !pause(ctx, jitter(wait), c.stale) {
			return
		}
	}
}

// pause waits for d, or until something comes from early, and tells whether ctx goes on.
func pause(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-early:
	}
	return ctx.Err() == nil
}

// suspect has the members looked up soon.
func (c *Client) suspect() {
	select {
	case c.stale <- struct{}{}:
	default:
	}
}

var membersOp = operation{"Members", repeatable, probing}

// refresh asks one node after another for the members, until one knows them.
func (c *Client) refresh(ctx context.Context) bool {
	var tried []*node
	for r := c.roster.Load(); ctx.Err() == nil; {
		n := r.choose(probing, tried)
		if n == nil {
			n = r.lastResort(tried)
		}
		if n == nil {
			return false
		}
		tried = append(tried, n)
		if res, err := c.members(ctx, n); err == nil && c.adopt(n, res) {
			return true
		}
	}
	return false
}

func (c *Client) members(ctx context.Context, n *node) (*v1.MembersResponse, *Error) {
	return attempt(ctx, c, membersOp, n, time.Now().Add(probeTimeout), &v1.MembersRequest{}, n.cluster.Members)
}

// adopt makes the members, as the node from has them, the nodes to ask. The addresses that were given stay, behind them. A
// node that stays keeps what is known of it. It tells whether there was anybody.
func (c *Client) adopt(from *node, res *v1.MembersResponse) bool {
	scheme, _, _ := strings.Cut(from.address, "://")
	before := c.roster.Load().all
	var near, far, rest []*node
	var leader *node
	for _, m := range res.GetMembers() {
		address, err := ParseAddress(scheme + "://" + m.GetRpcAddress())
		if err != nil || m.GetRole() == v1.Member_ABSENT {
			continue
		}
		n := c.known(address, before)
		if m.GetNodeId() == res.GetLeaderId() {
			leader = n
		}
		if c.region == "" || m.GetRegion() == c.region {
			near = append(near, n)
		} else {
			far = append(far, n)
		}
	}
	if len(near)+len(far) == 0 {
		return false
	}
	for _, n := range c.seeds {
		if !slices.Contains(near, n) && !slices.Contains(far, n) {
			rest = append(rest, n)
		}
	}
	c.roster.Store(newRoster(near, far, rest))
	c.leader.Store(leader)
	return true
}

// known gives the node at an address, a new one only where there is none.
func (c *Client) known(address string, before []*node) *node {
	for _, nodes := range [][]*node{before, c.seeds} {
		if i := slices.IndexFunc(nodes, func(n *node) bool { return n.address == address }); i >= 0 {
			return nodes[i]
		}
	}
	return c.newNode(address)
}

// probe asks an ejected node for the members whenever its time is up, so that no caller has to find out that it is
// back. It ends when the node is back, or is not to be asked any more.
func (c *Client) probe(ctx context.Context, n *node) {
	for {
		until, ejected := n.awaitRelease()
		if !ejected || !pause(ctx, time.Until(until), nil) {
			return
		}
		if !c.knows(n) {
			return
		}
		if !n.begin(time.Now()) { // a caller's request is its trial
			if !pause(ctx, refreshGap, nil) {
				return
			}
			continue
		}
		_, _ = c.members(ctx, n) // it is the node's health that remembers
	}
}

package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

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
	// furtherAsked is how many nodes are asked for the leader where the first knows none.
	furtherAsked = 4
	// recently is how long a node that answered well counts for one that does well.
	recently = 2 * refreshEvery
	// maxMembers is the most that are believed to be in a cluster. A member's six texts have 256 bytes each at most.
	maxMembers      = 256
	maxMembersBytes = maxMembers * 2 << 10
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

// refresh asks one node after another for the members, until one answer can be believed: at once where it drops nobody
// who is doing well, else when a second node says the same. While one is in doubt all are asked, so that those who agree
// prevail over one that keeps to what it said before.
func (c *Client) refresh(ctx context.Context) bool {
	var tried []*node
	var heard []*membership
	for ctx.Err() == nil {
		n := c.nextToTell(tried)
		if n == nil {
			break
		}
		tried = append(tried, n)
		res, err := c.members(ctx, n)
		if err != nil {
			continue
		}
		m := c.membership(n, res)
		if m == nil {
			continue
		}
		agreed := slices.ContainsFunc(heard, func(o *membership) bool { return slices.Equal(o.addresses, m.addresses) })
		if agreed || len(heard) == 0 && !m.dropsHealthy {
			c.findLeader(ctx, m, tried)
			c.adopt(m)
			return true
		}
		heard = append(heard, m)
	}
	if i := slices.IndexFunc(heard, func(m *membership) bool { return !m.dropsHealthy }); i >= 0 {
		c.adopt(heard[i])
		return true
	}
	return false
}

// findLeader asks some nodes more where the one that is believed of the members knows no leader: it may be cut off from the
// others, and a write that it refuses is not always safe to send on.
func (c *Client) findLeader(ctx context.Context, m *membership, tried []*node) {
	for range furtherAsked {
		if m.leader != nil || ctx.Err() != nil {
			return
		}
		n := c.nextToTell(tried)
		if n == nil {
			return
		}
		tried = append(tried, n)
		res, err := c.members(ctx, n)
		if err != nil {
			continue
		}
		if other := c.membership(n, res); other != nil && other.leader != nil {
			m.leader = m.at(other.leader.address)
		}
	}
}

// at gives the member with the address; nil if there is none.
func (m *membership) at(address string) *node {
	for _, n := range slices.Concat(m.near, m.far) {
		if n.address == address {
			return n
		}
	}
	return nil
}

// nextToTell counts a request in at the node to ask for the members. Every other look-up begins with a seed, each in its
// turn, so that what was learnt is not confirmed by those alone who were learnt of.
func (c *Client) nextToTell(tried []*node) *node {
	if len(tried) == 0 {
		c.turn++
		if seed := c.seeds[c.turn/2%len(c.seeds)]; c.turn%2 == 1 && seed.begin(time.Now()) {
			return seed
		}
	}
	r := c.roster.Load()
	if n := r.choose(probing, tried); n != nil {
		return n
	}
	return r.lastResort(tried)
}

// errForeign says that a node is another cluster's.
var errForeign = errors.New("the node is in another cluster than the one that this client knows")

// members asks a node for the members. What no cluster of this client's says counts as a failure of the node.
func (c *Client) members(ctx context.Context, n *node) (*v1.MembersResponse, *Error) {
	ask := func(ctx context.Context, req *connect.Request[v1.MembersRequest]) (*connect.Response[v1.MembersResponse], error) {
		res, err := n.members.Members(ctx, req)
		if err != nil {
			return nil, err
		}
		switch pinned, id := c.clusterID.Load(), res.Msg.GetClusterId(); {
		case len(res.Msg.GetMembers()) > maxMembers:
			return nil, fmt.Errorf("the answer has %d members, more than %d", len(res.Msg.GetMembers()), maxMembers)
		case pinned != nil && id != "" && id != *pinned:
			return nil, errForeign
		}
		return res, nil
	}
	return attempt(ctx, c, membersOp, n, time.Now().Add(probeTimeout), &v1.MembersRequest{}, ask)
}

// membership is what one node says of the members.
type membership struct {
	clusterID string
	near, far []*node
	leader    *node
	// addresses are those of all, sorted.
	addresses []string
	// dropsHealthy says that nodes are missing which the client prefers now and which do well, other than the one that
	// says so.
	dropsHealthy bool
}

// membership reads an answer; nil if it names nobody, or does not say which cluster's it is although others did. A node
// that stays keeps what is known of it.
func (c *Client) membership(from *node, res *v1.MembersResponse) *membership {
	if res.GetClusterId() == "" && c.clusterID.Load() != nil {
		return nil
	}
	scheme, _, _ := strings.Cut(from.address, "://")
	known := c.known()
	m, named := &membership{clusterID: res.GetClusterId()}, map[*node]bool{}
	for _, member := range res.GetMembers() {
		address, err := c.parse(scheme + "://" + member.GetRpcAddress())
		if err != nil || member.GetRole() == v1.Member_ABSENT {
			continue
		}
		n := known[address]
		if n == nil {
			n = c.newNode(address)
			known[address] = n
		}
		if member.GetNodeId() == res.GetLeaderId() {
			m.leader = n
		}
		if named[n] {
			continue
		}
		named[n] = true
		m.addresses = append(m.addresses, address)
		if c.region == "" || member.GetRegion() == c.region {
			m.near = append(m.near, n)
		} else {
			m.far = append(m.far, n)
		}
	}
	if len(named) == 0 {
		return nil
	}
	slices.Sort(m.addresses)
	now := time.Now()
	m.dropsHealthy = slices.ContainsFunc(c.roster.Load().preferred(), func(n *node) bool {
		return n != from && !named[n] && n.thrives(now)
	})
	return m
}

// known gives the nodes that there are, by address.
func (c *Client) known() map[string]*node {
	nodes := map[string]*node{}
	for _, n := range slices.Concat(c.seeds, c.roster.Load().all) {
		nodes[n.address] = n
	}
	return nodes
}

// adopt makes the members the nodes to ask. The addresses that were given stay, behind them.
func (c *Client) adopt(m *membership) {
	var rest []*node
	for _, n := range c.seeds {
		if !slices.Contains(m.near, n) && !slices.Contains(m.far, n) {
			rest = append(rest, n)
		}
	}
	if m.clusterID != "" {
		c.clusterID.CompareAndSwap(nil, &m.clusterID)
	}
	c.roster.Store(newRoster(m.near, m.far, rest))
	c.leader.Store(m.leader)
}

// probe asks an ejected node for the members whenever its time is up, so that no caller has to find out that it is
// back. It ends when the node is back, or is not to be asked any more.
func (c *Client) probe(ctx context.Context, n *node) {
	for {
		until, out := n.awaitRelease()
		if !out || !pause(ctx, time.Until(until), nil) {
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

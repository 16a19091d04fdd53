package client

import (
	"math/rand/v2"
	"slices"
	"time"
)

// roster is the nodes that may be asked, the ones to prefer first. It is not changed: another takes its place.
type roster struct {
	// tiers are asked in this order, each as long as one of its nodes is usable: members of the client's own region,
	// members elsewhere, and addresses that were given and are none of a member's.
	tiers [][]*node
	all   []*node
}

// preferred are the members, and before they are known the addresses that were given.
func (r *roster) preferred() []*node { return slices.Concat(r.tiers[:min(2, len(r.tiers))]...) }

func newRoster(tiers ...[]*node) *roster {
	return &roster{tiers: tiers, all: slices.Concat(tiers...)}
}

// choose counts a request in at a usable node that is not among tried: the better of two that are picked at random from
// the first tier that has any. Always taking the best would send all callers to the same node.
func (r *roster) choose(k kind, tried []*node) *node {
	now := time.Now()
	for _, tier := range r.tiers {
		for {
			n := better(tier, k, now, tried)
			if n == nil {
				break
			}
			if n.begin(now) {
				return n
			}
		}
	}
	return nil
}

// better gives the cheaper of two usable nodes picked at random.
func better(tier []*node, k kind, now time.Time, tried []*node) *node {
	var a, b *node
	seen := 0
	for _, n := range tier {
		if slices.Contains(tried, n) || !n.usable(now) {
			continue
		}
		seen++
		switch place := rand.IntN(seen); { //nolint:gosec // choosing among nodes needs no unpredictable numbers
		case seen == 1:
			a = n
		case seen == 2:
			b = n
		case place == 0:
			a = n
		case place == 1:
			b = n
		}
	}
	if b == nil {
		return a
	}
	if costA, costB := a.cost(k, now), b.cost(k, now); costA < costB ||
		costA == costB && rand.IntN(2) == 0 { //nolint:gosec // as above
		return a
	}
	return b
}

// lastResort counts a request in at the ejected node, not among tried, whose time is up first.
func (r *roster) lastResort(tried []*node) *node {
	var best *node
	var soonest time.Time
	for _, n := range r.all {
		if until := n.released(); !slices.Contains(tried, n) && (best == nil || until.Before(soonest)) {
			best, soonest = n, until
		}
	}
	if best != nil {
		best.beginAnyway()
	}
	return best
}

// exhausted tells whether all nodes are among tried.
func (r *roster) exhausted(tried []*node) bool {
	return !slices.ContainsFunc(r.all, func(n *node) bool { return !slices.Contains(tried, n) })
}

// dead tells whether all nodes are ejected.
func (r *roster) dead(now time.Time) bool {
	return !slices.ContainsFunc(r.all, func(n *node) bool { return n.usable(now) })
}

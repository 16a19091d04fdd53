package gossip

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// joinsAtOnce bounds how many nodes are tried at the same time, so that dead ones do not hold up live ones.
const joinsAtOnce = 8

// keepJoining knocks at the seeds and at missing nodes until ctx ends: often while nobody is there, then
// slowly and for ever, since parted halves cannot find each other in another way.
func (g *Gossip) keepJoining(ctx context.Context) {
	backoff := g.pace.retryMin
	complained := false
	for {
		err := g.joinMissing(ctx)
		wait := g.pace.heal
		if g.roster.alone() {
			wait, backoff = backoff, min(2*backoff, g.pace.retryMax)
		} else {
			backoff = g.pace.retryMin
		}
		complained = g.tell(ctx, err, complained)
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(wait)):
		}
	}
}

// jitter spreads the attempts of many nodes: wait, give or take a quarter.
func jitter(wait time.Duration) time.Duration {
	return wait*3/4 + rand.N(wait/2+1) //nolint:gosec // spreading needs no unpredictable numbers
}

// tell warns once when nobody can be reached, and says when that is over.
func (g *Gossip) tell(ctx context.Context, err error, complained bool) bool {
	alone := g.roster.alone()
	switch {
	case err == nil && alone || ctx.Err() != nil:
		return complained
	case alone && !complained:
		g.log.Warn("gossip: no other node was reached; trying on", "error", oneLine(err))
	case !alone && complained:
		g.log.Info("gossip: reached other nodes", "nodes", len(g.roster.nodes()))
	case err != nil:
		g.log.Debug("gossip: a node was not reached; trying on", "error", oneLine(err))
	}
	return alone
}

// oneLine is the text of an error, which memberlist lays out over several lines.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// joinMissing tries everybody who should be there and is not. The error tells of all who were not reached.
func (g *Gossip) joinMissing(ctx context.Context) error {
	seeds := slices.Clone(g.cfg.Seeds)
	if g.cfg.ExtraSeeds != nil {
		seeds = append(seeds, g.cfg.ExtraSeeds()...)
	}
	seeds = append(seeds, g.roster.missing()...)
	slices.Sort(seeds)

	a := &attempt{Gossip: g, done: map[string]bool{g.own: true}}
	for _, n := range g.roster.nodes() {
		a.done[n.GossipAddress] = true
	}
	var group errgroup.Group
	group.SetLimit(joinsAtOnce)
	for _, seed := range slices.Compact(seeds) {
		group.Go(func() error {
			a.join(ctx, seed)
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(a.errs...)
}

// attempt is one round of joining.
type attempt struct {
	*Gossip
	mu   sync.Mutex
	done map[string]bool // addresses that need no (further) try in this round
	errs []error
}

// join tries each address that a seed stands for.
func (a *attempt) join(ctx context.Context, seed string) {
	looking, cancel := context.WithTimeout(ctx, a.pace.resolve)
	defer cancel()
	found, err := lookUp(looking, withPort(seed, DefaultPort))
	a.note(err)
	for _, addr := range found {
		if ctx.Err() != nil || !a.claim(addr.String()) {
			continue
		}
		if _, err := a.list.Join([]string{addr.String()}); err != nil {
			a.note(err)
		}
	}
}

// claim is true for the first who asks about an address.
func (a *attempt) claim(addr string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := !a.done[addr]
	a.done[addr] = true
	return first
}

func (a *attempt) note(err error) {
	if err == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.errs = append(a.errs, err)
}

// Package revocation makes a revocation final: it waits until no node can accept what was revoked.
//
// A node that has applied the entry does not. One that has not is fresh for a while from what it proved before, and refuses
// by itself after that. So each node that may hold a fresh state is asked whether it has applied the entry, all at once;
// and one that does not say so is waited out: a quarter longer than a state can be fresh, by this node's own clock, since
// either clock may run a tenth off the true rate. That time runs from when this node last heard a question for a tick from
// it, or began to lead if that is later: all that it can be fresh by, it asked for before. A node that has been away for
// longer is not waited for.
//
// Who may hold a fresh state is what applying the entry said: the members, whether they vote or not, and the former
// members. One that was removed counts until as much time has passed since this node's own state applied the removal, or
// since this node started: how long ago that was for others, it does not know.
package revocation

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/plant"
)

// look is how often former members are looked for, and forgotten.
const look = 500 * time.Millisecond

// Config is what a Revocation works with. Fields without a stated default are required.
type Config struct {
	// Self is this node's id.
	Self string
	// State gives the node's state.
	State func() *fsm.State
	// Mono reads a clock that only runs forward and counts the time that the machine was asleep.
	Mono func() time.Duration
	// Applied answers once the member has applied the position, with how far it has come.
	Applied func(ctx context.Context, member fsm.Member, position uint64) (uint64, error)
	// Heard gives from when on a member is waited out, by Mono: when this node last heard a question for a tick from it, or
	// began to lead, if that is later. It gives false where this node does not know, as where it does not lead.
	Heard func(member string) (at time.Duration, ok bool)
	// Propose puts a command through the log.
	Propose func(context.Context, fsm.Command) (fsm.Result, error)
	// Nudge has the followers hear at once how far the log is committed.
	Nudge func()
	// Leading tells whether this node leads.
	Leading func() bool
	// Origin is what the record says of the forgetting of former members.
	Origin fsm.Origin
	// Logger is told of nodes that were waited out; none if nil.
	Logger *slog.Logger
}

// Revocation knows how long former members count. Its methods are safe for concurrent use.
type Revocation struct {
	cfg Config

	mu sync.Mutex
	// seen is when each former member was first seen in the state, by Mono; of one State only.
	seen  map[string]time.Duration
	state *fsm.State

	// members are how far the members have come, by id.
	members map[string]*progress
}

// New makes a Revocation. Run must follow.
func New(cfg Config) *Revocation {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Revocation{cfg: cfg, seen: make(map[string]time.Duration), members: make(map[string]*progress)}
}

// Finality is how it came about that no node accepts what was revoked.
type Finality struct {
	// Applied nodes have the change. Expired ones did not say so in time, or are former members that had to be waited for.
	Applied, Expired int
}

// window is how long a node that lacks an entry may go on being fresh.
func (r *Revocation) window() time.Duration {
	s := r.cfg.State().View().Settings().MaxStaleness
	return s + s/4
}

// Settle waits until what res tells of holds on all nodes, whether it changed anything or only found it so. It is called
// once the entry has been applied here. If ctx ends first, the error wraps fault.ErrOutcomeUnknown: the change was made,
// and some node may not have heard of it yet.
func (r *Revocation) Settle(ctx context.Context, res fsm.Result) (Finality, error) {
	begun := r.cfg.Mono()
	if plant.On(plant.RevokeVoters) {
		res.Holders.Members = slices.DeleteFunc(slices.Clone(res.Holders.Members), func(m fsm.Member) bool { return m.Replica })
	}
	deadlines := r.deadlines(res.Holders.Members, begun)
	r.cfg.Nudge()
	until, former := r.countedUntil(res.Holders.Former, begun)
	applied, silent := r.ask(ctx, res, deadlines)
	f := Finality{Applied: applied, Expired: len(res.Holders.Members) - applied + former}
	if applied < enough(res) {
		until = max(until, silent)
	}
	if !r.pass(ctx, until) {
		return f, fmt.Errorf("%w: the change was made, but not all nodes are known to have it (%w)", fault.ErrOutcomeUnknown, ctx.Err())
	}
	return f, nil
}

// deadlines are when each of the members has been waited out. The entry has been applied here: a question that this node
// hears from now on is answered with a later tick.
func (r *Revocation) deadlines(members []fsm.Member, begun time.Duration) []time.Duration {
	at := make([]time.Duration, len(members))
	for i, m := range members {
		heard, ok := r.cfg.Heard(m.ID)
		if !ok {
			heard = begun
		}
		at[i] = min(heard, begun) + r.window()
	}
	return at
}

// ask gives how many of the members have applied the entry, once each has or its deadline has come, and the last deadline of
// those who have not.
func (r *Revocation) ask(ctx context.Context, res fsm.Result, deadlines []time.Duration) (applied int, silent time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		applied  bool
		deadline time.Duration
	}
	silent = math.MinInt64
	answers := make(chan answer)
	for i, m := range res.Holders.Members {
		go func() {
			answers <- answer{m.ID == r.cfg.Self || r.await(ctx, m, res.Position, deadlines[i]), deadlines[i]}
		}()
	}
	for range res.Holders.Members {
		if a := <-answers; a.applied {
			applied++
		} else {
			silent = max(silent, a.deadline)
		}
		if applied == enough(res) {
			cancel()
		}
	}
	return applied, silent
}

// await tells whether the member has applied the position before its deadline. One that has been waited out already is
// not asked.
func (r *Revocation) await(ctx context.Context, m fsm.Member, position uint64, deadline time.Duration) bool {
	p := r.progress(m.ID)
	if r.cfg.Mono() > deadline {
		return p.reached(position)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		r.pass(ctx, deadline)
		cancel()
	}()
	return p.await(ctx, r.cfg.Applied, m, position)
}

// enough is how many of the members must have applied the entry.
func enough(res fsm.Result) int {
	if plant.On(plant.RevokeMajority) {
		return len(res.Holders.Members)/2 + 1
	}
	return len(res.Holders.Members)
}

func (r *Revocation) progress(id string) *progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.members[id]
	if p == nil {
		p = newProgress()
		r.members[id] = p
	}
	return p
}

// pass waits until more than the deadline has passed by Mono, and tells whether it has; ctx can end first. Timers count by
// a clock that may stop while the machine is asleep, so they are only a hint of when to look.
func (r *Revocation) pass(ctx context.Context, deadline time.Duration) bool {
	for {
		left := deadline - r.cfg.Mono()
		if left < 0 {
			return true
		}
		timer := time.NewTimer(left + time.Microsecond)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}

// countedUntil gives when the last of the former members stops to count, and how many still do; a time that has passed if
// none does.
func (r *Revocation) countedUntil(former []string, now time.Duration) (until time.Duration, counting int) {
	until = now - 1
	if plant.On(plant.ForgottenMember) {
		return until, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.see(r.cfg.State(), former, now)
	window := r.window()
	for _, id := range former {
		if end := r.seen[id] + window; end >= now {
			until = max(until, end)
			counting++
		}
	}
	return until, counting
}

// see notes the former members that are new here. The clock was read after they were found in the state: this node may
// have stood still in between, and they count from the later of the two.
func (r *Revocation) see(state *fsm.State, former []string, now time.Duration) {
	if state != r.state {
		r.state = state
		clear(r.seen)
	}
	for _, id := range former {
		if _, ok := r.seen[id]; !ok {
			r.seen[id] = now
			if plant.On(plant.ForgetfulLeader) && !r.cfg.Leading() {
				r.seen[id] -= 2 * r.window() // for who led then to count
			}
		}
	}
}

// Run looks after the former members until ctx ends: it notes when each was first seen, and on the leader has those
// forgotten that cannot be fresh any more. It returns nil.
func (r *Revocation) Run(ctx context.Context) error {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if over := r.over(); len(over) > 0 && r.cfg.Leading() {
			r.forget(ctx, over)
		}
	}
}

// over gives the former members that count no more.
func (r *Revocation) over() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.cfg.State()
	former := state.View().Holders().Former
	now := r.cfg.Mono()
	r.see(state, former, now)
	return slices.DeleteFunc(slices.Clone(former), func(id string) bool {
		return now-r.seen[id] <= r.window()
	})
}

func (r *Revocation) forget(ctx context.Context, ids []string) {
	bounded, cancel := context.WithTimeout(ctx, r.window())
	defer cancel()
	_, err := r.cfg.Propose(bounded, fsm.Command{Origin: r.cfg.Origin, Op: fsm.ForgetMembers{IDs: ids}})
	if err != nil && ctx.Err() == nil {
		r.cfg.Logger.Debug("revocation: former members could not be forgotten", "error", err)
	}
}

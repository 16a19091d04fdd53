package freshness

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/plant"
)

// perHold is how many times the time for which a question that nobody waits for stays open, for others to share its tick,
// goes into the bound. It makes the cost of a large cluster that of a small one.
const perHold = 50

// TicksConfig is what Ticks works with. All fields are required.
type TicksConfig struct {
	// Propose puts a command through the log.
	Propose func(context.Context, fsm.Command) (fsm.Result, error)
	// Mono reads a clock that only runs forward and counts the time that the machine was asleep.
	Mono func() time.Duration
	// View gives the node's newest view.
	View func() *fsm.View
	// Origin is what the record says of ticks.
	Origin fsm.Origin
}

// Ticks is the leader's side of the rounds: it commits ticks, one at a time, and each for all who asked before it was
// proposed. Its methods are safe for concurrent use.
type Ticks struct {
	cfg    TicksConfig
	wanted chan struct{}
	hurry  chan struct{}

	mu    sync.Mutex
	next  *tick // not proposed yet; nil while nobody asks
	heard map[string]time.Duration
	ended bool
}

// tick is one tick, and those who asked for it.
type tick struct {
	// told is set where the followers are to hear at once that it is committed.
	told bool
	done chan struct{}
	res  fsm.Result // with err, to be read once done is closed
	err  error
}

// NewTicks makes Ticks. Nothing is proposed until Run.
func NewTicks(cfg TicksConfig) *Ticks {
	return &Ticks{cfg: cfg, wanted: make(chan struct{}, 1), hurry: make(chan struct{}, 1), heard: make(map[string]time.Duration)}
}

// Tick gives the position of a tick that was proposed after the call, and is committed and applied here. It fails where
// this node does not lead, and where the asker was no member when the tick was applied: only those are waited for when
// something is revoked.
func (t *Ticks) Tick(ctx context.Context, asker string, waited bool) (uint64, error) {
	if !t.cfg.View().Holders().Member(asker) { // it costs no entry
		return 0, fmt.Errorf("%w: node %s", fault.ErrNoSuchMember, asker)
	}
	if !plant.On(plant.LateHearing) {
		t.hear(asker)
	}
	k := t.join(waited, waited)
	select {
	case <-k.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if plant.On(plant.LateHearing) {
		t.hear(asker)
	}
	if k.err != nil {
		return 0, k.err
	}
	if !k.res.Holders.Member(asker) {
		return 0, fmt.Errorf("%w: node %s", fault.ErrNoSuchMember, asker)
	}
	return k.res.Position, nil
}

// hear notes that a member has asked, before its tick can be proposed: a change that is applied here and finds no question
// of a member is before any tick that the member is still to get. Several questions of one member can be here at once, and
// be noted out of order: the latest counts.
func (t *Ticks) hear(asker string) {
	now := t.cfg.Mono()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heard[asker] = max(t.heard[asker], now)
}

// Heard gives when the member last asked, by Mono; false if it never did.
func (t *Ticks) Heard(member string) (at time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok = t.heard[member]
	return at, ok
}

// Nudge has a tick proposed at once, for what it carries to the followers: how far the log is committed.
func (t *Ticks) Nudge() { t.join(true, false) }

func (t *Ticks) join(atOnce, told bool) *tick {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return endedTick()
	}
	if t.next == nil {
		t.next = &tick{done: make(chan struct{})}
	}
	t.next.told = t.next.told || told
	signal(t.wanted)
	if atOnce {
		signal(t.hurry)
	}
	return t.next
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (t *Ticks) take() *tick {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.next
	if !plant.On(plant.EarlyTick) {
		t.next = nil
	}
	for _, c := range []chan struct{}{t.wanted, t.hurry} {
		select {
		case <-c:
		default:
		}
	}
	return k
}

// Run commits ticks until ctx ends, and returns nil.
func (t *Ticks) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			t.end()
			return nil
		case <-t.wanted:
		}
		t.hold(ctx)
		if k := t.take(); k != nil {
			t.commit(ctx, k)
		}
	}
}

// hold waits for others to share the tick, unless somebody is in a hurry.
func (t *Ticks) hold(ctx context.Context) {
	timer := time.NewTimer(t.cfg.View().Settings().MaxStaleness / perHold)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-t.hurry:
	case <-timer.C:
	}
}

// commit proposes the tick and tells what came of it. The next one carries to the followers that it is committed, so where
// somebody waits for that, it follows at once; those who have asked by then share it.
func (t *Ticks) commit(ctx context.Context, k *tick) {
	bounded, cancel := context.WithTimeout(ctx, t.cfg.View().Settings().MaxStaleness)
	defer cancel()
	k.res, k.err = t.cfg.Propose(bounded, fsm.Command{Origin: t.cfg.Origin, Op: fsm.Tick{}})
	plant.Dawdle(plant.EarlyTick)
	t.leave(k)
	close(k.done)
	if k.told && k.err == nil {
		t.Nudge()
	}
}

// leave sees that nobody joins a tick that is done.
func (t *Ticks) leave(k *tick) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next == k {
		t.next = nil
	}
}

// end fails what nobody proposes any more, and what comes later.
func (t *Ticks) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	if t.next != nil {
		t.next.err = fault.ErrShuttingDown
		close(t.next.done)
		t.next = nil
	}
}

func endedTick() *tick {
	k := &tick{done: make(chan struct{}), err: fault.ErrShuttingDown}
	close(k.done)
	return k
}

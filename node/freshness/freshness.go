// Package freshness proves, by the log itself, how old a node's state can be.
//
// Several times within the bound that the cluster was founded with, and whenever somebody needs it, a node runs a round:
// it notes its own clocks, and asks the leader, which commits a tick that it proposes after the question came in and
// answers with the tick's position. Once the node has applied that position, everything that was acknowledged anywhere
// before it noted its clocks is in its state: the state is fresh through that moment. A leader that was deposed cannot
// commit, so it cannot answer.
//
// What hashicorp/raft offers instead proves less: VerifyLeader counts answers to requests from before the call,
// AppliedIndex is ahead of the state machine, LastContact is set by heartbeats, which carry no commit index, and the lease
// only makes a leader step down. docs/PROTOCOL.md has the rules one by one, and what goes wrong without each.
package freshness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/plant"
)

const (
	// perBound is how many rounds there are within the bound: one that is lost, and an election, leave the state fresh.
	perBound = 5
	// patiences is how many times the patience with a round, of itself and of who waits for it, goes into the bound: where the
	// log is slow, one that takes long still proves something, and after one that is lost there is time for another.
	patiences = 2
	// Gap is the shortest time from the start of one round to that of the next, unless it is an urgent one: forged tokens
	// from the future cost a round in that time, however many there are.
	Gap = 20 * time.Millisecond
	// retryAfter is the time from a round that failed to the next.
	retryAfter = 50 * time.Millisecond
)

// Config is what a Freshness works with. Fields without a stated default are required.
type Config struct {
	// State gives the node's state.
	State func() *fsm.State
	// Wait waits until the newest view is as asked.
	Wait func(ctx context.Context, ok func(*fsm.View) bool) (*fsm.View, error)
	// Tick has the leader commit a tick that it proposes after the call, and gives its position. Where somebody waits, the
	// leader does so at once, and has its followers hear of the commit at once.
	Tick func(ctx context.Context, waited bool) (position uint64, err error)
	// Mono reads a clock that only runs forward and counts the time that the machine was asleep; Wall the wall clock. A state
	// is as old as the one says that has moved further.
	Mono func() time.Duration
	Wall func() time.Time
	// Observe is told of each round: how long it took, and whether it failed; nil for nobody.
	Observe func(took time.Duration, err error)
	// Logger is told why rounds fail; none if nil.
	Logger *slog.Logger
}

// Freshness is how fresh one node's state is. Its methods are safe for concurrent use.
type Freshness struct {
	cfg   Config
	proof atomic.Pointer[proof]
	// wanted has a token while next has a waiter.
	wanted chan struct{}

	mu sync.Mutex
	// next is the round that has not asked yet; nil until somebody waits for it.
	next  *round
	ended bool
}

// proof says through when a state is fresh, by both clocks. It is never changed once published.
type proof struct {
	state *fsm.State
	mono  time.Duration
	wall  time.Time
}

// round is one question to the leader, and those who wait for what comes of it.
type round struct {
	// waited says that somebody waits for it; urgent that it does not keep the Gap.
	waited, urgent bool
	done           chan struct{}
	err            error // to be read once done is closed
}

// New makes a Freshness that has no proof. Run must follow.
func New(cfg Config) *Freshness {
	if cfg.Observe == nil {
		cfg.Observe = func(time.Duration, error) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Freshness{cfg: cfg, wanted: make(chan struct{}, 1)}
}

// Age gives how old the state can be now; false if nothing has been proved of this very state. The clocks are read anew
// each time. Whoever goes by it reads the state's view afterwards: an earlier one may be older.
func (f *Freshness) Age(state *fsm.State) (age time.Duration, proved bool) {
	p := f.proof.Load()
	if p == nil || p.state != state && !plant.On(plant.RestoredFreshness) {
		return 0, false
	}
	if plant.On(plant.StoppingClock) {
		return f.cfg.Mono() - p.mono, true
	}
	return max(f.cfg.Mono()-p.mono, f.cfg.Wall().Sub(p.wall)), true
}

// Round waits until a round that asked after the call has been proved: all that was acknowledged anywhere before the call
// is then in the state. It gives up with ctx, or after half of the bound, and then wraps fault.ErrBehind, or what ended the
// last round. An urgent round does not keep the Gap.
func (f *Freshness) Round(ctx context.Context, urgent bool) error {
	ctx, cancel := context.WithTimeout(ctx, f.bound()/patiences)
	defer cancel()
	var last error
	for {
		r := f.join(urgent)
		select {
		case <-r.done:
			if r.err == nil {
				return nil
			}
			if last = r.err; errors.Is(last, fault.ErrShuttingDown) {
				return last
			}
		case <-ctx.Done():
			if last == nil {
				last = ctx.Err()
			}
			return fmt.Errorf("%w: it could not learn in time what has been acknowledged (%w)", fault.ErrBehind, last)
		}
	}
}

// join gives the round that asks next.
func (f *Freshness) join(urgent bool) *round {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next == nil {
		f.next = &round{waited: true, done: make(chan struct{})}
	}
	if f.ended {
		r := f.next
		f.next = nil
		r.finish(fault.ErrShuttingDown)
		return r
	}
	f.next.urgent = f.next.urgent || urgent
	signal(f.wanted)
	return f.next
}

func (r *round) finish(err error) {
	r.err = err
	close(r.done)
}

// take gives the round that asks now: whoever comes later waits for the one after.
func (f *Freshness) take() *round {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.next
	if r == nil {
		r = &round{done: make(chan struct{})}
	}
	if !plant.On(plant.LateWaiter) {
		f.next = nil
	}
	select {
	case <-f.wanted:
	default:
	}
	return r
}

func (f *Freshness) urgent() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next != nil && f.next.urgent
}

// bound is how old the state may become.
func (f *Freshness) bound() time.Duration { return f.cfg.State().View().Settings().MaxStaleness }

// errRestored ends a round whose state is not the node's any more.
var errRestored = errors.New("the state was replaced by an older one")

// prove asks the leader, waits until the state has come to the tick, and publishes what that proves.
func (f *Freshness) prove(ctx context.Context, waited bool) error {
	state := f.cfg.State()
	p := &proof{state: state, mono: f.cfg.Mono(), wall: f.cfg.Wall().Round(0)}
	position, err := f.cfg.Tick(ctx, waited)
	if err != nil {
		return err
	}
	gone := func() bool { return f.cfg.State() != state && !plant.On(plant.RestoredFreshness) }
	_, err = f.cfg.Wait(ctx, func(*fsm.View) bool { return gone() || state.View().Position() >= position })
	if err != nil {
		return fmt.Errorf("%w: it has not applied position %d of the log (%w)", fault.ErrBehind, position, err)
	}
	if gone() {
		return errRestored
	}
	f.proof.Store(p)
	return nil
}

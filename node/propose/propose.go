// Package propose is the one door to Raft. It gathers the commands of many callers into few log entries (group
// commit), dates them, and turns what Raft and the state machine say into typed results: a definite refusal, a
// definite failure, or an outcome that is open. Nothing else in the node calls Raft's Apply.
package propose

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
)

// Raft is what the door needs of *raft.Raft.
type Raft interface {
	Apply(entry []byte, timeout time.Duration) raft.ApplyFuture
}

// Config is what a Proposer works with. Fields without a stated default are required.
type Config struct {
	Raft Raft
	// Now gives the cluster's time, and whether it is known.
	Now func() (time.Time, bool)
	// Format gives the highest entry format that all members can read.
	Format func() int
	// MaxBatch bounds the commands in one entry; 256 if zero.
	MaxBatch int
	// MaxInFlight bounds the entries under way at once; 2 if zero: one on its way through Raft, and one
	// behind it, so that neither disk nor network waits for the other.
	MaxInFlight int
	// Queue bounds the commands that wait for an entry; 8192 if zero. Past it Propose says ErrOverloaded.
	Queue int
	// EnqueueTimeout bounds how long Raft may take to accept an entry; 5 s if zero.
	EnqueueTimeout time.Duration
	// Observe is told the number of commands of each entry; nil for nobody.
	Observe func(commands int)
}

func (c Config) withDefaults() Config {
	if c.MaxBatch == 0 {
		c.MaxBatch = 256
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 2
	}
	if c.Queue == 0 {
		c.Queue = 8192
	}
	if c.EnqueueTimeout == 0 {
		c.EnqueueTimeout = 5 * time.Second
	}
	if c.Observe == nil {
		c.Observe = func(int) {}
	}
	return c
}

// Proposer gathers commands into entries. Its methods are safe for concurrent use.
type Proposer struct {
	cfg   Config
	queue chan *request
	slots chan struct{}

	mu      sync.Mutex
	closed  bool
	waiters sync.WaitGroup
}

// request is one caller's command on its way.
type request struct {
	cmd   fsm.Command
	taken atomic.Bool // by the gatherer, or by a caller that gave up
	done  chan outcome
}

type outcome struct {
	result fsm.Result
	err    error
}

// New makes a Proposer. Nothing is proposed until Run.
func New(cfg Config) *Proposer {
	cfg = cfg.withDefaults()
	return &Proposer{
		cfg:   cfg,
		queue: make(chan *request, cfg.Queue),
		slots: make(chan struct{}, cfg.MaxInFlight),
	}
}

// Propose puts cmd through the log and gives what applying it gave on this node.
//
// The error is a *fsm.Refusal where the state refused the command; fault.ErrOutcomeUnknown where it may or may
// not be applied; and otherwise one that says that nothing was, or will be, proposed.
func (p *Proposer) Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	if err := p.admit(cmd); err != nil {
		return fsm.Result{}, err
	}
	r := &request{cmd: cmd, done: make(chan outcome, 1)}
	if err := p.enqueue(r); err != nil {
		return fsm.Result{}, err
	}
	select {
	case o := <-r.done:
		return o.result, o.err
	case <-ctx.Done():
		return p.abandon(ctx, r)
	}
}

// admit refuses what no entry could carry, now or ever: it must not spoil an entry that carries others' commands.
func (p *Proposer) admit(cmd fsm.Command) error {
	if err := cmd.Validate(); err != nil {
		return err
	}
	if need, have := fsm.EntryFormat(cmd), p.cfg.Format(); need > have {
		return fmt.Errorf("%w (it needs format %d, a member reads up to %d)", fault.ErrFormat, need, have)
	}
	return nil
}

func (p *Proposer) enqueue(r *request) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fault.ErrShuttingDown
	}
	select {
	case p.queue <- r:
		return nil
	default:
		return fmt.Errorf("%w: %d writes are waiting for the log", fault.ErrOverloaded, len(p.queue))
	}
}

// abandon ends a caller's wait. If the gatherer has not taken the command, it never will.
func (p *Proposer) abandon(ctx context.Context, r *request) (fsm.Result, error) {
	if r.taken.CompareAndSwap(false, true) {
		return fsm.Result{}, fmt.Errorf("waiting for the log: %w", ctx.Err())
	}
	select {
	case o := <-r.done:
		return o.result, o.err
	default:
		return fsm.Result{}, fmt.Errorf("%w (%w)", fault.ErrOutcomeUnknown, ctx.Err())
	}
}

// Run gathers and proposes until ctx ends. Then it refuses what waits, and what comes later, and returns once
// every entry under way has its outcome. Raft must still be running then: it gives each of them one.
func (p *Proposer) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			p.close()
			return nil
		case first := <-p.queue:
			p.flush(ctx, first)
		}
	}
}

// flush waits for a free slot, gathers what has come by then, and proposes it.
func (p *Proposer) flush(ctx context.Context, first *request) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		fail([]*request{first}, fault.ErrShuttingDown)
		return
	}
	batch := p.gather(first)
	if len(batch) == 0 {
		<-p.slots
		return
	}
	p.propose(batch)
}

// gather takes what waits, up to MaxBatch, leaving out what was given up or needs a time that is not known.
func (p *Proposer) gather(first *request) []*request {
	_, known := p.cfg.Now()
	var batch []*request
	take := func(r *request) {
		switch {
		case !r.taken.CompareAndSwap(false, true):
		case !known && fsm.NeedsTime(r.cmd.Op):
			fail([]*request{r}, fault.ErrTimeUnknown)
		default:
			batch = append(batch, r)
		}
	}
	take(first)
	for len(batch) < p.cfg.MaxBatch {
		select {
		case r := <-p.queue:
			take(r)
		default:
			return batch
		}
	}
	return batch
}

// propose hands one entry to Raft and has its outcome told. The slot is freed with the outcome.
func (p *Proposer) propose(batch []*request) {
	entry := fsm.Entry{Commands: make([]fsm.Command, len(batch))}
	for i, r := range batch {
		entry.Commands[i] = r.cmd
	}
	if now, known := p.cfg.Now(); known {
		entry.Time = now
	}
	data, err := fsm.EncodeEntry(entry)
	if err != nil {
		<-p.slots
		fail(batch, fmt.Errorf("encode log entry: %w", err))
		return
	}
	p.cfg.Observe(len(batch))
	future := p.cfg.Raft.Apply(data, p.cfg.EnqueueTimeout)
	p.waiters.Go(func() {
		defer func() { <-p.slots }()
		tell(batch, future)
	})
}

// tell waits for an entry's outcome and tells each caller its own.
func tell(batch []*request, future raft.ApplyFuture) {
	if err := future.Error(); err != nil {
		fail(batch, classify(err))
		return
	}
	results, ok := future.Response().([]fsm.Result)
	if !ok || len(results) != len(batch) {
		fail(batch, fmt.Errorf("%w: the state machine gave %T for %d commands", fault.ErrOutcomeUnknown, future.Response(), len(batch)))
		return
	}
	for i, r := range batch {
		r.done <- resultOf(results[i])
	}
}

// resultOf tells a refusal, which is final, from a state machine that halted on the entry.
func resultOf(res fsm.Result) outcome {
	var refusal *fsm.Refusal
	if res.Err == nil || errors.As(res.Err, &refusal) {
		return outcome{result: res, err: res.Err}
	}
	return outcome{err: fmt.Errorf("%w (%w)", fault.ErrOutcomeUnknown, res.Err)}
}

func fail(batch []*request, err error) {
	for _, r := range batch {
		r.taken.Store(true)
		r.done <- outcome{err: err}
	}
}

func (p *Proposer) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	for {
		select {
		case r := <-p.queue:
			if r.taken.CompareAndSwap(false, true) {
				fail([]*request{r}, fault.ErrShuttingDown)
			}
		default:
			p.waiters.Wait()
			return
		}
	}
}

// Package auditing keeps a node's audit records: it takes them from the replicated state as the log is applied, has them
// written behind its back, gets from other nodes what is missing, and gives them to whoever may read them.
//
// Applying the log never waits for the disk for long. What waits to be written is bounded: past that records are dropped
// here, and got from other nodes later, which is what a node that took a snapshot does anyway. A snapshot of the state is
// persisted only once its records are written: the log, from which they follow, may go then, on all nodes at once.
package auditing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/fault"
)

// Store keeps records. Its methods are safe for concurrent use. auditfile.Store is one, on disk.
type Store interface {
	// Head is the last record that is kept.
	Head() audit.Head
	// Append keeps entries that follow the head before them, durably or not at all. Those that are kept are passed over;
	// entries that do not follow what is kept leave a gap.
	Append(before audit.Head, entries []audit.Entry) error
	// Fill keeps entries that are missing.
	Fill(before audit.Head, entries []audit.Entry) error
	// Gaps tells what is missing before the head, and wanted, the newest first.
	Gaps() []audit.Gap
	// Read gives entries without a gap, from the one with the number on or the first after it, and the head before them;
	// about most bytes of them.
	Read(from uint64, most int) (before audit.Head, entries []audit.Entry, err error)
}

// Ask asks a node for entries, as Store.Read gives them.
type Ask func(ctx context.Context, id string, from uint64) (before audit.Head, entries []audit.Entry, err error)

// Config is what a Trail works with. Fields without a stated default are required.
type Config struct {
	Store Store
	// Block has Failing report a store that fails, so that nothing is written that leaves no record.
	Block bool
	// Peers gives the ids of the other members, and Ask asks one of them.
	Peers func() []string
	Ask   Ask
	// Most bounds the entries that wait to be written; 65536 if zero.
	Most int
	// Gather is how long entries wait for more, to be written at once; 100 ms if zero.
	Gather time.Duration
	// Retry is the pause after a failure of the store, and the shortest one between attempts to fill gaps; 1 s if zero.
	Retry time.Duration
	// Patience is how long Append waits for room, and Flush for the store; 100 ms and 30 s if zero.
	AppendPatience, FlushPatience time.Duration
	Logger                        *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Most == 0 {
		c.Most = 65536
	}
	if c.Gather == 0 {
		c.Gather = 100 * time.Millisecond
	}
	if c.Retry == 0 {
		c.Retry = time.Second
	}
	if c.AppendPatience == 0 {
		c.AppendPatience = 100 * time.Millisecond
	}
	if c.FlushPatience == 0 {
		c.FlushPatience = 30 * time.Second
	}
	return c
}

// chunk is a run of entries and the head that it follows.
type chunk struct {
	before  audit.Head
	entries []audit.Entry
}

func (c *chunk) last() audit.Head { return c.entries[len(c.entries)-1].Head() }

// Trail is a node's audit records. Its methods are safe for concurrent use.
type Trail struct {
	cfg Config

	mu sync.Mutex
	// queue waits to be written; waiting counts the entries in it, and those that are being written.
	queue   []chunk
	waiting int
	// dropping is set from when the queue was full until it is half empty.
	dropping bool
	// snapshot is the newest head that came with a snapshot: records up to it can be missing behind what is kept.
	snapshot audit.Head
	// failure is why the store cannot be written; nil while it can.
	failure error
	ended   bool
	// changed is closed when any of it, or the store, has changed.
	changed chan struct{}

	counts counts
	// gone has the end of the gaps that no peer could fill, and when that was found.
	gone map[uint64]time.Time
}

// counts are for the metrics.
type counts struct {
	written, filled, dropped, failures uint64
}

var _ fsm.Audit = (*Trail)(nil)

// New makes a Trail. Nothing is written until Run.
func New(cfg Config) *Trail {
	return &Trail{cfg: cfg.withDefaults(), changed: make(chan struct{}), gone: make(map[uint64]time.Time)}
}

// broadcast wakes all who wait. It is called with the lock held.
func (t *Trail) broadcast() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Changed gives a channel that is closed when there may be more to read.
func (t *Trail) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// Append implements fsm.Audit. Where there is no room it waits a little, and then drops the entries.
func (t *Trail) Append(before audit.Head, entries []audit.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dropping || t.waiting >= t.cfg.Most && !t.awaitRoom() {
		t.drop(len(entries))
		return
	}
	t.queue = append(t.queue, chunk{before, entries})
	t.waiting += len(entries)
	t.broadcast()
}

func (t *Trail) drop(n int) {
	if !t.dropping {
		t.cfg.Logger.Error("audit records come faster than they can be written, and have to be got from other nodes later", "waiting", t.waiting)
	}
	t.dropping = true
	t.counts.dropped += uint64(n)
}

// awaitRoom is called with the lock held, and has it again when it returns.
func (t *Trail) awaitRoom() bool {
	timer := time.NewTimer(t.cfg.AppendPatience)
	defer timer.Stop()
	for t.waiting >= t.cfg.Most {
		changed := t.changed
		t.mu.Unlock()
		select {
		case <-changed:
			t.mu.Lock()
		case <-timer.C:
			t.mu.Lock()
			return t.waiting < t.cfg.Most
		}
	}
	return true
}

// Restored implements fsm.Audit.
func (t *Trail) Restored(head audit.Head) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.snapshot = head
	t.broadcast()
}

// errEnded says that the node ends, and writes no more.
var errEnded = errors.New("the node ends")

// Flush implements fsm.Audit. Where the store fails and writes are not to be blocked for that, it does not wait.
func (t *Trail) Flush(head audit.Head) error {
	timer := time.NewTimer(t.cfg.FlushPatience)
	defer timer.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.pending(head) {
		switch {
		case t.ended:
			return errEnded
		case t.failure != nil && !t.cfg.Block:
			return nil
		case t.failure != nil:
			return t.failure
		}
		changed := t.changed
		t.mu.Unlock()
		select {
		case <-changed:
			t.mu.Lock()
		case <-timer.C:
			t.mu.Lock()
			return fmt.Errorf("%d audit records wait to be written", t.waiting)
		}
	}
	return nil
}

// pending tells whether something up to the head waits to be written. The first in the queue is being written, maybe.
func (t *Trail) pending(head audit.Head) bool {
	return len(t.queue) > 0 && t.queue[0].before.Sequence < head.Sequence
}

// Failing says why no change should be made that leaves a record, wrapping fault.ErrAudit; nil if there is no reason.
func (t *Trail) Failing() error {
	if !t.cfg.Block {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.failure != nil:
		return fmt.Errorf("%w: %w", fault.ErrAudit, t.failure)
	case t.waiting > t.cfg.Most/2:
		return fmt.Errorf("%w: it is slow, and %d records wait", fault.ErrAudit, t.waiting)
	}
	return nil
}

// Run writes, and fills gaps, until ctx ends; then it writes what is left.
func (t *Trail) Run(ctx context.Context) error {
	var all errgroup.Group
	all.Go(func() error { t.write(ctx); return nil })
	all.Go(func() error { t.fill(ctx); return nil })
	return all.Wait()
}

// Store gives what is kept.
func (t *Trail) Store() Store { return t.cfg.Store }

// Health is what metrics tell of a Trail.
type Health struct {
	// Head is the last record that is kept; Waiting are those to be written, Missing those to be got.
	Head             uint64
	Waiting, Missing uint64
	Failing          bool
	// Written, Filled, Dropped and Failures count since the start.
	Written, Filled, Dropped, Failures uint64
}

// Health tells how the Trail is.
func (t *Trail) Health() Health {
	h := Health{Head: t.cfg.Store.Head().Sequence}
	t.mu.Lock()
	snapshot := t.snapshot
	h.Waiting, h.Failing = uint64(t.waiting), t.failure != nil
	h.Written, h.Filled, h.Dropped, h.Failures = t.counts.written, t.counts.filled, t.counts.dropped, t.counts.failures
	t.mu.Unlock()
	for _, g := range gaps(t.cfg.Store, snapshot) {
		h.Missing += g.Len()
	}
	return h
}

package boltstore

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Backend is all that raft keeps on disk besides its snapshots.
type Backend interface {
	raft.LogStore
	raft.StableStore
}

// Watchdog passes everything on to a Backend and speaks up when a write does not come back. raft's main loop waits for
// the disk, while a leader's heartbeats go on from other goroutines: a leader whose disk hangs stays leader,
// serves nobody, and no election comes (hashicorp/raft issue 503). Only ending the node helps.
//
// It is safe for concurrent use as far as its Backend is.
type Watchdog struct {
	Backend
	limit  time.Duration
	onHang func(error)
}

var _ Backend = (*Watchdog)(nil)

// Watch gives a Watchdog over b that calls onHang once, from a goroutine of its own, when a write has taken longer
// than limit. The write itself stays where it is; the error says which one, and the limit.
func Watch(b Backend, limit time.Duration, onHang func(error)) *Watchdog {
	return &Watchdog{Backend: b, limit: limit, onHang: once(onHang)}
}

func once(f func(error)) func(error) {
	var o sync.Once
	return func(err error) { o.Do(func() { f(err) }) }
}

// steps is how many parts the limit is counted in. A process or a machine that stands still for a while finds, when it goes
// on, one step over and not all of them: the disk is not to blame for the others.
const steps = 10

// guard watches one write, until the function that it returns is called.
func (w *Watchdog) guard(format string, args ...any) (done func()) {
	g := &guarded{left: steps}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer = time.AfterFunc(w.limit/steps, func() {
		if g.step(w.limit / steps) {
			w.onHang(fmt.Errorf("boltstore: %s has taken longer than %s: the disk hangs or is far too slow: "+
				"this node must end, so that the others can elect a leader", fmt.Sprintf(format, args...), w.limit))
		}
	})
	return g.end
}

// guarded is one write that is watched.
type guarded struct {
	mu    sync.Mutex
	timer *time.Timer
	left  int // steps; none once the write is done
}

// step counts one, and tells whether it was the last.
func (g *guarded) step(length time.Duration) (over bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left == 0 {
		return false
	}
	g.left--
	if g.left > 0 {
		g.timer.Reset(length)
	}
	return g.left == 0
}

func (g *guarded) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = 0
	g.timer.Stop()
}

// StoreLog stores one entry.
func (w *Watchdog) StoreLog(l *raft.Log) error { return w.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores entries durably.
func (w *Watchdog) StoreLogs(logs []*raft.Log) error {
	defer w.guard("storing %d log entries", len(logs))()
	return w.Backend.StoreLogs(logs)
}

// DeleteRange removes the entries from lo to hi, both included.
func (w *Watchdog) DeleteRange(lo, hi uint64) error {
	defer w.guard("deleting the log entries %d to %d", lo, hi)()
	return w.Backend.DeleteRange(lo, hi)
}

// Set saves a value durably.
func (w *Watchdog) Set(key, val []byte) error {
	defer w.guard("saving %q", key)()
	return w.Backend.Set(key, val)
}

// SetUint64 saves a number durably.
func (w *Watchdog) SetUint64(key []byte, val uint64) error {
	defer w.guard("saving %q", key)()
	return w.Backend.SetUint64(key, val)
}

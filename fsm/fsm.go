// Package fsm is the replicated truth: which user has which keys, the cluster's settings and its members' records,
// as a pure function of the log. It has no clock, no randomness, no I/O and no plaintext key. What a command needs
// of these, its proposer put into the log entry; so the same log gives the same state, and the same snapshot to
// the byte, on every node.
//
// Readers take a View, which never changes, and need no lock. A command that the state refuses is an ordinary
// Result with a *Refusal. An entry that cannot be decoded halts the FSM: a state that may have diverged from the
// others' serves no one.
package fsm

import (
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/plant"
)

// Config is what an FSM works with. Its zero value will do.
type Config struct {
	// OnHalt is told, once, why the FSM halted. It is called on Raft's goroutine, so it must not wait for Raft.
	// Nil is for nobody.
	OnHalt func(error)
	// Audit gets the audit records of what is applied. Nil is for nobody.
	Audit Audit
}

// FSM applies the log. Raft calls Apply, ApplyBatch, Snapshot and Restore, from one goroutine; all else is safe
// for concurrent use.
type FSM struct {
	onHalt func(error)
	audit  Audit
	state  atomic.Pointer[State]
	halted atomic.Pointer[error]
	change signal
}

var _ raft.BatchingFSM = (*FSM)(nil)

// State is a state that only goes forward: it gets younger with each entry, and with each Restore to a later position. A
// Restore that goes back makes another State. So whoever found out that a State has come to a position reads from that
// State, and not from whichever there is by then.
type State struct {
	view atomic.Pointer[View]
}

// View gives the newest version.
func (s *State) View() *View { return s.view.Load() }

func newState(v *View) *State {
	s := new(State)
	s.view.Store(v)
	return s
}

// New makes an FSM before any entry.
func New(cfg Config) *FSM {
	f := &FSM{onHalt: cfg.OnHalt, audit: cfg.Audit}
	if f.onHalt == nil {
		f.onHalt = func(error) {}
	}
	f.state.Store(newState(emptyView()))
	return f
}

// State gives the state as it is now; a Restore that goes back makes another.
func (f *FSM) State() *State { return f.state.Load() }

// View gives the newest version of the state.
func (f *FSM) View() *View { return f.State().View() }

// Err says why the FSM has halted, wrapping fault.ErrHalted; nil if it has not.
func (f *FSM) Err() error {
	if err := f.halted.Load(); err != nil {
		return *err
	}
	return nil
}

// Apply applies one log entry. It gives a []Result, one for each of the entry's commands, or one that says why
// the FSM has halted.
func (f *FSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies log entries in order, and makes their effect visible all at once. It gives what Apply gives,
// for each; nil for what is no command.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	plant.Dawdle(plant.AppliedIndex)
	out := make([]any, len(logs))
	err := f.Err()
	d := edit(f.View(), f.audit != nil)
	for i, l := range logs {
		if l.Type != raft.LogCommand {
			continue
		}
		var results []Result
		if err == nil {
			results, err = d.log(l)
		}
		if err != nil {
			results = []Result{{Err: err}}
		}
		out[i] = results
	}
	f.publish(d)
	f.halt(err)
	return out
}

// log applies one log entry, whole, or fails without a change.
func (d *draft) log(l *raft.Log) ([]Result, error) {
	if l.Index <= d.position {
		return nil, halt(fmt.Errorf("log entry %d came after %d", l.Index, d.position))
	}
	e, err := DecodeEntry(l.Data)
	if err != nil {
		return nil, halt(fmt.Errorf("log entry %d: %w", l.Index, err))
	}
	return d.entry(l.Index, e), nil
}

func (f *FSM) publish(d *draft) {
	if !d.changed {
		return
	}
	f.State().view.Store(d.finish())
	f.change.broadcast()
	f.handOver(d)
}

// halt stops the FSM for good, unless err is nil or it has stopped before.
func (f *FSM) halt(err error) {
	if err == nil || !f.halted.CompareAndSwap(nil, &err) {
		return
	}
	f.change.broadcast()
	f.onHalt(err)
}

func halt(err error) error { return fmt.Errorf("%w: %w", fault.ErrHalted, err) }

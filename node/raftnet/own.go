package raftnet

import (
	"errors"
	"sync"

	"github.com/hashicorp/raft"
)

var (
	errInstalling   = errors.New("a snapshot of another node is being installed")
	errOwnOvertaken = errors.New("a snapshot of another node has overtaken the one that was being taken")
	errOwnCloses    = errors.New("this node is finishing a snapshot of its own: send the snapshot again")
)

// FSM gives the state machine to start Raft with in place of inner. It sees to it that a snapshot that this node takes of
// itself never counts once one from another node has been installed: Raft would take the older of them for its last.
func (t *Transport) FSM(inner raft.BatchingFSM) raft.BatchingFSM {
	return machine{inner, &t.own}
}

// machine is a state machine whose snapshots give way to those of other nodes.
type machine struct {
	raft.BatchingFSM
	own *own
}

// Snapshot implements raft.FSM.
func (m machine) Snapshot() (raft.FSMSnapshot, error) {
	n, err := m.own.begin()
	if err != nil {
		return nil, err
	}
	inner, err := m.BatchingFSM.Snapshot()
	if err != nil {
		m.own.end(n)
		return nil, err
	}
	return &taking{inner, m.own, n}, nil
}

// taking is a snapshot that this node takes of itself. Raft releases it after it has noted it as its last.
type taking struct {
	raft.FSMSnapshot
	own *own
	n   uint64
}

// Persist implements raft.FSMSnapshot.
func (s *taking) Persist(sink raft.SnapshotSink) error {
	if err := s.FSMSnapshot.Persist(closing{sink, s}); err != nil {
		return err
	}
	return s.own.finish(s.n)
}

// Release implements raft.FSMSnapshot.
func (s *taking) Release() {
	s.FSMSnapshot.Release()
	s.own.end(s.n)
}

// closing is where a snapshot is written to. It counts once it is closed.
type closing struct {
	raft.SnapshotSink
	taking *taking
}

// Close implements io.Closer.
func (c closing) Close() error {
	if err := c.taking.own.finish(c.taking.n); err != nil {
		return err
	}
	return c.SnapshotSink.Close()
}

// own is the snapshot that this node takes of itself, of which Raft takes one at a time. One from another node puts an
// end to it until it is about to be closed, and has to wait from then on until Raft has noted it.
type own struct {
	mu sync.Mutex
	// begun counts them; taken is the number of the present one, 0 for none.
	begun, taken uint64
	finishing    bool
	// installing is set while Raft installs another node's.
	installing bool
}

// begin gives the number of a snapshot that is being taken from now on, until end.
func (o *own) begin() (n uint64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.installing {
		return 0, errInstalling
	}
	o.begun++
	o.taken, o.finishing = o.begun, false
	return o.taken, nil
}

// finish keeps other nodes' snapshots waiting until the end of this one, unless one has overtaken it.
func (o *own) finish(n uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.taken != n {
		return errOwnOvertaken
	}
	o.finishing = true
	return nil
}

func (o *own) end(n uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.taken == n {
		o.taken, o.finishing = 0, false
	}
}

// yield has one from another node overtake this node's own until resume.
func (o *own) yield() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.finishing {
		return errOwnCloses
	}
	o.taken, o.installing = 0, true
	return nil
}

func (o *own) resume() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.installing = false
}

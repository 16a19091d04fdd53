package raftstore_test

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/node/raftstore"
)

func entries(from, to uint64) (logs []*raft.Log) {
	for i := from; i <= to; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: 1})
	}
	return logs
}

// stores are those of a node with entries 1 to 10 of term 1.
func stores(t *testing.T) (*raft.InmemStore, *raft.InmemSnapshotStore) {
	t.Helper()
	logs := raft.NewInmemStore()
	if err := logs.StoreLogs(entries(1, 10)); err != nil {
		t.Fatal(err)
	}
	return logs, raft.NewInmemSnapshotStore()
}

// take writes a snapshot that ends with the given entry.
func take(t *testing.T, snapshots raft.SnapshotStore, index, term uint64) {
	t.Helper()
	sink, err := snapshots.Create(1, index, term, raft.Configuration{}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}

func wantSpan(t *testing.T, s raft.LogStore, wantFirst, wantLast uint64) {
	t.Helper()
	first, err := s.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if first != wantFirst || last != wantLast {
		t.Errorf("the log is %d to %d, want %d to %d", first, last, wantFirst, wantLast)
	}
}

var cases = []struct {
	name        string
	index, term uint64 // where the snapshot ends
	whenTaken   uint64 // the log's last entry once it was taken, 0 for an empty log
	whenOpened  uint64 // and once the stores were opened
}{
	{"the snapshot ends behind the log", 20, 2, 0, 0},
	{"the log has another entry where the snapshot ends", 5, 2, 10, 0}, // Raft knows by heart where its log ends
	{"the log has another last entry than the snapshot", 10, 2, 10, 0},
	{"a snapshot of the node's own", 5, 1, 10, 10},
	{"a snapshot of the whole log", 10, 1, 10, 10},
}

func TestWhatASnapshotOvertookGoesWithIt(t *testing.T) {
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			logs, inner := stores(t)
			_, snapshots, err := raftstore.Open(logs, logs, inner)
			if err != nil {
				t.Fatal(err)
			}
			take(t, snapshots, tc.index, tc.term)
			wantSpan(t, logs, min(tc.whenTaken, 1), tc.whenTaken)
		})
	}
}

func TestWhatASnapshotOvertookIsGoneOnceTheStoresAreOpen(t *testing.T) {
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			logs, inner := stores(t)
			take(t, inner, tc.index, tc.term) // and the node is killed
			if _, _, err := raftstore.Open(logs, logs, inner); err != nil {
				t.Fatal(err)
			}
			wantSpan(t, logs, min(tc.whenOpened, 1), tc.whenOpened)
		})
	}
}

// votes is a stable store that fails after some writes, as when a node is killed.
type votes struct {
	*raft.InmemStore
	left int
}

var errKilled = errors.New("killed")

func (v *votes) Set(key, value []byte) error {
	if v.left--; v.left < 0 {
		return errKilled
	}
	return v.InmemStore.Set(key, value)
}

func (v *votes) SetUint64(key []byte, value uint64) error {
	if v.left--; v.left < 0 {
		return errKilled
	}
	return v.InmemStore.SetUint64(key, value)
}

// A node that is killed while it votes has voted for that candidate, or not in that term.
func TestAVoteIsThereWholeOrNotAtAll(t *testing.T) {
	for killed := range 3 {
		logs, snapshots := stores(t)
		inner := &votes{InmemStore: logs, left: 2}
		stable, _, err := raftstore.Open(logs, inner, snapshots)
		if err != nil {
			t.Fatal(err)
		}
		vote := func(term uint64, candidate string) {
			_ = stable.SetUint64([]byte("LastVoteTerm"), term) // as Raft does
			_ = stable.Set([]byte("LastVoteCand"), []byte(candidate))
		}
		vote(1, "a")
		inner.left = killed
		vote(2, "b")
		term, err := stable.GetUint64([]byte("LastVoteTerm"))
		if err != nil {
			t.Fatal(err)
		}
		candidate, err := stable.Get([]byte("LastVoteCand"))
		if err != nil {
			t.Fatal(err)
		}
		if term == 2 && string(candidate) != "b" {
			t.Errorf("killed after %d writes: a vote in term 2 for %q", killed, candidate)
		}
		if killed == 2 && term != 2 {
			t.Errorf("a vote that was written whole is in term %d", term)
		}
	}
}

func TestOtherValuesPassThrough(t *testing.T) {
	logs, snapshots := stores(t)
	stable, _, err := raftstore.Open(logs, logs, snapshots)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stable.SetUint64([]byte("CurrentTerm"), 7), stable.Set([]byte("x"), []byte("y"))); err != nil {
		t.Fatal(err)
	}
	if term, err := logs.GetUint64([]byte("CurrentTerm")); err != nil || term != 7 {
		t.Errorf("term %d, %v", term, err)
	}
}

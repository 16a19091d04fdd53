package raftlog_test

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/node/raftlog"
)

func entries(from, to uint64) (logs []*raft.Log) {
	for i := from; i <= to; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: 1})
	}
	return logs
}

func open(t *testing.T, logs raft.LogStore, snapshots raft.SnapshotStore) *raftlog.Store {
	t.Helper()
	s, err := raftlog.Open(logs, snapshots)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// span gives the first and last index of s.
func span(t *testing.T, s raft.LogStore) (first, last uint64) {
	t.Helper()
	first, err := s.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	if last, err = s.LastIndex(); err != nil {
		t.Fatal(err)
	}
	return first, last
}

func TestEntriesThatFollowAreAppended(t *testing.T) {
	s := open(t, raft.NewInmemStore(), raft.NewInmemSnapshotStore())
	for _, logs := range [][]*raft.Log{entries(1, 10), entries(11, 20), entries(15, 16)} {
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
	}
	if first, last := span(t, s); first != 1 || last != 20 {
		t.Errorf("the log is %d to %d, want 1 to 20", first, last)
	}
}

func TestWhatASnapshotOvertookDoesNotStayBehindAGap(t *testing.T) {
	s := open(t, raft.NewInmemStore(), raft.NewInmemSnapshotStore())
	if err := s.StoreLogs(entries(1, 70)); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(&raft.Log{Index: 101, Term: 2}); err != nil {
		t.Fatal(err)
	}
	if first, last := span(t, s); first != 101 || last != 101 {
		t.Errorf("the log is %d to %d, want 101 alone", first, last)
	}
	if err := s.GetLog(70, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("an overtaken entry can still be read: %v", err)
	}
}

func TestALogCanStartAnywhere(t *testing.T) {
	s := open(t, raft.NewInmemStore(), raft.NewInmemSnapshotStore())
	if err := s.StoreLogs(entries(101, 103)); err != nil {
		t.Fatal(err)
	}
	if first, last := span(t, s); first != 101 || last != 103 {
		t.Errorf("the log is %d to %d, want 101 to 103", first, last)
	}
}

func TestALogThatTheSnapshotContradictsIsDropped(t *testing.T) {
	for _, tc := range []struct {
		name        string
		index, term uint64 // where the snapshot ends
		first, last uint64 // of the log, after it was opened
	}{
		{"another term where the snapshot ends", 5, 2, 0, 0},
		{"the same term", 5, 1, 1, 10},
		{"a snapshot that ends behind the log", 20, 2, 1, 10},
		{"a snapshot of the last entry", 10, 1, 1, 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			logs, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
			if err := logs.StoreLogs(entries(1, 10)); err != nil {
				t.Fatal(err)
			}
			sink, err := snapshots.Create(1, tc.index, tc.term, raft.Configuration{}, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := sink.Close(); err != nil {
				t.Fatal(err)
			}
			if first, last := span(t, open(t, logs, snapshots)); first != tc.first || last != tc.last {
				t.Errorf("the log is %d to %d, want %d to %d", first, last, tc.first, tc.last)
			}
		})
	}
}

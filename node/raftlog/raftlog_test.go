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
	s := raftlog.Wrap(raft.NewInmemStore())
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
	s := raftlog.Wrap(raft.NewInmemStore())
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
	s := raftlog.Wrap(raft.NewInmemStore())
	if err := s.StoreLogs(entries(101, 103)); err != nil {
		t.Fatal(err)
	}
	if first, last := span(t, s); first != 101 || last != 103 {
		t.Errorf("the log is %d to %d, want 101 to 103", first, last)
	}
}

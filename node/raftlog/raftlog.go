// Package raftlog keeps Raft's log in one piece.
//
// When hashicorp/raft 1.8.0 has installed a snapshot, it leaves a suffix that the node had and the snapshot
// overtook in the log store, and goes on behind a gap. If that node leads later and a follower needs entries from
// before the gap, it is sent the overtaken ones, lost ones among them, as committed.
//
// Everything before a gap is covered by the snapshot that made it, so it goes before the first entry behind the
// gap comes.
package raftlog

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// Store is a log store without gaps over one that may have them. It is as safe for concurrent use as that is.
type Store struct{ raft.LogStore }

// Wrap keeps what is stored in inner in one piece.
func Wrap(inner raft.LogStore) *Store { return &Store{LogStore: inner} }

// StoreLog implements raft.LogStore.
func (s *Store) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore. Entries that leave a gap behind the last one replace the whole log.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	if len(logs) > 0 {
		if err := s.closeGap(logs[0].Index); err != nil {
			return err
		}
	}
	return s.LogStore.StoreLogs(logs)
}

// closeGap drops the log if next does not follow on it. A crash in between leaves an empty log, and the snapshot
// that covers all that was in it.
func (s *Store) closeGap(next uint64) error {
	last, err := s.LastIndex()
	if err != nil || last == 0 || next <= last+1 {
		return err
	}
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	if err := s.DeleteRange(first, last); err != nil {
		return fmt.Errorf("drop log entries %d to %d, which a snapshot overtook: %w", first, last, err)
	}
	return nil
}

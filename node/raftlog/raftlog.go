// Package raftlog keeps Raft's log in one piece.
//
// When hashicorp/raft 1.8.0 has installed a snapshot, it leaves a suffix that the node had and the snapshot
// overtook in the log store, and goes on behind a gap. If that node leads later and a follower needs entries from
// before the gap, it is sent the overtaken ones, lost ones among them, as committed.
//
// Everything before a gap is covered by the snapshot that made it, so it goes before the first entry behind the
// gap comes.
//
// Where the suffix reaches past the snapshot there is no gap, and Raft goes on to judge by entries that were lost.
// Such a log goes when it is opened.
package raftlog

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// Store is a log store without gaps over one that may have them. It is as safe for concurrent use as that is.
type Store struct{ raft.LogStore }

// Open keeps what is stored in inner in one piece. It must come before Raft is started on inner and snapshots: it
// drops a log that the newest snapshot contradicts. All of such a log is either covered by the snapshot or follows
// on an entry that was lost.
func Open(inner raft.LogStore, snapshots raft.SnapshotStore) (*Store, error) {
	s := &Store{LogStore: inner}
	metas, err := snapshots.List()
	if err != nil {
		return nil, fmt.Errorf("list the snapshots: %w", err)
	}
	if len(metas) == 0 {
		return s, nil
	}
	end := metas[0] // newest first
	var log raft.Log
	switch err := inner.GetLog(end.Index, &log); {
	case errors.Is(err, raft.ErrLogNotFound):
		return s, nil
	case err != nil:
		return nil, fmt.Errorf("read log entry %d, where the snapshot ends: %w", end.Index, err)
	case log.Term == end.Term:
		return s, nil
	}
	if err := s.drop(); err != nil {
		return nil, err
	}
	return s, nil
}

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
	return s.drop()
}

// drop deletes the whole log, which a snapshot has overtaken.
func (s *Store) drop() error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	if err := s.DeleteRange(first, last); err != nil {
		return fmt.Errorf("drop log entries %d to %d, which a snapshot overtook: %w", first, last, err)
	}
	return nil
}

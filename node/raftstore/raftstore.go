// Package raftstore repairs, around any stores, what hashicorp/raft 1.8.0 does to a node's safety on its own disk.
//
// The faults, and what is done about each:
//
//   - When a snapshot has been installed, the entries that the node had before stay in the log, though some may have
//     been lost. If the node leads later, it sends them to members that are behind, as committed: at once, before it
//     has written anything itself. Here the log goes before the snapshot counts as there (Snapshots).
//   - Where the lost entries reach past the snapshot, Raft goes on to judge by them, and refuses what follows on the
//     snapshot. It keeps in memory where its log ends, so nothing but a start can clear that log: Open does, and
//     raftnet notices.
//   - A vote is written in two steps, the term before the candidate. A node killed in between has voted, in the new
//     term, for the candidate of an older one, and gives that one the vote without a look at its log. Here the term
//     comes last (Stable).
package raftstore

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// Open wraps the stores that Raft is then started on. It drops a log that the newest snapshot has overtaken, or
// contradicts: all of it is covered by the snapshot or follows on an entry that was lost.
func Open(logs raft.LogStore, stable raft.StableStore, snapshots raft.SnapshotStore) (*Stable, *Snapshots, error) {
	metas, err := snapshots.List()
	if err != nil {
		return nil, nil, fmt.Errorf("list the snapshots: %w", err)
	}
	s := &Snapshots{SnapshotStore: snapshots, logs: logs}
	if len(metas) > 0 { // newest first
		if err := s.clear(metas[0].Index, metas[0].Term); err != nil {
			return nil, nil, err
		}
	}
	return &Stable{StableStore: stable}, s, nil
}

// Snapshots is a snapshot store that clears the log of what a snapshot from another node has overtaken.
type Snapshots struct {
	raft.SnapshotStore
	logs raft.LogStore
}

// Create implements raft.SnapshotStore.
func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport,
) (raft.SnapshotSink, error) {
	inner, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	return &sink{SnapshotSink: inner, overtakes: func() error { return s.overtaken(index) }}, nil
}

// sink takes one snapshot.
type sink struct {
	raft.SnapshotSink
	overtakes func() error
}

// Close implements io.Closer: from then on the snapshot is there. A crash before the log is cleared is made good by
// Open.
func (s *sink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	return s.overtakes()
}

var _ io.Closer = (*sink)(nil)

// overtaken clears a log that ends before the snapshot does. One of this node's own never overtakes its log.
func (s *Snapshots) overtaken(index uint64) error {
	last, err := s.logs.LastIndex()
	if err != nil || last == 0 || last >= index {
		return err
	}
	return s.drop()
}

// clear drops a log that ends before the snapshot, or has another entry where that ends.
func (s *Snapshots) clear(index, term uint64) error {
	if err := s.overtaken(index); err != nil {
		return err
	}
	var log raft.Log
	switch err := s.logs.GetLog(index, &log); {
	case errors.Is(err, raft.ErrLogNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("read log entry %d, where the snapshot ends: %w", index, err)
	case log.Term == term:
		return nil
	}
	return s.drop()
}

func (s *Snapshots) drop() error {
	first, err := s.logs.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.logs.LastIndex()
	if err != nil {
		return err
	}
	if err := s.logs.DeleteRange(first, last); err != nil {
		return fmt.Errorf("drop log entries %d to %d, which a snapshot overtook: %w", first, last, err)
	}
	return nil
}

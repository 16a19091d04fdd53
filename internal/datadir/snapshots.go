package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	hclog "github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/plainfile"
)

// retain is how many snapshots are kept: the second is there for the day on which the first cannot be read.
const retain = 2

// Snapshots is raft's store of snapshot files, with what that leaves out: remains of unfinished snapshots are removed, a
// new one's directory is synced before the log before it goes, and damaged ones are not forgotten.
type Snapshots struct {
	*raft.FileSnapshotStore
	path string
}

// Snapshots opens the snapshots' directory and makes it if it is missing. Raft's own lines go to logger; nil for none.
// It must be called before raft runs on it.
func (d *Dir) Snapshots(logger hclog.Logger) (*Snapshots, error) {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	s := &Snapshots{path: d.file(snapshotsDir)}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("data directory %s: snapshots: %w", d.path, err)
	}
	var err error
	if s.FileSnapshotStore, err = raft.NewFileSnapshotStoreWithLogger(d.path, retain, logger); err != nil {
		return nil, fmt.Errorf("data directory %s: snapshots: %w", d.path, err)
	}
	return s, nil
}

// prepare makes the directory, for its owner alone, and removes what unfinished snapshots have left: raft only ever
// warns of them.
func (s *Snapshots) prepare() error {
	if err := os.Mkdir(s.path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := checkFolder(s.path); err != nil {
		return err
	}
	// The files in it have the modes that raft gives them.
	if err := os.Chmod(s.path, 0o700); err != nil { //nolint:gosec // a folder has to be entered
		return err
	}
	left, err := filepath.Glob(filepath.Join(s.path, "*"+tmpSuffix))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return errors.Join(err, plainfile.Sync(filepath.Dir(s.path)))
}

// Create starts a snapshot.
func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64,
	t raft.Transport,
) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(version, index, term, c, ci, t)
	if err != nil {
		return nil, err
	}
	return &syncedSink{SnapshotSink: sink, dir: filepath.Join(s.path, sink.ID())}, nil
}

// flushEvery is how much of a snapshot is written before it is made durable. The log's own syncs may have to wait for what
// else a disk has to write: all of a large snapshot at its end would hold writes up.
const flushEvery = 4 << 20

// syncedSink makes a snapshot durable as it is written, and the names inside its directory too. raft syncs the files and
// the directory above, and drops the log on their strength.
type syncedSink struct {
	raft.SnapshotSink
	dir      string
	unsynced int
	closed   bool
	err      error
}

// Write adds to the snapshot.
func (s *syncedSink) Write(b []byte) (int, error) {
	n, err := s.SnapshotSink.Write(b)
	if s.unsynced += n; err == nil && s.unsynced >= flushEvery {
		s.unsynced = 0
		err = plainfile.Sync(filepath.Join(s.dir+tmpSuffix, "state.bin"))
	}
	return n, err
}

// Close completes the snapshot. Without an error it outlives a power loss. Called again, it gives the same answer.
func (s *syncedSink) Close() error {
	if s.closed {
		return s.err
	}
	s.closed = true
	if s.err = s.SnapshotSink.Close(); s.err == nil {
		s.err = plainfile.Sync(s.dir)
	}
	return s.err
}

// Cancel gives the snapshot up. After Close it does nothing.
func (s *syncedSink) Cancel() error {
	s.closed = true
	return s.SnapshotSink.Cancel()
}

// Newest gives the index of the newest snapshot that was ever completed and is still there, readable or not; 0 for none.
func (s *Snapshots) Newest() (uint64, error) {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return 0, err
	}
	var newest uint64
	for _, e := range entries {
		// term-index-milliseconds
		parts := strings.Split(e.Name(), "-")
		if len(parts) != 3 || strings.HasSuffix(e.Name(), tmpSuffix) {
			continue
		}
		if index, err := strconv.ParseUint(parts[1], 10, 64); err == nil {
			newest = max(newest, index)
		}
	}
	return newest, nil
}

// Check says whether raft can start from logs and snaps without losing what this member has acknowledged. raft 1.8.0
// takes the newest snapshot that it can read and leaves out the others with a line in the log; where the entries
// after that one are gone, it panics, or, if the log is empty, goes on from the older state as if nothing had been.
//
// Every entry after the newest readable snapshot must be there and readable, at least up to the newest snapshot that
// there ever was. It reads that snapshot and those entries once.
func Check(logs raft.LogStore, snaps raft.SnapshotStore) error {
	from, want, err := start(snaps)
	if err != nil {
		return err
	}
	last, err := logs.LastIndex()
	if err != nil {
		return fmt.Errorf("the log: %w", err)
	}
	if last < want && from < want {
		return lost(fmt.Errorf("snapshot %d cannot be read, and the log ends at %d", want, last))
	}
	for i := from + 1; i <= last; i++ {
		err := logs.GetLog(i, new(raft.Log))
		if errors.Is(err, raft.ErrLogNotFound) {
			return lost(fmt.Errorf("the newest readable snapshot ends at %d, and log entry %d is missing, of %d", from, i, last))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// start gives where raft would start from, and the newest snapshot that should be there.
func start(snaps raft.SnapshotStore) (from, want uint64, err error) {
	list, err := snaps.List()
	if err != nil {
		return 0, 0, fmt.Errorf("the snapshots: %w", err)
	}
	if n, ok := snaps.(interface{ Newest() (uint64, error) }); ok {
		if want, err = n.Newest(); err != nil {
			return 0, 0, fmt.Errorf("the snapshots: %w", err)
		}
	}
	var unreadable error
	for _, m := range list {
		want = max(want, m.Index)
		if from == 0 {
			if err := readable(snaps, m.ID); err != nil {
				unreadable = errors.Join(unreadable, fmt.Errorf("snapshot %s: %w", m.ID, err))
			} else {
				from = m.Index
			}
		}
	}
	if len(list) > 0 && from == 0 {
		return 0, 0, lost(fmt.Errorf("no snapshot can be read: %w", unreadable))
	}
	return from, want, nil
}

// readable opens a snapshot, which compares its checksum.
func readable(snaps raft.SnapshotStore, id string) error {
	_, r, err := snaps.Open(id)
	if err != nil {
		return err
	}
	return r.Close()
}

func lost(cause error) error {
	return fmt.Errorf("the snapshots and the log are %w: %w: stop the node, empty its data directory and let it join anew, "+
		"as a new member", ErrDamaged, cause)
}

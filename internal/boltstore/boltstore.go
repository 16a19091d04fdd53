package boltstore

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyquorum/keyquorum/internal/datadir/filelock"
)

// DefaultSyncLimit is how long a write may take unless Options say otherwise: far longer than a loaded disk needs, and short
// enough that a hanging one does not leave the cluster without a leader for long.
const DefaultSyncLimit = 10 * time.Second

// Options of a Store. The zero value works.
type Options struct {
	// SyncLimit is how long one durable write may take before OnHang is called; zero for DefaultSyncLimit.
	SyncLimit time.Duration
	// OnHang is called at most once, when the store is of no more use: a write took longer than SyncLimit, a write
	// failed, or a record turned out to be damaged. The error says which. The node has to end then; OnHang itself must
	// return soon, as it may run inside the call that failed. Nil: it is only logged.
	OnHang func(error)
	// Logger takes what an operator should know; nil for none.
	Logger *slog.Logger
	// Registerer takes the store's metrics until it is closed; nil for none.
	Registerer prometheus.Registerer
	// MustExist refuses to make a new store where the file is missing. A member that has had a store and starts with
	// an empty one has forgotten its vote.
	MustExist bool
}

// Store is a raft.LogStore and raft.StableStore in one file. It is safe for concurrent use.
//
// Get and GetUint64 give the error whose text is "not found" for a key that was never set, as raft expects.
type Store struct {
	*Watchdog
	checked *checked
}

// Open opens the store at path, or makes one if there is none; its directory must exist. The error wraps ErrInUse,
// ErrDamaged, ErrFormat or ErrMissing where that is the reason; then nothing was changed.
func Open(path string, o Options) (*Store, error) {
	if o.SyncLimit == 0 {
		o.SyncLimit = DefaultSyncLimit
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	alarm := once(func(err error) {
		o.Logger.Error("the Raft store is of no more use", "error", err)
		if o.OnHang != nil {
			o.OnHang(err)
		}
	})
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("boltstore: %w", err)
	}
	c := &checked{path: path, alarm: alarm, metrics: m}
	if err := c.open(o.MustExist); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return &Store{Watchdog: Watch(c, o.SyncLimit, alarm), checked: c}, nil
}

// Close waits for what is under way and closes the file. Calls that come later give ErrClosed.
func (s *Store) Close() error { return s.checked.close() }

// open brings c to life: the lock first, then the survey, and only then bbolt.
func (c *checked) open(mustExist bool) error {
	_, err := os.Lstat(c.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && mustExist:
		return fmt.Errorf("boltstore: %s is %w, and with it what this member has voted and acknowledged: put it back, or %s",
			c.path, ErrMissing, remedy(c.path))
	case errors.Is(err, fs.ErrNotExist):
		err = create(c.path)
	}
	if err != nil {
		return err
	}
	if c.file, err = os.OpenFile(c.path, os.O_RDWR, 0); err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	if err = c.load(); err != nil {
		return errors.Join(err, c.abandon())
	}
	return nil
}

// load checks the file and hands it to bbolt.
func (c *checked) load() error {
	switch err := filelock.Try(c.file); {
	case errors.Is(err, filelock.ErrHeld):
		return fmt.Errorf("boltstore: %s is %w: stop that one first", c.path, ErrInUse)
	case err != nil:
		return fmt.Errorf("boltstore: %w", err)
	}
	found, err := c.survey()
	switch {
	case errors.Is(err, ErrFormat):
		return fmt.Errorf("boltstore: %s: %w", c.path, err)
	case err != nil:
		return damaged(c.path, "the file", err)
	}
	log, behind, err := found.entries()
	if err != nil {
		return damaged(c.path, "the end of the log", err)
	}
	c.log.Store(&log)
	c.stable.Store(&found.stable)
	if err := c.connect(); err != nil || behind == 0 {
		return err
	}
	return c.drop(log.last()+1, behind)
}

// survey looks the file over. A file whose parts cannot be made sense of must not end the process either.
func (c *checked) survey() (found survey, err error) {
	err = contain(func() (err error) {
		found, err = surveyFile(c.file)
		return err
	})
	return found, err
}

// connect gives the open and locked file to bbolt.
func (c *checked) connect() error {
	bo := boltOptions()
	bo.OpenFile = func(string, int, fs.FileMode) (*os.File, error) { return c.file, nil }
	err := c.bolt(func() (err error) {
		c.conn, err = raftboltdb.New(raftboltdb.Options{Path: c.path, BoltOptions: bo})
		return err
	})
	var p *panicError
	switch {
	case errors.As(err, &p):
		return damaged(c.path, "the file", err)
	case err != nil:
		return fmt.Errorf("boltstore: opening %s: %w", c.path, err)
	}
	return nil
}

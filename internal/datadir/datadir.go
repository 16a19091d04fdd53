// Package datadir looks after the directory in which one member keeps all it must not lose. Raft is safe only as
// long as a member remembers: a term it voted in, an entry it acknowledged. So the directory is one member's
// identity, and what it says can be believed or is refused:
//
//   - one process at a time has it, by a lock that goes with the process;
//   - node.json has the format and the member's UUID under a checksum, and is replaced whole or not at all. An empty
//     directory gets a new UUID: an emptied one comes back as a new member and never as the old one without its memory.
//     A directory that lost node.json or the store alone is refused for the same reason;
//   - proofs, one for each master key, show whether the keyring of this start is the one of those before;
//   - snapshots and log must join: see Check;
//   - directory and files are this process's user's, and nobody else may write to them. A file is a file: no link out of
//     the directory is followed, and no pipe waited for.
//
// Nothing is changed in a directory that is refused, the lock file and a message aside; one of a newer format is not
// even locked.
//
// The order at a start: Open, CheckKeyring, the store at RaftDB, StoreCreated, Snapshots, Check, then raft.
package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/keyquorum/keyquorum/internal/plainfile"
)

// Names inside the directory.
const (
	lockFile     = "lock"
	identityFile = "node.json"
	storeFile    = "raft.db"
	auditDir     = "audit"
	snapshotsDir = "snapshots" // raft.FileSnapshotStore gives this name
)

var (
	// ErrInUse says that another process has the directory.
	ErrInUse = errors.New("in use")
	// ErrFormat says that a newer version of this program wrote the directory. Nothing was changed in it.
	ErrFormat = errors.New("of a newer format")
	// ErrDamaged says that the directory is not what this member left.
	ErrDamaged = errors.New("damaged")
	// ErrPermissions says that the directory, or what is in it, is another user's, or that others may write to it.
	ErrPermissions = errors.New("open to others")
)

// Options of a Dir. The zero value works.
type Options struct {
	// Logger takes what an operator should know; nil for none.
	Logger *slog.Logger
	// Now dates a new identity; nil for time.Now.
	Now func() time.Time
}

// Dir is a data directory, held for this process. Its methods are not for concurrent use, ID and the paths aside.
type Dir struct {
	path   string
	lock   *os.File
	log    *slog.Logger
	id     identity
	isNew  bool
	closed bool
}

// Open takes the data directory at path, and makes it if it is missing; its parent must exist. The error says what is
// wrong and what to do, and wraps ErrInUse, ErrFormat, ErrDamaged or ErrPermissions where that is the reason.
func Open(path string, o Options) (*Dir, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", path, err)
	}
	d := &Dir{path: abs, log: o.Logger}
	if err := d.open(o.Now); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", abs, errors.Join(err, d.Close()))
	}
	return d, nil
}

func (d *Dir) open(now func() time.Time) error {
	if err := d.ensure(); err != nil {
		return err
	}
	// A newer format comes first: its lock may be another.
	if _, err := readIdentity(d.file(identityFile)); errors.Is(err, ErrFormat) {
		return err
	}
	if err := d.hold(); err != nil {
		return err
	}
	id, err := readIdentity(d.file(identityFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d.found(now())
	case err != nil:
		return err
	}
	d.id = id
	return d.checkStore()
}

// ensure makes the directory, or looks at the one that is there.
func (d *Dir) ensure() error {
	info, err := os.Stat(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return d.make()
	}
	if err != nil {
		return fmt.Errorf("it cannot be read: %w", err)
	}
	if !info.IsDir() {
		return errors.New("it is not a directory: name one, or a path where it can be made")
	}
	if err := checkOwn(d.path, info); err != nil {
		return err
	}
	if info.Mode().Perm()&0o055 != 0 {
		d.log.Warn("others than its owner can read the data directory: mode 0700 is enough", "path", d.path)
	}
	return nil
}

func (d *Dir) make() error {
	if err := os.Mkdir(d.path, 0o700); err != nil {
		return fmt.Errorf("it cannot be made, and its parent must exist: %w", err)
	}
	return plainfile.Sync(filepath.Dir(d.path))
}

// found gives an empty directory an identity.
func (d *Dir) found(now time.Time) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("it cannot be read: %w", err)
	}
	for _, e := range entries {
		switch e.Name() {
		case lockFile, identityFile + tmpSuffix, "lost+found":
		default:
			return fmt.Errorf("it is %w: %s is gone and %s is there: put %[2]s back, or, if this is a former member, "+
				"empty the directory and let it join anew, as a new member; if it is not Keyquorum's, name another directory",
				ErrDamaged, identityFile, e.Name())
		}
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return err
	}
	d.isNew = true
	return d.save(identity{Format: Format, ID: id.String(), Created: now.UTC().Truncate(time.Second)})
}

// checkStore sees to it that a member which has had a store still has it.
func (d *Dir) checkStore() error {
	info, err := os.Lstat(d.RaftDB())
	switch {
	case err == nil:
		if err := checkFile(d.RaftDB(), info); err != nil {
			return err
		}
		return d.StoreCreated() // as a crash may have come before it
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case d.id.Store:
		return fmt.Errorf("it is %w: %s is gone, and with it what this member has voted and acknowledged: put it back, or "+
			"empty the directory and let it join anew, as a new member", ErrDamaged, storeFile)
	}
	return nil
}

// StoreCreated notes that the store at RaftDB exists. From then on a directory without it is refused. It is called after
// each opening of the store, and does nothing once that is noted.
func (d *Dir) StoreCreated() error {
	if d.id.Store {
		return nil
	}
	next := d.id
	next.Store = true
	return d.save(next)
}

// ID gives the member's UUID.
func (d *Dir) ID() string { return d.id.ID }

// New says whether Open made the identity.
func (d *Dir) New() bool { return d.isNew }

// Path gives the directory's absolute path.
func (d *Dir) Path() string { return d.path }

// RaftDB gives the path of the store for Raft's log, term and vote.
func (d *Dir) RaftDB() string { return d.file(storeFile) }

// Audit gives the path of the folder for audit files.
func (d *Dir) Audit() string { return d.file(auditDir) }

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }

// Close gives the directory back. What else has files open in it is closed before.
func (d *Dir) Close() error {
	if d.lock == nil || d.closed {
		return nil
	}
	d.closed = true
	return d.lock.Close()
}

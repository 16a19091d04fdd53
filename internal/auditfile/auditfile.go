// Package auditfile keeps a node's audit records in a folder of files, one JSON line a record, for as long as the operator
// wants them.
//
// A file begins with a line that says which record is its first, and the hash that this one is chained to; then it has
// the records, without a gap. It is named after its first record. Where records are missing between two files, a node
// that got a snapshot may not have them yet: they are filled in by a file of their own.
//
// What is written is on the disk when Append returns. A line that a crash has cut short is dropped at the next opening; the
// log, or another node, brings its record again. A file that is not as it was written is kept, renamed, for whoever
// wants to know, and its records are got from another node.
package auditfile

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/plainfile"
)

const (
	// Suffix is that of the files that are in use.
	Suffix = ".jsonl"
	// badSuffix is added to the name of one that is not as it was written.
	badSuffix = ".bad"
	// DefaultMaxSize is how large a file grows.
	DefaultMaxSize = 64 << 20
)

// Options of a Store. The zero value works.
type Options struct {
	// MaxSize is the size in bytes past which a new file is begun; DefaultMaxSize if zero.
	MaxSize int64
	// Keep is the number of files that are kept, the oldest go first; all if zero.
	Keep int
	// Logger takes what an operator should know; nil for none.
	Logger *slog.Logger
	// Open opens a file for writing, for tests of disks that fail; nil for the real one.
	Open func(path string) (File, error)
}

// File is what a Store writes to.
type File interface {
	WriteAt(b []byte, at int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// Store is a folder of files. Its methods are safe for concurrent use.
type Store struct {
	dir string
	o   Options

	mu sync.Mutex
	// segments are in order.
	segments []segment
	// tail writes to the last of them; nil until something is written.
	tail File
	// torn is set where a failed write may have left something behind the tail's end.
	torn bool
}

// segment is one file.
type segment struct {
	path string
	// before is the head that its first record follows, last that of its last record.
	before, last audit.Head
	size         int64
}

// Open opens the folder, which is made if it is missing, and looks through what is in it: the newest file line by line, the
// older ones at both ends.
func Open(dir string, o Options) (*Store, error) {
	if o.MaxSize == 0 {
		o.MaxSize = DefaultMaxSize
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Open == nil {
		o.Open = openFile
	}
	s := &Store{dir: dir, o: o}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("audit files in %s: %w", dir, err)
	}
	return s, nil
}

func openFile(path string) (File, error) {
	return plainfile.OpenFile(path, os.O_RDWR, 0o600)
}

func (s *Store) open() error {
	if err := plainfile.MakeDir(s.dir); err != nil {
		return err
	}
	if err := os.Chmod(s.dir, 0o700); err != nil { //nolint:gosec // a folder has to be entered
		return err
	}
	paths, err := Files(s.dir)
	if err != nil {
		return err
	}
	for i, path := range paths {
		if err := s.take(path, i == len(paths)-1); err != nil {
			return err
		}
	}
	return nil
}

// Files gives the audit files of a folder, in the order of their records.
func Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), Suffix) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(paths) // the numbers in their names have leading zeros
	return paths, nil
}

// take adds a file that is there at the opening. One that is of no use is set aside.
func (s *Store) take(path string, newest bool) error {
	g, err := inspect(path, newest, s.o.Logger)
	if errors.Is(err, errEmpty) {
		return os.Remove(path) // begun, and nothing came of it
	}
	if err == nil && len(s.segments) > 0 {
		err = joins(&s.segments[len(s.segments)-1], &g)
	}
	if faulty, ok := errors.AsType[*FaultyError](err); ok {
		return s.setAside(path, faulty)
	}
	if err != nil {
		return err
	}
	s.segments = append(s.segments, g)
	return nil
}

// joins tells whether a file can follow another, with or without a gap.
func joins(a, b *segment) error {
	if a.last.Sequence > b.before.Sequence || a.last.Sequence == b.before.Sequence && a.last.Hash != b.before.Hash {
		return &FaultyError{Path: b.path, Err: errors.New("it does not follow the file before it")}
	}
	return nil
}

// FaultyError says that a file is not as it was written.
type FaultyError struct {
	Path string
	Err  error
}

func (e *FaultyError) Error() string { return e.Path + ": " + e.Err.Error() }

func (e *FaultyError) Unwrap() error { return e.Err }

// setAside renames a file that is not as it was written: it is kept, and used no more.
func (s *Store) setAside(path string, why error) error {
	to := path + badSuffix
	for i := 2; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s%s%d", path, badSuffix, i)
	}
	s.o.Logger.Error("an audit file is not as this node wrote it: it was changed, or the disk has failed; it is kept under another name, "+
		"and its records are got from another node", "error", why, "kept", to)
	return errors.Join(os.Rename(path, to), plainfile.Sync(s.dir))
}

// Dir is the folder.
func (s *Store) Dir() string { return s.dir }

// Head is the last record that is kept.
func (s *Store) Head() audit.Head {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head()
}

func (s *Store) head() audit.Head {
	if len(s.segments) == 0 {
		return audit.Head{}
	}
	return s.segments[len(s.segments)-1].last
}

// Gaps tells which records are missing before the last that is kept, the newest first. What was dropped for its age
// is not missing.
func (s *Store) Gaps() []audit.Gap {
	s.mu.Lock()
	defer s.mu.Unlock()
	var gaps []audit.Gap
	for i := len(s.segments) - 1; i >= 0; i-- {
		g, after := &s.segments[i], uint64(0)
		if i > 0 {
			after = s.segments[i-1].last.Sequence
		}
		if g.before.Sequence > after && !(i == 0 && s.full()) {
			gaps = append(gaps, audit.Gap{From: after + 1, To: g.before.Sequence, Last: g.before.Hash})
		}
	}
	return gaps
}

func (s *Store) full() bool { return s.o.Keep > 0 && len(s.segments) >= s.o.Keep }

// Close closes what is open.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closeTail()
}

func (s *Store) closeTail() error {
	if s.tail == nil {
		return nil
	}
	err := s.tail.Close()
	s.tail = nil
	return err
}

package auditfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/plainfile"
)

// Append keeps entries, which follow the given head, and are whole. Those that are kept already are passed over. Where there
// are some missing between what is kept and them, a new file is begun. When it returns without an error, they are on
// disk; otherwise nothing of them is kept, and the same can be tried again.
func (s *Store) Append(before audit.Head, entries []audit.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.agree(before, entries); err != nil {
		return err
	}
	head := s.head()
	for len(entries) > 0 && entries[0].Sequence <= head.Sequence {
		before, entries = entries[0].Head(), entries[1:]
	}
	if len(entries) == 0 {
		return nil
	}
	if len(s.segments) == 0 || before != head || s.segments[len(s.segments)-1].size >= s.o.MaxSize {
		return s.begin(before, entries)
	}
	return s.extend(entries)
}

// agree sets the newest file aside where the state says that its last record is another one.
func (s *Store) agree(before audit.Head, entries []audit.Entry) error {
	for len(s.segments) > 0 {
		head := s.head()
		if head == before || head.Sequence < before.Sequence || !contradicts(head, before, entries) {
			return nil
		}
		last := s.segments[len(s.segments)-1]
		if err := errors.Join(s.closeTail(), s.setAside(last.path, errOther)); err != nil {
			return err
		}
		s.segments = s.segments[:len(s.segments)-1]
	}
	return nil
}

var errOther = errors.New("its last record is not the one that the cluster has")

// contradicts tells whether the head of what is kept has another hash by what has come.
func contradicts(head, before audit.Head, entries []audit.Entry) bool {
	if head.Sequence == before.Sequence {
		return head.Hash != before.Hash
	}
	for i := range entries {
		if entries[i].Sequence == head.Sequence {
			return entries[i].Hash != head.Hash
		}
	}
	return false
}

// extend writes behind the last record of the newest file.
func (s *Store) extend(entries []audit.Entry) error {
	g := &s.segments[len(s.segments)-1]
	if err := s.openTail(g); err != nil {
		return err
	}
	text, err := lines(nil, entries)
	if err != nil {
		return err
	}
	s.torn = true
	if _, err := s.tail.WriteAt(text, g.size); err != nil {
		return s.failed(g, err)
	}
	if err := s.tail.Sync(); err != nil {
		return s.failed(g, err)
	}
	s.torn = false
	g.size += int64(len(text))
	g.last = entries[len(entries)-1].Head()
	return nil
}

// openTail opens the newest file, and cuts off what a failed write has left behind its end.
func (s *Store) openTail(g *segment) error {
	if s.tail == nil {
		tail, err := s.o.Open(g.path)
		if err != nil {
			return fmt.Errorf("open audit file: %w", err)
		}
		s.tail = tail
	}
	if s.torn {
		if err := s.tail.Truncate(g.size); err != nil {
			return fmt.Errorf("write %s: %w", g.path, err)
		}
		s.torn = false
	}
	return nil
}

// failed cuts off what a failed write has left, if that can be done; else it is done before the next.
func (s *Store) failed(g *segment, err error) error {
	if s.tail.Truncate(g.size) == nil {
		s.torn = false
	}
	return fmt.Errorf("write %s: %w", g.path, err)
}

func lines(b []byte, entries []audit.Entry) ([]byte, error) {
	var err error
	for i := range entries {
		if b, err = audit.AppendLine(b, &entries[i]); err != nil {
			return nil, fmt.Errorf("audit record %d: %w", entries[i].Sequence, err)
		}
	}
	return b, nil
}

// begin makes a new file, behind all others. Entries that do not follow what is kept leave a gap, and the file says so.
func (s *Store) begin(before audit.Head, entries []audit.Entry) error {
	h := audit.Header{First: before.Sequence + 1, Previous: before.Hash}
	if head := s.head(); head.Sequence < before.Sequence {
		h.MissingFrom = head.Sequence + 1
		s.o.Logger.Warn("the audit files have a gap, which is filled from other nodes as far as they have the records",
			"from", h.MissingFrom, "to", before.Sequence)
	}
	g, err := s.make(h, entries)
	if err != nil {
		return err
	}
	err = s.closeTail()
	s.torn = false
	s.segments = append(s.segments, g)
	s.prune()
	if err != nil {
		s.o.Logger.Warn("an audit file could not be closed", "error", err)
	}
	return nil
}

// make writes a whole file. There is nothing at its path that is still of use.
func (s *Store) make(h audit.Header, entries []audit.Entry) (segment, error) {
	g := segment{path: filepath.Join(s.dir, fmt.Sprintf("%020d%s", h.First, Suffix)), before: h.Before()}
	text, err := lines(audit.AppendHeader(nil, h), entries)
	if err != nil {
		return g, err
	}
	if err := s.writeNew(g.path, text); err != nil {
		return g, fmt.Errorf("begin an audit file: %w", err)
	}
	g.size, g.last = int64(len(text)), entries[len(entries)-1].Head()
	return g, nil
}

// writeNew makes a file with the text, through Options.Open so that it fails as other writes do. A crash on the way leaves
// one without a whole record, or with some of them, which is as good.
func (s *Store) writeNew(path string, text []byte) (err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an attempt that failed
		return err
	}
	if err := plainfile.WriteNew(path, nil, 0o600); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	f, err := s.o.Open(path)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// prune drops the oldest files beyond those that are to be kept.
func (s *Store) prune() {
	for s.o.Keep > 0 && len(s.segments) > s.o.Keep {
		if err := os.Remove(s.segments[0].path); err != nil {
			s.o.Logger.Warn("an audit file could not be removed for its age", "error", err)
			return
		}
		s.segments = s.segments[1:]
	}
}

// Fill keeps entries that are missing, which follow the given head, and are whole. They must not overlap with what is kept.
func (s *Store) Fill(before audit.Head, entries []audit.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := entries[len(entries)-1].Head()
	at := 0
	for at < len(s.segments) && s.segments[at].before.Sequence < last.Sequence {
		at++
	}
	if err := s.fits(at, before, last); err != nil {
		return err
	}
	g, err := s.make(audit.Header{First: before.Sequence + 1, Previous: before.Hash}, entries)
	if err != nil {
		return err
	}
	if at == len(s.segments) { // it is the newest from now on
		_ = s.closeTail() // all that was written is on disk
		s.torn = false
	}
	s.segments = slices.Insert(s.segments, at, g)
	s.prune()
	return nil
}

var errOverlap = errors.New("audit records to be filled in are there already, or do not join those that are")

// fits tells whether a file can stand before the segment at the place.
func (s *Store) fits(at int, before, last audit.Head) error {
	if at > 0 && s.segments[at-1].last.Sequence > before.Sequence {
		return errOverlap
	}
	if at < len(s.segments) && s.segments[at].before.Sequence == last.Sequence && s.segments[at].before.Hash != last.Hash {
		return errOverlap
	}
	if at > 0 && s.segments[at-1].last.Sequence == before.Sequence && s.segments[at-1].last.Hash != before.Hash {
		// What the cluster has is right; verify finds the first record that is not.
		s.o.Logger.Error("an audit file is not as the cluster has it", "file", s.segments[at-1].path, "record", before.Sequence)
	}
	return nil
}

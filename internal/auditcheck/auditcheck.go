// Package auditcheck finds out whether a node's audit files are what the cluster has on record, and if not, which record is
// the first that is not.
//
// The files alone tell what was changed without care: each record's hash is over it and the record before. Whoever
// recomputes the hashes too is found out by the head that the cluster agrees on; which record they began with, by
// comparing hashes with the cluster's, halving where it can be: chains that have the same hash at one record are the same up
// to it.
package auditcheck

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/plainfile"
)

// Truth tells the hash that the cluster has for a record; false where it has none, or cannot tell any more.
type Truth func(ctx context.Context, sequence uint64) (audit.Hash, bool, error)

// Options say what to check against.
type Options struct {
	// Head is what the cluster agreed on before the files were read.
	Head audit.Head
	// Truth is for finding the first record that is not the cluster's.
	Truth Truth
	// Partial takes it that the oldest records were dropped for their age.
	Partial bool
}

// Result is what was found.
type Result struct {
	// First and Last are the records that were read, up to the first fault.
	First, Last uint64
	// Fault is nil if all is good.
	Fault *Fault
}

// Fault is the first record that is not as it should be.
type Fault struct {
	audit.BrokenError
	// File and Line are where that showed; empty and 0 where nothing is there.
	File string
	Line int
}

// Check reads the files, which have to be all of a node's, in order.
func Check(ctx context.Context, paths []string, o Options) (Result, error) {
	s := &scan{partial: o.Partial}
	for _, path := range paths {
		if err := s.file(path); err != nil {
			return Result{}, err
		}
	}
	fault := s.judge()
	found, err := s.compare(ctx, o, fault)
	if err != nil {
		return Result{}, err
	}
	return Result{First: s.first, Last: s.head.Sequence, Fault: found}, nil
}

// scan is what the files tell by themselves.
type scan struct {
	partial bool
	// first is the first record, and hashes are those from it on, up to the first fault.
	first  uint64
	hashes []audit.Hash
	head   audit.Head
	// broken is where the chain breaks, if it does; after are the numbers of the records that follow there.
	broken *place
	after  []uint64
}

// place is a line.
type place struct {
	file string
	line int
	// sequence is the record that the line says it is; 0 if it does not say. joins says that it can be read.
	sequence uint64
	joins    bool
}

// file reads one file.
func (s *scan) file(path string) error {
	f, err := plainfile.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<16)
	for n := 1; ; n++ {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // a line without its end is being written, or was cut off: it is not there
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if n == 1 {
			s.header(path, text)
			continue
		}
		s.line(place{file: path, line: n}, text)
	}
}

// header takes the first line of a file.
func (s *scan) header(path string, text []byte) {
	if s.broken != nil {
		return
	}
	h, err := audit.ParseHeader(text)
	at := place{file: path, line: 1, sequence: h.First}
	switch {
	case err != nil:
		at.sequence = s.head.Sequence + 1
		s.broken = &at
	case s.first == 0:
		s.head, s.first = h.Before(), h.First
	case h.Before() != s.head:
		if h.First == s.head.Sequence+1 {
			at.joins = true // the record is there, and the hash before it is wrong
		}
		s.broken = &at
	}
}

// line takes a record.
func (s *scan) line(at place, text []byte) {
	var known bool
	if at.sequence, known = audit.SequenceOf(text); !known {
		at.sequence = 0
	}
	if s.broken != nil {
		s.after = append(s.after, at.sequence)
		return
	}
	e, err := audit.ParseLine(text)
	if err != nil {
		s.broken = &at
		return
	}
	at.sequence, at.joins = e.Sequence, true
	next, err := s.head.Follow([]audit.Entry{e})
	if err != nil {
		s.broken = &at
		return
	}
	s.head = next
	s.hashes = append(s.hashes, e.Hash)
}

// judge says what is wrong where the chain breaks, or begins too late; nil if nothing is.
func (s *scan) judge() *Fault {
	fault := func(sequence uint64, what audit.Fault) *Fault {
		f := &Fault{BrokenError: audit.BrokenError{Sequence: sequence, What: what}}
		if s.broken != nil && what != audit.Missing {
			f.File, f.Line = s.broken.file, s.broken.line
		}
		return f
	}
	if s.first > 1 && !s.partial {
		return fault(1, audit.Missing)
	}
	if s.broken == nil {
		return nil
	}
	want := s.head.Sequence + 1
	if s.broken.sequence == want || s.broken.sequence == 0 && !s.laterHas(want) {
		return fault(want, audit.Altered)
	}
	switch {
	case s.broken.line == 1 && len(s.after) > 0 && s.after[0] == want:
		return fault(want, audit.Altered) // the file's first line was
	case s.laterHas(want):
		return fault(want, audit.Swapped)
	case len(s.after) > 0 && s.after[0] == want+1 && s.broken.line > 1:
		return fault(want, audit.Altered) // its number was changed
	case len(s.after) == 0 && s.broken.sequence != want+1 && s.broken.line > 1:
		return fault(want, audit.Altered) // likewise, of the last
	}
	return fault(want, audit.Missing)
}

func (s *scan) laterHas(sequence uint64) bool { return slices.Contains(s.after, sequence) }

// hash gives the hash that the files have for a record that was read.
func (s *scan) hash(sequence uint64) audit.Hash { return s.hashes[sequence-s.first] }

// compare looks whether what was read up to the fault is what the cluster has. It gives the fault, or an earlier one.
func (s *scan) compare(ctx context.Context, o Options, fault *Fault) (*Fault, error) {
	if len(s.hashes) == 0 {
		return s.nothing(o, fault), nil
	}
	last, end := s.head.Sequence, o.Head
	if last < end.Sequence || fault != nil {
		hash, known, err := o.Truth(ctx, last)
		if err != nil {
			return nil, err
		}
		if known && hash != s.hash(last) {
			return s.bisect(ctx, o.Truth, last, fault)
		}
		if fault == nil {
			fault = &Fault{BrokenError: audit.BrokenError{Sequence: last + 1, What: audit.Truncated}}
		}
		return fault, nil
	}
	if end.Sequence >= s.first && s.hash(end.Sequence) != end.Hash {
		return s.bisect(ctx, o.Truth, end.Sequence, nil)
	}
	return s.beyond(ctx, o)
}

// nothing judges files in which no record could be read.
func (s *scan) nothing(o Options, fault *Fault) *Fault {
	if fault == nil && o.Head.Sequence > 0 {
		fault = &Fault{BrokenError: audit.BrokenError{Sequence: 1, What: audit.Truncated}}
	}
	return fault
}

// beyond judges what came after the head was agreed on: the cluster has to have it as well by now.
func (s *scan) beyond(ctx context.Context, o Options) (*Fault, error) {
	last := s.head.Sequence
	if last == o.Head.Sequence {
		return nil, nil //nolint:nilnil // nothing is wrong
	}
	hash, known, err := o.Truth(ctx, last)
	if err != nil || known && hash == s.hash(last) {
		return nil, err
	}
	fault, err := s.bisect(ctx, func(ctx context.Context, sequence uint64) (audit.Hash, bool, error) {
		hash, known, err := o.Truth(ctx, sequence)
		return hash, known || sequence > o.Head.Sequence, err // one that the cluster has not got is another one
	}, last, nil)
	if fault != nil && !known {
		fault.What = audit.Invented
	}
	return fault, err
}

// bisect finds the first record of those up to the last whose hash is not the cluster's. Where the chain breaks right behind
// it, that one was changed, with its hash; otherwise all from it on were made to match.
func (s *scan) bisect(ctx context.Context, truth Truth, last uint64, fault *Fault) (*Fault, error) {
	var failed error
	n := sort.Search(int(last-s.first), func(i int) bool {
		if failed != nil {
			return true
		}
		hash, known, err := truth(ctx, s.first+uint64(i))
		failed = err
		return known && hash != s.hash(s.first+uint64(i))
	})
	if failed != nil {
		return nil, failed
	}
	sequence, what := s.first+uint64(n), audit.Rewritten
	if fault != nil && fault.Sequence == sequence+1 && fault.What == audit.Altered {
		what = audit.Altered
	}
	return &Fault{BrokenError: audit.BrokenError{Sequence: sequence, What: what}}, nil
}

package auditfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/plainfile"
)

// maxLine is more than any line has.
const maxLine = 1 << 20

var errEmpty = errors.New("it has no record")

// inspect looks through a file at the opening: wholly, or at both ends. What a crash has left behind the last whole line is
// cut off.
func inspect(path string, wholly bool, log *slog.Logger) (segment, error) {
	f, err := plainfile.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return segment{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return segment{}, err
	}
	if info, err = closed(f, info, log); err != nil {
		return segment{}, err
	}
	g := segment{path: path, size: info.Size()}
	if err := g.mend(f, log); err != nil {
		return g, err
	}
	if wholly {
		err = g.scan(f)
	} else {
		err = g.ends(f)
	}
	return g, err
}

// closed takes from others what they may do with a file that was copied, say, without its mode.
func closed(f *os.File, info fs.FileInfo, log *slog.Logger) (fs.FileInfo, error) {
	if info.Mode().Perm()&0o077 != 0 {
		log.Warn("others than its owner could read an audit file: they cannot any more", "file", f.Name(), "mode", info.Mode())
		if err := f.Chmod(0o600); err != nil {
			return nil, err
		}
		var err error
		if info, err = f.Stat(); err != nil {
			return nil, err
		}
	}
	return info, plainfile.Private(f.Name(), info)
}

// mend cuts off a last line without its line feed.
func (g *segment) mend(f *os.File, log *slog.Logger) error {
	end, err := lineEnd(f, g.size)
	if err != nil || end == g.size {
		return err
	}
	log.Warn("an audit file ends in the middle of a record, as after a crash: that is cut off, and comes again", "file", g.path, "bytes", g.size-end)
	if err := errors.Join(f.Truncate(end), f.Sync()); err != nil {
		return err
	}
	g.size = end
	return nil
}

// lineEnd gives the place behind the last line feed before size.
func lineEnd(f io.ReaderAt, size int64) (int64, error) {
	const step = 4096
	b := make([]byte, step)
	for size > 0 {
		from := max(0, size-step)
		part := b[:size-from]
		if _, err := f.ReadAt(part, from); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return from + int64(i) + 1, nil
		}
		size = from
	}
	return 0, nil
}

func (g *segment) faulty(err error) error { return &FaultyError{Path: g.path, Err: err} }

// scan reads all lines, and checks that each follows the one before.
func (g *segment) scan(f io.ReaderAt) error {
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, g.size), 1<<16)
	if err := g.header(r); err != nil {
		return err
	}
	g.last = g.before
	for {
		text, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return g.some()
		case errors.Is(err, bufio.ErrBufferFull):
			text, err = longLine(r, text)
		}
		if err != nil {
			return err
		}
		e, err := audit.ParseLine(text)
		if err != nil {
			return g.faulty(fmt.Errorf("after record %d: %w", g.last.Sequence, err))
		}
		if g.last, err = g.last.Follow([]audit.Entry{e}); err != nil {
			return g.faulty(err)
		}
	}
}

// longLine reads the rest of a line that did not fit the buffer.
func longLine(r *bufio.Reader, begun []byte) ([]byte, error) {
	text := bytes.Clone(begun)
	for len(text) < maxLine {
		more, err := r.ReadSlice('\n')
		text = append(text, more...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return text, err
		}
	}
	return text, nil // no line is that long: it does not parse
}

func (g *segment) header(r *bufio.Reader) error {
	text, err := r.ReadSlice('\n')
	if errors.Is(err, io.EOF) {
		return errEmpty
	}
	if err != nil {
		return g.faulty(err)
	}
	h, err := audit.ParseHeader(text)
	if err != nil {
		return g.faulty(err)
	}
	g.before = h.Before()
	return nil
}

func (g *segment) some() error {
	if g.last == g.before {
		return errEmpty
	}
	return nil
}

// ends reads the first line and the last.
func (g *segment) ends(f io.ReaderAt) error {
	if err := g.header(bufio.NewReader(io.NewSectionReader(f, 0, g.size))); err != nil {
		return err
	}
	from, err := lineEnd(f, g.size-1)
	if err != nil {
		return err
	}
	if from == 0 {
		return errEmpty
	}
	text := make([]byte, min(g.size-from, maxLine))
	if _, err := f.ReadAt(text, from); err != nil {
		return err
	}
	e, err := audit.ParseLine(text)
	if err != nil {
		return g.faulty(fmt.Errorf("its last line: %w", err))
	}
	g.last = e.Head()
	return nil
}

// Read gives kept entries in order from the one with the number on, or else from the first after it, without a gap, and the
// head before them; about as many as have most bytes in the file, and one at least. None if there is none.
func (s *Store) Read(from uint64, most int) (before audit.Head, entries []audit.Entry, err error) {
	for range 3 {
		g, ok := s.find(from)
		if !ok {
			return audit.Head{}, nil, nil
		}
		before, entries, err = g.read(max(from, g.before.Sequence+1), most)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		// It went for its age: there is another first one now.
	}
	return before, entries, err
}

func (s *Store) find(from uint64) (segment, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.segments {
		if g.last.Sequence >= from {
			return g, true
		}
	}
	return segment{}, false
}

// read reads from a record that the file has.
func (g *segment) read(from uint64, most int) (before audit.Head, entries []audit.Entry, err error) {
	f, err := plainfile.OpenFile(g.path, os.O_RDONLY, 0)
	if err != nil {
		return before, nil, err
	}
	defer f.Close()
	at, err := g.seek(f, from-1)
	if err != nil {
		return before, nil, err
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, at, g.size-at), 1<<16)
	if before, err = g.beforeOf(r, from); err != nil {
		return before, nil, err
	}
	for read, seq := 0, from; read < most && seq <= g.last.Sequence; seq++ {
		text, err := r.ReadBytes('\n')
		if err != nil {
			return before, nil, g.faulty(err)
		}
		e, err := audit.ParseLine(text)
		if err != nil || e.Sequence != seq {
			return before, nil, g.faulty(fmt.Errorf("at record %d: %w", seq, errors.Join(err, errDisorder)))
		}
		entries, read = append(entries, e), read+len(text)
	}
	return before, entries, nil
}

var errDisorder = errors.New("it is not as it was written")

// beforeOf reads the line before the one of the record, which is the header or the record before.
func (g *segment) beforeOf(r *bufio.Reader, from uint64) (audit.Head, error) {
	text, err := r.ReadBytes('\n')
	if err != nil {
		return audit.Head{}, g.faulty(err)
	}
	if from == g.before.Sequence+1 {
		return g.before, nil
	}
	e, err := audit.ParseLine(text)
	if err != nil || e.Sequence != from-1 {
		return audit.Head{}, g.faulty(fmt.Errorf("at record %d: %w", from-1, errors.Join(err, errDisorder)))
	}
	return e.Head(), nil
}

// seek finds the place of the line of a record, or of the header where it is the one before the first. Lines are in order:
// it halves where the line can be, until little is left, and a scan finds the rest.
func (g *segment) seek(f io.ReaderAt, sequence uint64) (int64, error) {
	low, high := int64(0), g.size // the line begins in [low, high)
	for high-low > 1<<14 {
		middle := low + (high-low)/2
		at, seq, err := g.lineAfter(f, middle)
		switch {
		case err != nil:
			return 0, err
		case at >= high || seq > sequence:
			high = middle + 1
		default:
			low = at
		}
	}
	return g.walk(f, low, sequence)
}

// lineAfter gives the first line that begins after the place, and its record's number.
func (g *segment) lineAfter(f io.ReaderAt, place int64) (int64, uint64, error) {
	r := bufio.NewReader(io.NewSectionReader(f, place, g.size-place))
	skipped, err := r.ReadBytes('\n')
	if err != nil {
		return g.size, 0, nil //nolint:nilerr // no line begins after it
	}
	text, err := r.ReadBytes('\n')
	if err != nil {
		return g.size, 0, nil //nolint:nilerr // likewise
	}
	seq, ok := audit.SequenceOf(text)
	if !ok {
		return 0, 0, g.faulty(errDisorder)
	}
	return place + int64(len(skipped)), seq, nil
}

// walk goes from line to line.
func (g *segment) walk(f io.ReaderAt, at int64, sequence uint64) (int64, error) {
	if sequence == g.before.Sequence {
		return 0, nil
	}
	r := bufio.NewReader(io.NewSectionReader(f, at, g.size-at))
	for {
		text, err := r.ReadBytes('\n')
		if err != nil {
			return 0, g.faulty(errDisorder)
		}
		if seq, ok := audit.SequenceOf(text); ok && seq == sequence {
			return at, nil
		}
		at += int64(len(text))
	}
}

package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
)

// bbolt's file format, version 2, as far as it takes to look a file over without bbolt. Numbers are in the
// machine's byte order, and positions of keys and values count from the element that names them.
const (
	pageSize = 4096

	pageHead    = 16 // id 8 | flags 2 | count 2 | pages that follow 4
	elementSize = 16 // leaf: flags 4 | position 4 | key's size 4 | value's size 4; branch: position 4 | key's size 4 | page 8

	branchPage = 1
	leafPage   = 2
	metaPage   = 4

	bucketElement = 1
	bucketHead    = 16 // root page 8 (0: the page follows inline) | sequence 8

	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaSum     = 56 // where the checksum is, and how much of the meta it covers
	noFreelist  = ^uint64(0)
)

var native = binary.NativeEndian

// survey is what a look at the whole file found.
type survey struct {
	stable stable
	tail   []byte   // what the tail says
	keys   []uint64 // of the entries, in ascending order
}

// surveyFile checks a bolt file that nobody is writing to: its structure, which bbolt relies upon without looking, and
// then each entry of the log. It changes nothing.
func surveyFile(f *os.File) (survey, error) {
	info, err := f.Stat()
	if err != nil {
		return survey{}, err
	}
	w := &walker{r: f, seen: map[uint64]bool{}}
	root, err := w.metas(info.Size())
	if err != nil {
		return survey{}, err
	}
	var s survey
	err = w.tree(root, nil, nil, func(e element) error { return w.bucket(e, &s) })
	if err == nil && (s.stable == nil || s.tail == nil) {
		err = errors.New("the record of term and vote, or that of the last entry, is gone")
	}
	return s, err
}

// walker goes through the pages that can be reached.
type walker struct {
	r    io.ReaderAt
	high uint64 // the first page that is not in use
	seen map[uint64]bool
}

// metas reads both meta pages and gives the root's page. See the package comment for why both must be valid.
func (w *walker) metas(size int64) (root uint64, err error) {
	var txid [2]uint64
	var newest [metaSum]byte
	for i := range txid {
		m, err := readMeta(w.r, i)
		if err != nil {
			return 0, fmt.Errorf("meta page %d: %w", i, err)
		}
		if txid[i] = native.Uint64(m[48:]); txid[i] >= txid[0] {
			newest = m
		}
	}
	if txid[0]-txid[1] != 1 && txid[1]-txid[0] != 1 {
		return 0, fmt.Errorf("its meta pages are of the transactions %d and %d, which do not follow each other", txid[0], txid[1])
	}
	if native.Uint64(newest[32:]) != noFreelist {
		return 0, errors.New("it has a list of free pages, which this store does not write")
	}
	w.high = native.Uint64(newest[40:])
	if w.high > uint64(size)/pageSize {
		return 0, fmt.Errorf("it is cut off: %d bytes long, where %d pages of %d are in use", size, w.high, pageSize)
	}
	return native.Uint64(newest[16:]), nil
}

func readMeta(r io.ReaderAt, id int) (m [metaSum]byte, err error) {
	var p [pageHead + metaSum + checksumSize]byte
	if _, err := r.ReadAt(p[:], int64(id)*pageSize); err != nil {
		return m, fmt.Errorf("cannot be read: %w", err)
	}
	copy(m[:], p[pageHead:])
	h := fnv.New64a()
	h.Write(m[:])
	switch {
	case native.Uint32(m[0:]) != metaMagic || native.Uint64(p[0:]) != uint64(id) || native.Uint16(p[8:]) != metaPage:
		return m, errors.New("is none")
	case native.Uint64(p[pageHead+metaSum:]) != h.Sum64():
		return m, errors.New("its checksum does not match")
	case native.Uint32(m[4:]) != metaVersion || native.Uint32(m[8:]) != pageSize:
		return m, fmt.Errorf("has version %d and pages of %d bytes", native.Uint32(m[4:]), native.Uint32(m[8:]))
	}
	return m, nil
}

// page reads a page with those that belong to it. No page may come twice.
func (w *walker) page(id uint64) (page, error) {
	if id < 2 || id >= w.high {
		return nil, fmt.Errorf("page %d is outside of the file", id)
	}
	var head [pageHead]byte
	if _, err := w.r.ReadAt(head[:], int64(id)*pageSize); err != nil {
		return nil, err
	}
	n := 1 + uint64(native.Uint32(head[12:]))
	if native.Uint64(head[:]) != id || n > w.high-id {
		return nil, fmt.Errorf("page %d is another one", id)
	}
	for i := id; i < id+n; i++ {
		if w.seen[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		w.seen[i] = true
	}
	p := make(page, n*pageSize)
	_, err := w.r.ReadAt(p, int64(id)*pageSize)
	return p, err
}

// tree goes through the elements of the leaves under page id, whose keys must ascend from lo on and stay below hi
// (nil: no bound).
func (w *walker) tree(id uint64, lo, hi []byte, visit func(element) error) error {
	p, err := w.page(id)
	if err != nil {
		return err
	}
	elements, err := p.elements(lo, hi)
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	for i, e := range elements {
		if p.kind() == leafPage {
			err = visit(e)
		} else {
			below := hi
			if i+1 < len(elements) {
				below = elements[i+1].key
			}
			err = w.tree(e.child, e.key, below, visit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket goes through one of the two buckets that raft-boltdb keeps.
func (w *walker) bucket(e element, s *survey) error {
	if e.flags != bucketElement || len(e.value) < bucketHead {
		return fmt.Errorf("%q is no bucket", e.key)
	}
	visit := s.log
	switch string(e.key) {
	case "conf":
		visit = s.conf
	case "logs":
	default:
		return fmt.Errorf("%q is no bucket of this store", e.key)
	}
	if root := native.Uint64(e.value); root != 0 {
		return w.tree(root, nil, nil, visit)
	}
	return inline(e.value[bucketHead:], visit)
}

// inline goes through a bucket so small that its only page stands in its parent's.
func inline(p page, visit func(element) error) error {
	if len(p) < pageHead || p.kind() != leafPage {
		return errors.New("an inline bucket is no leaf")
	}
	elements, err := p.elements(nil, nil)
	for _, e := range elements {
		if err = visit(e); err != nil {
			break
		}
	}
	return err
}

// conf comes before the log, as buckets come by name: another format is seen before anything that it may have changed.
func (s *survey) conf(e element) error {
	if e.flags != 0 || string(e.key) != stableKey {
		return fmt.Errorf("%q is not in the stable store of this program", e.key)
	}
	var err error
	if s.stable, err = decodeStable(e.value); err != nil {
		return fmt.Errorf("the record of term and vote: %w", err)
	}
	return nil
}

func (s *survey) log(e element) error {
	if e.flags != 0 || len(e.key) != 8 {
		return fmt.Errorf("%q is no key of a log entry", e.key)
	}
	key := binary.BigEndian.Uint64(e.key)
	var raw, l raft.Log
	err := codec.NewDecoderBytes(e.value, &codec.MsgpackHandle{}).Decode(&raw) // as raft-boltdb does
	if err == nil {
		err = decodeEntry(raw.Data, key, &l)
	}
	switch {
	case err != nil:
		return fmt.Errorf("log entry %d: %w", key, err)
	case key == tailIndex:
		s.tail = l.Data
	default:
		s.keys = append(s.keys, key)
	}
	return nil
}

// entries gives the entries up to the tail, and the last one behind it, if a crash cut their deletion short.
func (s *survey) entries() (log spans, behind uint64, err error) {
	if len(s.tail) != 8 {
		return nil, 0, errShape
	}
	last := binary.BigEndian.Uint64(s.tail)
	for _, k := range s.keys {
		if k <= last {
			log = log.add(k)
		} else {
			behind = k
		}
	}
	if log.last() != last {
		return nil, 0, fmt.Errorf("it ends at entry %d and should at %d", log.last(), last)
	}
	return log, behind, nil
}

// page is a page with its overflow.
type page []byte

func (p page) kind() uint16 { return native.Uint16(p[8:]) }

// element is a key with its value (leaf) or page (branch).
type element struct {
	flags      uint32
	key, value []byte
	child      uint64
}

// elements gives what is on the page, in bounds and in order.
func (p page) elements(lo, hi []byte) ([]element, error) {
	n := int(native.Uint16(p[10:]))
	if k := p.kind(); k != leafPage && (k != branchPage || n == 0) || pageHead+n*elementSize > len(p) {
		return nil, fmt.Errorf("kind %d with %d elements", k, n)
	}
	elements := make([]element, n)
	for i := range elements {
		e, err := p.element(i)
		if err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
		if i > 0 && bytes.Compare(elements[i-1].key, e.key) >= 0 ||
			lo != nil && bytes.Compare(e.key, lo) < 0 || hi != nil && bytes.Compare(e.key, hi) >= 0 {
			return nil, fmt.Errorf("element %d: its key is out of order", i)
		}
		elements[i] = e
	}
	return elements, nil
}

func (p page) element(i int) (element, error) {
	b := p[pageHead+i*elementSize:]
	var e element
	var pos, ksize, vsize uint64
	if p.kind() == leafPage {
		e.flags, vsize = native.Uint32(b), uint64(native.Uint32(b[12:]))
		pos, ksize = uint64(native.Uint32(b[4:])), uint64(native.Uint32(b[8:]))
	} else {
		e.child = native.Uint64(b[8:])
		pos, ksize = uint64(native.Uint32(b)), uint64(native.Uint32(b[4:]))
	}
	if pos < elementSize || pos+ksize+vsize > uint64(len(b)) {
		return element{}, errors.New("it points outside of the page")
	}
	e.key, e.value = b[pos:pos+ksize:pos+ksize], b[pos+ksize:pos+ksize+vsize]
	return e, nil
}

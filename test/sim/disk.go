package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// disk is what a member's process finds again when it is started anew. A write counts once it is synced, which takes
// time; a crash in the middle leaves all of it, a part, or nothing.
type disk struct {
	mu      sync.Mutex
	rng     *rand.Rand
	durable *image
	mounted *mount
	// held counts who keeps writes from coming back; opened is closed when nobody does any more.
	held   int
	opened chan struct{}
	// failing writes come back with an error.
	failing bool
	// lazy acknowledges writes before they are synced, which a disk must never do: for planted faults.
	lazy bool
	// slow gives how long a write of entries takes longer than others, and what is called once it is done; nil for no longer.
	slow func([]*raft.Log) (time.Duration, func())
	// lost counts writes that a crash took, waited those that were held back, and failed those that failed.
	lost, waited, failed int
}

// image is the content of a disk.
type image struct {
	logs      map[uint64]*raft.Log
	low, high uint64
	values    map[string][]byte
	numbers   map[string]uint64
	snapshots []snapshot // newest first
}

type snapshot struct {
	meta raft.SnapshotMeta
	data []byte
}

// change is one step of a write.
type change func(*image)

// batch is a write that is not synced yet.
type batch struct{ steps []change }

var errDisk = errors.New("input/output error")

func newDisk(rng *rand.Rand) *disk {
	return &disk{rng: rng, durable: newImage(), slow: func([]*raft.Log) (time.Duration, func()) { return 0, func() {} }}
}

func newImage() *image {
	return &image{logs: make(map[uint64]*raft.Log), values: make(map[string][]byte), numbers: make(map[string]uint64)}
}

func (i *image) clone() *image {
	return &image{
		logs: maps.Clone(i.logs), low: i.low, high: i.high,
		values: maps.Clone(i.values), numbers: maps.Clone(i.numbers), snapshots: slices.Clone(i.snapshots),
	}
}

func (i *image) apply(steps []change) {
	for _, step := range steps {
		step(i)
	}
}

// mount opens the disk for a new process.
func (d *disk) mount() *mount {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mounted = &mount{disk: d, seen: d.durable.clone(), turn: make(chan struct{}, 1), onFail: func(error) {}, onOlder: func(uint64, uint64) {}}
	return d.mounted
}

// crash ends the process that has the disk. What that process writes from then on reaches nobody, and never fails, so
// that what is left of it ends quickly.
func (d *disk) crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.mounted
	if m == nil {
		return
	}
	d.mounted = nil
	m.gone = true
	for n, b := range m.pending {
		kept := d.rng.IntN(len(b.steps) + 1)
		d.durable.apply(b.steps[:kept])
		if kept < len(b.steps) {
			d.lost += len(m.pending) - n
			break // nothing is kept that was written after something that was lost
		}
	}
	m.pending = nil
}

// unmount ends the orderly use of a disk: what was written comes to rest.
func (d *disk) unmount() {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.mounted
	if m == nil {
		return
	}
	d.mounted = nil
	m.gone = true
	for _, b := range m.pending {
		d.durable.apply(b.steps)
	}
	m.pending = nil
}

// wipe takes all that is on a disk that nobody has.
func (d *disk) wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable = newImage()
}

// hold keeps writes from coming back until release.
func (d *disk) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held++; d.held == 1 {
		d.opened = make(chan struct{})
	}
}

func (d *disk) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held--; d.held == 0 {
		close(d.opened)
		d.opened = nil
	}
}

func (d *disk) fail(yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failing = yes
}

// last gives the last entry that is synced.
func (d *disk) last() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.durable.high
}

// stumble is one slow write: of the entry that begins a leader's term, which no disk has before the leader's own.
type stumble struct {
	length time.Duration
	once   sync.Once
	// written is closed once it is done.
	written chan struct{}
}

// linger gives how long a write of entries takes longer than others, and what is to be called once it is done.
func (w *World) linger(logs []*raft.Log) (longer time.Duration, done func()) {
	done = func() {}
	s := w.stumble.Load()
	if s == nil || logs[0].Type != raft.LogNoop {
		return 0, done
	}
	s.once.Do(func() { longer, done = s.length, func() { close(s.written) } })
	return longer, done
}

// counts gives the writes that were lost, held back and failed so far.
func (d *disk) counts() (lost, waited, failed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost, d.waited, d.failed
}

// mount is a disk as one process sees it: a raft.LogStore and raft.StableStore. The disk's mutex guards it.
type mount struct {
	disk    *disk
	seen    *image
	pending []*batch
	// gone tells that the process has ended.
	gone bool
	// turn is held by who writes: one at a time.
	turn chan struct{}
	// onFail is told of a write that failed, onOlder of a snapshot that was finished after a newer one, of which both are
	// given by their last entries.
	onFail  func(error)
	onOlder func(older, newer uint64)
}

var (
	_ raft.LogStore    = (*mount)(nil)
	_ raft.StableStore = (*mount)(nil)
)

// write makes the changes, and comes back once they are synced.
func (m *mount) write(steps ...change) error {
	m.turn <- struct{}{}
	defer func() { <-m.turn }()
	b, wait, err := m.begin(steps)
	if b == nil {
		return err
	}
	time.Sleep(wait)
	for opened := m.blocked(); opened != nil; opened = m.blocked() {
		<-opened
	}
	return m.finish(b)
}

// begin puts a write on its way; no batch where there is nothing to wait for.
func (m *mount) begin(steps []change) (*batch, time.Duration, error) {
	d := m.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case m.gone:
		m.seen.apply(steps)
		return nil, 0, nil
	case d.failing:
		d.failed++
		m.onFail(errDisk)
		return nil, 0, errDisk
	}
	b := &batch{steps: steps}
	m.pending = append(m.pending, b)
	if d.lazy {
		m.seen.apply(steps)
		if len(m.pending) == 1 {
			time.AfterFunc(time.Duration(200+d.rng.IntN(3000))*time.Millisecond, m.flush)
		}
		return nil, 0, nil
	}
	return b, time.Duration(200+d.rng.IntN(3000)) * time.Microsecond, nil
}

// blocked gives what to wait for while the disk hangs. A process that has ended waits as well, as a real one would.
func (m *mount) blocked() chan struct{} {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if m.disk.opened != nil && !m.gone {
		m.disk.waited++
	}
	return m.disk.opened
}

func (m *mount) finish(b *batch) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	m.seen.apply(b.steps)
	if !m.gone {
		m.disk.durable.apply(b.steps)
		m.pending = slices.DeleteFunc(m.pending, func(o *batch) bool { return o == b })
	}
	return nil
}

// flush syncs what a lazy disk has acknowledged.
func (m *mount) flush() {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if m.gone {
		return
	}
	for _, b := range m.pending {
		m.disk.durable.apply(b.steps)
	}
	m.pending = nil
}

// read looks at the content as the process sees it.
func (m *mount) read(look func(*image)) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	look(m.seen)
}

// FirstIndex implements raft.LogStore.
func (m *mount) FirstIndex() (index uint64, _ error) {
	m.read(func(i *image) { index = i.low })
	return index, nil
}

// LastIndex implements raft.LogStore.
func (m *mount) LastIndex() (index uint64, _ error) {
	m.read(func(i *image) { index = i.high })
	return index, nil
}

// GetLog implements raft.LogStore.
func (m *mount) GetLog(index uint64, out *raft.Log) (err error) {
	m.read(func(i *image) {
		l, ok := i.logs[index]
		if !ok {
			err = raft.ErrLogNotFound
			return
		}
		*out = *l
	})
	return err
}

// StoreLog implements raft.LogStore.
func (m *mount) StoreLog(l *raft.Log) error { return m.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (m *mount) StoreLogs(logs []*raft.Log) error {
	steps := make([]change, len(logs))
	for n, l := range logs {
		kept := *l
		steps[n] = func(i *image) {
			i.logs[kept.Index] = &kept
			if i.low == 0 {
				i.low = kept.Index
			}
			i.high = max(i.high, kept.Index)
		}
	}
	longer, done := m.disk.slow(logs)
	time.Sleep(longer)
	defer done()
	return m.write(steps...)
}

// DeleteRange implements raft.LogStore.
func (m *mount) DeleteRange(from, to uint64) error {
	return m.write(func(i *image) {
		for n := from; n <= to; n++ {
			delete(i.logs, n)
		}
		if len(i.logs) == 0 {
			i.low, i.high = 0, 0
			return
		}
		if from <= i.low && i.low <= to {
			i.low = to + 1
		}
		if from <= i.high && i.high <= to {
			i.high = from - 1
		}
	})
}

// Set implements raft.StableStore.
func (m *mount) Set(key, value []byte) error {
	return m.vital(func(i *image) { i.values[string(key)] = slices.Clone(value) })
}

// SetUint64 implements raft.StableStore.
func (m *mount) SetUint64(key []byte, value uint64) error {
	return m.vital(func(i *image) { i.numbers[string(key)] = value })
}

// vital makes a change whose failure ends a process at that instruction: hashicorp/raft panics where the term cannot be
// saved. Here the write stays where it is while the disk fails, and who was told of the failure ends the process.
func (m *mount) vital(step change) error {
	for m.write(step) != nil {
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

var errNoValue = errors.New("not found") // what raft looks for, by its text

// Get implements raft.StableStore.
func (m *mount) Get(key []byte) (value []byte, err error) {
	m.read(func(i *image) {
		var ok bool
		if value, ok = i.values[string(key)]; !ok {
			err = errNoValue
		}
	})
	return value, err
}

// GetUint64 implements raft.StableStore.
func (m *mount) GetUint64(key []byte) (value uint64, err error) {
	m.read(func(i *image) {
		var ok bool
		if value, ok = i.numbers[string(key)]; !ok {
			err = errNoValue
		}
	})
	return value, err
}

// shelf is the raft.SnapshotStore of a mount.
type shelf struct{ *mount }

var _ raft.SnapshotStore = shelf{}

// retained is how many snapshots are kept.
const retained = 2

// Create implements raft.SnapshotStore.
func (s shelf) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport,
) (raft.SnapshotSink, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return &sink{shelf: s, snapshot: snapshot{meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, s.disk.rng.Uint32()), Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	}}}, nil
}

// List implements raft.SnapshotStore.
func (s shelf) List() (metas []*raft.SnapshotMeta, _ error) {
	s.read(func(i *image) {
		for _, kept := range i.snapshots {
			metas = append(metas, &kept.meta)
		}
	})
	return metas, nil
}

// Open implements raft.SnapshotStore.
func (s shelf) Open(id string) (meta *raft.SnapshotMeta, from io.ReadCloser, err error) {
	err = fmt.Errorf("no snapshot %s", id)
	s.read(func(i *image) {
		for _, kept := range i.snapshots {
			if kept.meta.ID == id {
				meta, from, err = &kept.meta, io.NopCloser(bytes.NewReader(kept.data)), nil
			}
		}
	})
	return meta, from, err
}

// writing draws how long the content of a snapshot takes.
func (s shelf) writing() time.Duration {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.gone || s.disk.rng.IntN(3) > 0 {
		return 0
	}
	return time.Duration(s.disk.rng.IntN(400)) * time.Millisecond
}

// newest gives the last entry of the newest snapshot, for a process that lives; 0 if there is none.
func (s shelf) newest() (index uint64) {
	s.read(func(i *image) {
		if len(i.snapshots) > 0 && !s.gone {
			index = i.snapshots[0].meta.Index
		}
	})
	return index
}

// sink takes one snapshot, which is there once it is closed.
type sink struct {
	shelf shelf
	snapshot
}

// ID implements raft.SnapshotSink.
func (s *sink) ID() string { return s.meta.ID }

// Write implements io.Writer.
func (s *sink) Write(b []byte) (int, error) {
	s.data = append(s.data, b...)
	s.meta.Size += int64(len(b))
	return len(b), nil
}

// Cancel implements raft.SnapshotSink.
func (s *sink) Cancel() error { return nil }

// Close implements io.Closer. Some snapshots take long to be written.
func (s *sink) Close() error {
	time.Sleep(s.shelf.writing())
	if newer := s.shelf.newest(); newer > s.meta.Index {
		s.shelf.onOlder(s.meta.Index, newer)
	}
	return s.shelf.write(func(i *image) {
		i.snapshots = append([]snapshot{s.snapshot}, i.snapshots...)
		slices.SortStableFunc(i.snapshots, func(a, b snapshot) int {
			if a.meta.Term != b.meta.Term {
				return int(b.meta.Term) - int(a.meta.Term)
			}
			return int(b.meta.Index) - int(a.meta.Index)
		})
		i.snapshots = i.snapshots[:min(len(i.snapshots), retained)]
	})
}

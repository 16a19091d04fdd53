package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/keyquorum/keyquorum/internal/datadir/filelock"
)

// operation is a kind of write, as the metrics name it.
type operation string

const (
	opAppend operation = "append"
	opDelete operation = "delete"
	opSet    operation = "set"
)

// checked is raft-boltdb's store with everything under checksums.
type checked struct {
	path    string
	file    *os.File // the one that bbolt has open
	conn    *raftboltdb.BoltStore
	alarm   func(error)
	metrics *metrics

	log    atomic.Pointer[spans]
	stable atomic.Pointer[stable]
	closed atomic.Bool

	writing sync.Mutex // held during a write
	failed  error      // of the write after which there are no more

	broken atomic.Pointer[panicError]
}

// bolt runs f on bbolt. It is the last time if f panics: bbolt may hold its locks for ever after that, for example where
// the kernel cannot read the meta page that a transaction begins with.
func (c *checked) bolt(f func() error) error {
	if p := c.broken.Load(); p != nil {
		return p
	}
	err := contain(f)
	if p, ok := errors.AsType[*panicError](err); ok {
		c.broken.Store(p)
	}
	return err
}

// FirstIndex gives the index of the first entry; 0 for none.
func (c *checked) FirstIndex() (uint64, error) { return c.log.Load().first(), c.alive() }

// LastIndex gives the index of the last entry; 0 for none.
func (c *checked) LastIndex() (uint64, error) { return c.log.Load().last(), c.alive() }

func (c *checked) alive() error {
	if c.closed.Load() {
		return ErrClosed
	}
	return nil
}

// GetLog reads the entry at index into l. It gives raft.ErrLogNotFound for one that was never stored or was deleted, and
// an error that wraps ErrDamaged for one that is not as it was stored.
func (c *checked) GetLog(index uint64, l *raft.Log) error {
	if !c.log.Load().has(index) {
		return raft.ErrLogNotFound
	}
	err := c.read(index, l)
	if errors.Is(err, raft.ErrLogNotFound) && !c.log.Load().has(index) {
		return raft.ErrLogNotFound // deleted meanwhile
	}
	if err != nil && !errors.Is(err, ErrClosed) {
		err = damaged(c.path, fmt.Sprintf("log entry %d", index), err)
		c.alarm(err)
	}
	return err
}

// read gets the entry under key out of its envelope.
func (c *checked) read(key uint64, l *raft.Log) error {
	if err := c.alive(); err != nil {
		return err
	}
	var raw raft.Log
	err := c.bolt(func() error { return c.conn.GetLog(key, &raw) })
	switch {
	case err == nil:
		return decodeEntry(raw.Data, key, l)
	case c.closed.Load():
		return ErrClosed
	}
	return err
}

// StoreLog stores one entry.
func (c *checked) StoreLog(l *raft.Log) error { return c.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores entries durably, together with the tail: all of them, or none.
func (c *checked) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	log, batch := *c.log.Load(), make([]*raft.Log, 0, len(logs)+1)
	for _, l := range logs {
		if l.Index == 0 || l.Index == tailIndex {
			return fmt.Errorf("boltstore: no entry can have the index %d", l.Index)
		}
		w, err := wrap(l)
		if err != nil {
			return err
		}
		log, batch = log.add(l.Index), append(batch, w)
	}
	return c.append(batch, log)
}

// append stores wrapped entries and the tail, after which the log has the entries of log.
func (c *checked) append(batch []*raft.Log, log spans) error {
	t, err := tail(log.last())
	if err != nil {
		return err
	}
	err = c.write(opAppend, func() error { return c.conn.StoreLogs(append(batch, t)) })
	if err == nil {
		c.log.Store(&log)
	}
	return err
}

// DeleteRange removes the entries from lo to hi, both included.
//
// Where that takes the end of the log away, the tail goes first: after a crash between the two, the entries behind the
// tail are removed when the store is opened.
func (c *checked) DeleteRange(lo, hi uint64) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	log := *c.log.Load()
	lo, hi = max(lo, log.first()), min(hi, log.last())
	if len(log) == 0 || lo > hi {
		return nil
	}
	rest := log.without(lo, hi)
	if rest.last() != log.last() {
		if err := c.append(nil, rest); err != nil {
			return err
		}
	}
	c.log.Store(&rest)
	return c.drop(lo, hi)
}

func (c *checked) drop(lo, hi uint64) error {
	return c.write(opDelete, func() error { return c.conn.DeleteRange(lo, hi) })
}

// Set saves a value durably.
func (c *checked) Set(key, val []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	next, err := c.stable.Load().with(key, val)
	if err != nil {
		return err
	}
	err = c.write(opSet, func() error { return c.conn.Set([]byte(stableKey), next.encode()) })
	if err == nil {
		c.stable.Store(&next)
	}
	return err
}

// Get gives the value of key, which the caller may keep and change.
func (c *checked) Get(key []byte) ([]byte, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	v, ok := (*c.stable.Load())[string(key)]
	if !ok {
		return nil, raftboltdb.ErrKeyNotFound
	}
	return append([]byte{}, v...), nil
}

// SetUint64 saves a number durably.
func (c *checked) SetUint64(key []byte, val uint64) error {
	return c.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 gives the number saved under key.
func (c *checked) GetUint64(key []byte) (uint64, error) {
	v, err := c.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("boltstore: %q holds %d bytes, which are no number", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// write runs one write. The first that fails is the last; see the package comment. c.writing is held.
func (c *checked) write(op operation, f func() error) error {
	if c.failed != nil || c.closed.Load() {
		return errors.Join(c.failed, c.alive())
	}
	defer c.metrics.observe(op, time.Now())
	err := c.bolt(f)
	if err == nil {
		return nil
	}
	c.failed = fmt.Errorf("boltstore: %s: writing (%s) failed, and the store takes no more until the node is started anew: %w",
		c.path, op, err)
	c.alarm(c.failed)
	return c.failed
}

// close ends the store. After a panic bbolt is not called again, and the memory stays mapped until the process ends.
func (c *checked) close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	return errors.Join(c.metrics.close(), c.abandon())
}

// abandon gives up the file, opened to the end or not.
func (c *checked) abandon() error {
	if c.conn != nil && c.broken.Load() == nil {
		return c.bolt(c.conn.Close)
	}
	// bbolt may have closed it. Where memory is still mapped, closing alone does not give the lock back.
	err := errors.Join(filelock.Release(c.file), c.file.Close())
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

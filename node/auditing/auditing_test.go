package auditing_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node/auditing"
)

// chain makes a whole chain of n records.
func chain(n int) []audit.Entry {
	var head audit.Head
	var all []audit.Entry
	for i := range n {
		r := audit.Record{Sequence: uint64(i + 1), Kind: audit.KeyMade, Subject: fmt.Sprint("user-", i)}
		head, _ = head.Next(&r, nil)
		all = append(all, audit.Entry{Record: r, Hash: head.Hash})
	}
	return all
}

func before(all []audit.Entry, i int) audit.Head {
	if i == 0 {
		return audit.Head{}
	}
	return all[i-1].Head()
}

// disk is a store that can fail.
type disk struct {
	auditing.Memory
	fails atomic.Bool
}

var errFull = errors.New("no space left on device")

func (d *disk) Append(before audit.Head, entries []audit.Entry) error {
	if d.fails.Load() {
		return errFull
	}
	return d.Memory.Append(before, entries)
}

// rig is a Trail that runs, over a disk and with peers.
type rig struct {
	*auditing.Trail
	disk  disk
	peers map[string]*auditing.Memory
	stop  func()
}

func run(t *testing.T, change func(*auditing.Config)) *rig {
	t.Helper()
	r := &rig{peers: make(map[string]*auditing.Memory)}
	cfg := auditing.Config{
		Store: &r.disk, Block: true, Logger: slog.New(slog.DiscardHandler),
		Peers: func() (ids []string) {
			for id := range r.peers {
				ids = append(ids, id)
			}
			return ids
		},
		Ask: func(_ context.Context, id string, from uint64) (audit.Head, []audit.Entry, error) {
			return r.peers[id].Read(from, 4000)
		},
	}
	if change != nil {
		change(&cfg)
	}
	r.Trail = auditing.New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(cancel)
	return r
}

// peer adds a node that has some entries.
func (r *rig) peer(id string, before audit.Head, entries []audit.Entry) *auditing.Memory {
	m := new(auditing.Memory)
	_ = m.Append(before, entries) // it cannot fail
	r.peers[id] = m
	return m
}

// want waits until the disk has just the entries.
func (r *rig) want(t *testing.T, all []audit.Entry) {
	t.Helper()
	time.Sleep(time.Minute) // virtual
	var got []audit.Entry
	for next := uint64(1); ; next = got[len(got)-1].Sequence + 1 {
		_, page, err := r.disk.Read(next, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
	}
	if !reflect.DeepEqual(got, all) {
		t.Fatalf("there are %d entries, want %d", len(got), len(all))
	}
}

func in(t *testing.T, test func(*testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func TestAFailingStoreIsToldAndTriedAgain(t *testing.T) {
	in(t, func(t *testing.T) {
		r, all := run(t, nil), chain(10)
		r.disk.fails.Store(true)
		for i := range all {
			r.Append(before(all, i), all[i:i+1])
		}
		time.Sleep(time.Second)
		if err := r.Failing(); !errors.Is(err, fault.ErrAudit) || !errors.Is(err, errFull) {
			t.Fatalf("it says %v", err)
		}
		if err := r.Flush(all[9].Head()); !errors.Is(err, errFull) {
			t.Fatalf("a snapshot is let through: %v", err)
		}
		r.disk.fails.Store(false)
		if err := r.Flush(before(all, 0)); err != nil {
			t.Fatal(err)
		}
		r.want(t, all)
		if err := r.Failing(); err != nil {
			t.Fatal(err)
		}
		if err := r.Flush(all[9].Head()); err != nil {
			t.Fatal(err)
		}
		r.stop()
	})
}

// TestWhereItIsEnoughToWarn nothing is blocked, and no snapshot waits.
func TestWhereItIsEnoughToWarn(t *testing.T) {
	in(t, func(t *testing.T) {
		r, all := run(t, func(c *auditing.Config) { c.Block = false }), chain(10)
		r.disk.fails.Store(true)
		r.Append(audit.Head{}, all)
		time.Sleep(time.Second)
		if err := errors.Join(r.Failing(), r.Flush(all[9].Head())); err != nil {
			t.Fatal(err)
		}
		r.disk.fails.Store(false)
		r.want(t, all)
		r.stop()
	})
}

// TestFlushWaitsForTheWriter, and fails where there is none any more.
func TestFlushWaitsForTheWriter(t *testing.T) {
	in(t, func(t *testing.T) {
		r, all := run(t, nil), chain(10)
		r.Append(audit.Head{}, all)
		if err := r.Flush(all[9].Head()); err != nil || r.disk.Head() != all[9].Head() {
			t.Fatalf("flushed to %v: %v", r.disk.Head(), err)
		}
		r.stop()
		more := chain(11)
		r.Append(before(more, 10), more[10:])
		if err := r.Flush(more[10].Head()); err == nil {
			t.Fatal("nobody writes it, and it is flushed")
		}
	})
}

// TestWhatIsLeftIsWrittenAtTheEnd of the node.
func TestWhatIsLeftIsWrittenAtTheEnd(t *testing.T) {
	in(t, func(t *testing.T) {
		r, all := run(t, nil), chain(10)
		r.Append(audit.Head{}, all)
		r.stop()
		if r.disk.Head() != all[9].Head() {
			t.Fatalf("written up to %v", r.disk.Head())
		}
	})
}

// TestTooManyAreDropped, after a little waiting, and got from a peer later.
func TestTooManyAreDropped(t *testing.T) {
	in(t, func(t *testing.T) {
		r, all := run(t, func(c *auditing.Config) { c.Most = 20 }), chain(200)
		r.peer("n2", audit.Head{}, all)
		r.disk.fails.Store(true)
		begun := time.Now()
		for i := range 100 {
			r.Append(before(all, i), all[i:i+1])
		}
		if took := time.Since(begun); took > time.Second {
			t.Fatalf("applying the log waited %v for the disk", took)
		}
		if h := r.Health(); h.Waiting != 20 || h.Dropped != 80 || !h.Failing {
			t.Fatalf("%+v", h)
		}
		r.disk.fails.Store(false)
		time.Sleep(5 * time.Second)
		r.Append(before(all, 100), all[100:])
		r.want(t, all)
		if h := r.Health(); h.Missing != 0 || h.Filled != 80 {
			t.Fatalf("%+v", h)
		}
		r.stop()
	})
}

// TestASnapshotsRecordsAreGot from whoever has them, be it in parts; nobody who has others is believed.
func TestASnapshotsRecordsAreGot(t *testing.T) {
	in(t, func(t *testing.T) {
		r, all := run(t, nil), chain(40_000)
		other := chain(40_000)
		for i := range other {
			other[i].Actor = "mallory"
			head, _ := before(other, i).Next(&other[i].Record, nil)
			other[i].Hash = head.Hash
		}
		r.peer("liar", audit.Head{}, other)
		r.peer("newer", before(all, 30_000), all[30_000:])
		r.peer("older", audit.Head{}, all[:35_000])
		r.Restored(all[39_999].Head())
		r.want(t, all)
		r.stop()
	})
}

// TestWhatNobodyHasIsMissing, and what comes is written all the same.
func TestWhatNobodyHasIsMissing(t *testing.T) {
	in(t, func(t *testing.T) {
		r, all := run(t, nil), chain(30)
		r.peer("n2", before(all, 20), all[20:])
		r.Restored(all[24].Head())
		r.Append(before(all, 25), all[25:])
		r.want(t, all[20:])
		if h := r.Health(); h.Missing != 20 {
			t.Fatalf("%+v", h)
		}
		r.stop()
	})
}

package sim

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func entries(from, to uint64) (logs []*raft.Log) {
	for i := from; i <= to; i++ {
		logs = append(logs, &raft.Log{Index: i})
	}
	return logs
}

func last(t *testing.T, m *mount) uint64 {
	t.Helper()
	index, err := m.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func TestACrashTakesWhatWasNotSyncedAndNothingElse(t *testing.T) {
	torn := make(map[uint64]bool)
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			d := newDisk(rand.New(rand.NewPCG(seed, 0)))
			m := d.mount()
			if err := m.StoreLogs(entries(1, 3)); err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() { done <- m.StoreLogs(entries(4, 6)) }()
			time.Sleep(50 * time.Microsecond) // less than any sync takes
			d.crash()
			if err := <-done; err != nil {
				t.Errorf("a write of a process that is gone: %v", err)
			}
			got := last(t, d.mount())
			if got < 3 || got > 6 {
				t.Errorf("the log ends at %d", got)
			}
			torn[got] = true
		})
	}
	if len(torn) != 4 {
		t.Errorf("after a crash the log ended at one of %v; want all of 3 to 6", torn)
	}
}

func TestALazyDiskLosesWhatItAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(rand.New(rand.NewPCG(1, 1)))
		d.lazy = true
		m := d.mount()
		for i := uint64(1); i <= 20; i++ {
			if err := m.StoreLogs(entries(i, i)); err != nil {
				t.Fatal(err)
			}
		}
		if got := last(t, m); got != 20 {
			t.Errorf("the process sees %d entries", got)
		}
		d.crash()
		if got := last(t, d.mount()); got == 20 {
			t.Error("nothing was lost")
		}
	})
}

func TestADiskHangsUntilItIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(rand.New(rand.NewPCG(1, 1)))
		m := d.mount()
		d.hold()
		done := make(chan error, 1)
		go func() { done <- m.StoreLogs(entries(1, 1)) }()
		time.Sleep(time.Minute)
		if got := last(t, m); got != 0 {
			t.Errorf("%d entries were stored by a disk that hangs", got)
		}
		d.release()
		if err := <-done; err != nil || last(t, m) != 1 {
			t.Errorf("it was not stored after all: %v", err)
		}
		if _, waited, _ := d.counts(); waited == 0 {
			t.Error("nobody counted it")
		}
	})
}

func TestADiskKeepsTheNewestSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(rand.New(rand.NewPCG(1, 1)))
		s := shelf{d.mount()}
		for _, index := range []uint64{5, 9, 7} {
			sink, err := s.Create(1, index, 1, raft.Configuration{}, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := sink.Close(); err != nil {
				t.Fatal(err)
			}
		}
		metas, err := shelf{d.mount()}.List()
		if err != nil || len(metas) != 2 || metas[0].Index != 9 || metas[1].Index != 7 {
			t.Errorf("%v, %v", metas, err)
		}
	})
}

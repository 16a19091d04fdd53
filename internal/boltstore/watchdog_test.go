package boltstore

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func TestHangingWriteIsTold(t *testing.T) {
	writes := map[string]func(Backend) error{
		"storing 2 log entries":           func(b Backend) error { return b.StoreLogs(entries(1, 2, 1)) },
		"storing 1 log entries":           func(b Backend) error { return b.StoreLog(entries(1, 1, 1)[0]) },
		"deleting the log entries 3 to 4": func(b Backend) error { return b.DeleteRange(3, 4) },
		`saving "LastVoteCand"`:           func(b Backend) error { return b.Set([]byte("LastVoteCand"), nil) },
		`saving "CurrentTerm"`:            func(b Backend) error { return b.SetUint64([]byte("CurrentTerm"), 1) },
	}
	for op, write := range writes {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := &hangingDisk{InmemStore: raft.NewInmemStore(), wait: make(chan struct{})}
				told := make(chan error, 9)
				w := Watch(disk, 5*time.Second, func(err error) { told <- err })
				returned := make(chan error, 2)
				go func() { returned <- write(w) }()
				go func() { returned <- write(w) }()

				time.Sleep(5*time.Second - 1)
				synctest.Wait()
				if len(told) != 0 {
					t.Fatalf("told too early: %v", <-told)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if len(told) != 1 {
					t.Fatalf("told %d times", len(told))
				}
				if err := <-told; !strings.Contains(err.Error(), op) || !strings.Contains(err.Error(), "5s") {
					t.Errorf("told: %v", err)
				}
				close(disk.wait)
				if err := errors.Join(<-returned, <-returned); err != nil {
					t.Errorf("the write, when the disk came back: %v", err)
				}
			})
		})
	}
}

func TestSlowWritesWithinTheLimitAreFine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &hangingDisk{InmemStore: raft.NewInmemStore(), delay: 4 * time.Second}
		w := Watch(disk, 5*time.Second, func(err error) { t.Errorf("told: %v", err) })
		for i := range uint64(10) {
			must(t, w.StoreLogs(entries(i+1, i+1, 1)))
		}
		time.Sleep(time.Hour)
	})
}

// hangingDisk is a store whose writes wait.
type hangingDisk struct {
	*raft.InmemStore
	wait  chan struct{} // until it is closed
	delay time.Duration
}

func (d *hangingDisk) hang() {
	if d.wait != nil {
		<-d.wait
	}
	time.Sleep(d.delay)
}

func (d *hangingDisk) StoreLogs(logs []*raft.Log) error {
	d.hang()
	return d.InmemStore.StoreLogs(logs)
}

func (d *hangingDisk) DeleteRange(uint64, uint64) error { d.hang(); return nil }

func (d *hangingDisk) Set(k, v []byte) error { d.hang(); return d.InmemStore.Set(k, v) }

func (d *hangingDisk) SetUint64(k []byte, v uint64) error {
	d.hang()
	return d.InmemStore.SetUint64(k, v)
}

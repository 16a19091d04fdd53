package boltstore

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// raft itself on the store: it commits, compacts, restarts and finds everything again.
func TestRaftRunsOnIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	snaps := raft.NewInmemSnapshotStore()
	term := uint64(0)
	for life := range 3 {
		s := open(t, path, Options{OnHang: func(err error) { t.Errorf("alarm: %v", err) }})
		fsm := &tape{}
		r := lead(t, s, snaps, fsm)
		for i := range 50 {
			must(t, r.Apply(fmt.Appendf(nil, "%d/%d", life, i), time.Minute).Error())
		}
		must(t, r.Snapshot().Error())
		must(t, r.Apply([]byte("after"), time.Minute).Error())
		if n := fsm.len(); n != 51*(life+1) {
			t.Errorf("life %d: %d commands applied", life, n)
		}
		if now := r.CurrentTerm(); now <= term {
			t.Errorf("life %d: the term went from %d to %d", life, term, now)
		} else {
			term = now
		}
		if first, _ := s.FirstIndex(); first < 10 {
			t.Errorf("life %d: the log still starts at %d", life, first)
		}
		must(t, r.Shutdown().Error())
		must(t, s.Close())
	}
}

// lead gives a raft of one member, once it leads.
func lead(t *testing.T, s *Store, snaps raft.SnapshotStore, fsm raft.FSM) *raft.Raft {
	t.Helper()
	_, tr := raft.NewInmemTransport("me")
	conf := raft.DefaultConfig()
	conf.LocalID, conf.LogLevel, conf.TrailingLogs = "me", "OFF", 5
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 20*time.Millisecond, 20*time.Millisecond, 10*time.Millisecond
	has, err := raft.HasExistingState(s, s, snaps)
	must(t, err)
	if !has {
		me := raft.Configuration{Servers: []raft.Server{{ID: "me", Address: tr.LocalAddr()}}}
		must(t, raft.BootstrapCluster(conf, s, s, snaps, tr, me))
	}
	r, err := raft.NewRaft(conf, fsm, s, s, snaps, tr)
	must(t, err)
	t.Cleanup(func() { _ = r.Shutdown().Error() })
	select {
	case <-r.LeaderCh():
	case <-time.After(time.Minute):
		t.Fatal("no leader")
	}
	return r
}

// tape remembers how many commands it has been given.
type tape struct {
	mu sync.Mutex
	n  byte
}

func (f *tape) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int(f.n)
}

func (f *tape) Apply(*raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	return nil
}

func (f *tape) Snapshot() (raft.FSMSnapshot, error) { return tapeAt{byte(f.len())}, nil }

func (f *tape) Restore(r io.ReadCloser) error {
	var b [1]byte
	_, err := io.ReadFull(r, b[:])
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n = b[0]
	return err
}

type tapeAt struct{ n byte }

func (s tapeAt) Persist(sink raft.SnapshotSink) error {
	_, err := sink.Write([]byte{s.n})
	return errors.Join(err, sink.Close())
}

func (tapeAt) Release() {}

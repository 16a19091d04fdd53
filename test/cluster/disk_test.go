package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/boltstore"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// disk is a store that hangs when it is told to, until it is released.
type disk struct {
	*raft.InmemStore
	hangs   atomic.Bool
	hung    atomic.Int64 // how many writes did
	release chan struct{}
}

func (d *disk) wait() {
	if d.hangs.Load() {
		d.hung.Add(1)
		<-d.release
	}
}

func (d *disk) StoreLogs(logs []*raft.Log) error {
	d.wait()
	return d.InmemStore.StoreLogs(logs)
}

func (d *disk) StoreLog(log *raft.Log) error { return d.StoreLogs([]*raft.Log{log}) }

func (d *disk) SetUint64(key []byte, value uint64) error {
	d.wait()
	return d.InmemStore.SetUint64(key, value)
}

// onHangingDisks starts three members, and gives what makes the disk of one hang for the rest of the test, of which its
// watchdog is to tell after a while.
func onHangingDisks(t *testing.T, noticed time.Duration) (c *cluster.Cluster, hang func(*cluster.Member)) {
	release := make(chan struct{})
	disks := make(map[string]*disk)
	c = cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) {
		halted := make(chan error, 1)
		d := &disk{InmemStore: cfg.Logs.(*raft.InmemStore), release: release}
		disks[cfg.Name] = d
		watched := boltstore.Watch(d, noticed, func(err error) { halted <- err })
		cfg.Logs, cfg.Stable, cfg.Halted = watched, watched, halted
	}})
	t.Cleanup(func() { close(release) })
	return c, func(m *cluster.Member) {
		d := disks[m.Host]
		d.hangs.Store(true)
		c.Await("a write to hang", func() bool { return d.hung.Load() > 0 })
	}
}

// A member that is being stopped when its disk begins to hang ends all the same, and says why.
func TestAMemberWhoseDiskHangsWhileItIsStoppedEnds(t *testing.T) {
	in(t, func(t *testing.T) {
		c, hang := onHangingDisks(t, 2*time.Second)
		c.AwaitAgreed()
		victim := c.Follower()
		hang(victim)
		start := time.Now()
		if err := c.End(victim); !errors.Is(err, node.ErrStuck) || !strings.Contains(err.Error(), "the disk hangs") {
			t.Errorf("it ended with %v", err)
		}
		// The watchdog's bound, and what a node that halted waits for what it stands on.
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("it ended after %v", took)
		}
	})
}

// A leader that is being stopped can hand over to nobody while its disk hangs; when that is noticed, another leads.
func TestALeaderWhoseDiskHangsWhileItIsStoppedMakesRoom(t *testing.T) {
	in(t, func(t *testing.T) {
		const noticed = 6 * time.Second // it has given up its requests and the transfer by then
		c, hang := onHangingDisks(t, noticed)
		c.AwaitAgreed()
		victim, others := c.Leader(), c.Followers()
		hang(victim)
		start := time.Now()
		ended := make(chan error, 1)
		go func() { ended <- c.End(victim) }()
		c.Await("another to lead", func() bool { return others[0].Leading() || others[1].Leading() })
		if took := time.Since(start); took > noticed+4*time.Second {
			t.Errorf("another led after %v", took)
		}
		if err := <-ended; !errors.Is(err, node.ErrStuck) || !strings.Contains(err.Error(), "the disk hangs") {
			t.Errorf("it ended with %v", err)
		}
	})
}

// A leader whose disk hangs goes on with its heartbeats, so nobody stands against it: the watchdog has to end it.
func TestALeaderWhoseDiskHangsMakesRoomForAnother(t *testing.T) {
	in(t, func(t *testing.T) {
		c, hang := onHangingDisks(t, 2*time.Second)
		token := c.Leader().MustIssue(t, "ada", time.Hour)
		c.AwaitAgreed()
		victim := c.Leader()
		hang(victim)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := victim.Issue(ctx, "eve", time.Minute); !errors.Is(err, fault.ErrOutcomeUnknown) {
			t.Errorf("a write to the disk that hangs: %v", err)
		}
		var next *cluster.Member
		c.Await("another to lead", func() bool {
			for _, m := range c.Members() {
				if m != victim && m.Leading() {
					next = m
				}
			}
			return next != nil
		})
		// The watchdog's bound and an election: not until the process gives the disk up.
		if took := time.Since(start); took > 8*time.Second {
			t.Errorf("another led after %v", took)
		}
		if err := victim.Ended(); err == nil {
			t.Error("it ended without a reason")
		}
		if got := next.MustVerify(t, next.MustIssue(t, "bob", time.Minute)); got != valid {
			t.Errorf("a token of the next leader: %v", got)
		}
		if got := next.MustVerify(t, token); got != valid {
			t.Errorf("a token from before: %v", got)
		}
	})
}

// shelf is a snapshot store that takes nothing of a snapshot, once it has begun, until it is released.
type shelf struct {
	raft.SnapshotStore
	begun, ended *atomic.Int64
	release      chan struct{}
}

func (s *shelf) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport,
) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	s.begun.Add(1)
	return &held{sink, s}, err
}

// held is a snapshot on its way to the shelf.
type held struct {
	raft.SnapshotSink
	shelf *shelf
}

func (h *held) Write(p []byte) (int, error) {
	<-h.shelf.release
	return h.SnapshotSink.Write(p)
}

func (h *held) Close() error {
	h.shelf.ended.Add(1)
	return h.SnapshotSink.Close()
}

// All nodes are in the middle of a snapshot for as long as the test wants. What is asked meanwhile is answered.
func TestNoWriteWaitsForASnapshot(t *testing.T) {
	in(t, func(t *testing.T) {
		var begun, ended atomic.Int64
		release := make(chan struct{})
		letGo := sync.OnceFunc(func() { close(release) })
		defer letGo()
		c := cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) {
			cfg.SnapshotThreshold, cfg.SnapshotInterval = 20, time.Second
			cfg.Snapshots = &shelf{cfg.Snapshots, &begun, &ended, release}
		}})
		leader := c.Leader()
		for i := range 40 {
			leader.MustIssue(t, fmt.Sprintf("before-%d", i), time.Hour)
		}
		c.Await("all nodes to be in the middle of a snapshot", func() bool { return begun.Load() == 3 })
		var last string
		for i := range 100 {
			last = leader.MustIssue(t, fmt.Sprintf("meanwhile-%d", i), time.Hour)
		}
		if _, err := leader.Revoke(t.Context(), "before-0"); err != nil {
			t.Error(err)
		}
		for _, m := range c.Members() {
			if got := m.MustVerify(t, last); got != valid {
				t.Errorf("at %s, a token that was issued meanwhile: %v", m.Host, got)
			}
		}
		if ended.Load() != 0 {
			t.Errorf("%d snapshots have ended", ended.Load())
		}
		letGo()
		c.Await("the snapshots to be kept", func() bool { return ended.Load() >= 3 })
	})
}

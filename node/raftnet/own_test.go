package raftnet

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/test/memnet"
)

// A follower takes a snapshot of itself, and is sent a newer one before that is written. Without the repair it then stands
// on its own, and knows nothing of what the newer one ends with.
func TestOwnSnapshotGivesWayToANewerOne(t *testing.T) {
	scenario := func(t *testing.T, repair bool) (stands string, resp raft.AppendEntriesResponse, applied string, own error) {
		net := memnet.New()
		follower := start(t, net, repair)
		leader := play(t, net, "n3", 2, repair)
		leader.append(founding, 3, entry(2, 2, "a"), entry(3, 2, "b"))
		synctest.Wait()
		held := make(chan struct{})
		follower.fsm.held = held
		taken := follower.Snapshot()
		synctest.Wait()
		last := raft.Log{Index: 6, Term: 2}
		leader.mustInstall(last, "a b c d e")
		close(held)
		own = taken.Error()
		stands = follower.Stats()["last_snapshot_index"]
		resp = leader.append(last, 7, entry(7, 2, "f"))
		return stands, resp, follower.fsm.String(), own
	}
	inBubble(t, "repaired", func(t *testing.T) {
		stands, resp, applied, own := scenario(t, repaired)
		if own == nil || !strings.Contains(own.Error(), errOwnOvertaken.Error()) {
			t.Errorf("its own: %v", own)
		}
		if stands != "6" || !resp.Success || applied != "a b c d e f" {
			t.Errorf("it stands on %s, answers %+v, applied %q", stands, resp, applied)
		}
	})
	inBubble(t, "bare", func(t *testing.T) {
		if stands, resp, _, own := scenario(t, bare); own != nil || stands != "3" || resp.Success {
			t.Errorf("its own: %v, stands on %s, answers %+v: the library minds the order, and the repair may go", own, stands, resp)
		}
	})
}

// sluggish is a snapshot that takes its time to be closed.
type sluggish struct {
	raft.SnapshotSink
	closed chan struct{}
}

func (sluggish) Write(b []byte) (int, error) { return len(b), nil }
func (s sluggish) Close() error              { <-s.closed; return nil }

// From when its own is about to be closed until Raft has noted it, a node takes no other.
func TestNoSnapshotIsInstalledWhileItsOwnIsBeingFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newFake()
		trans := Wrap(inner, Config{})
		trans.bind(func() uint64 { return 3 })
		defer trans.Close()
		passed := 0
		go follow(trans, &passed)
		install := func() error {
			return (<-inner.request(&raft.InstallSnapshotRequest{LastLogIndex: 9}, nothing{})).Error
		}
		taken, err := trans.FSM(new(words)).Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		closed, persisted := make(chan struct{}), make(chan error, 1)
		go func() { persisted <- taken.Persist(sluggish{closed: closed}) }()
		synctest.Wait()
		if err := install(); !errors.Is(err, errOwnCloses) {
			t.Errorf("while it is being closed: %v", err)
		}
		close(closed)
		if err := <-persisted; err != nil {
			t.Errorf("its own: %v", err)
		}
		if err := install(); !errors.Is(err, errOwnCloses) || passed != 0 {
			t.Errorf("before Raft has noted it: %v, %d passed on", err, passed)
		}
		taken.Release()
		if err := install(); err != nil || passed != 1 {
			t.Errorf("then: %v, %d passed on", err, passed)
		}
	})
}

// While another node's snapshot is being installed, none is taken: it would be of the state before.
func TestNoSnapshotIsTakenWhileAnotherIsInstalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newFake()
		trans := Wrap(inner, Config{})
		trans.bind(func() uint64 { return 3 })
		defer trans.Close()
		machine := trans.FSM(new(words))
		answered := inner.request(&raft.InstallSnapshotRequest{LastLogIndex: 9}, nothing{})
		heartbeat := <-trans.Consumer()
		heartbeat.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
		installing := <-trans.Consumer()
		if _, err := machine.Snapshot(); !errors.Is(err, errInstalling) {
			t.Errorf("meanwhile: %v", err)
		}
		installing.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
		<-answered
		if _, err := machine.Snapshot(); err != nil {
			t.Errorf("then: %v", err)
		}
	})
}

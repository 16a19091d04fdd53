package raftnet

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/test/memnet"
)

// A follower's disk is slow, and while it appends for the leader of term 2, the leader of term 3 sends a heartbeat.
func TestHeartbeatWaitsForAppend(t *testing.T) {
	scenario := func(t *testing.T, repair bool) (overtaken bool) {
		net := memnet.New()
		follower := start(t, net, repair)
		old, young := play(t, net, "n1", 2, repair), play(t, net, "n3", 3, repair)
		old.heartbeat()

		release := follower.logs.hang()
		var appended, beat raft.AppendEntriesResponse
		go func() { appended = old.append(founding, 1, entry(2, 2, "a")) }()
		synctest.Wait()
		go func() { beat = young.heartbeat() }()
		synctest.Wait()
		overtaken = beat.Success && follower.CurrentTerm() == 3
		release()
		synctest.Wait()

		if !appended.Success || !beat.Success || follower.CurrentTerm() != 3 {
			t.Errorf("in the end: appended %+v, heartbeat %+v, term %d", appended, beat, follower.CurrentTerm())
		}
		return overtaken
	}
	inBubble(t, "repaired", func(t *testing.T) {
		if scenario(t, repaired) {
			t.Error("the follower took on term 3 while it appended for term 2")
		}
	})
	inBubble(t, "bare", func(t *testing.T) {
		if !scenario(t, bare) {
			t.Error("the library no longer handles heartbeats beside its main loop: the repair may go")
		}
	})
}

// A follower has an entry of a deposed leader, which was lost. The new leader sends it entries from before that one,
// and says that more is committed.
func TestCommitsOnlyWhatIsVouchedFor(t *testing.T) {
	scenario := func(t *testing.T, sender, receiver bool) string {
		net := memnet.New()
		follower := start(t, net, receiver)
		old, young := play(t, net, "n1", 2, sender), play(t, net, "n3", 3, sender)

		old.append(founding, 1, entry(2, 2, "a"), entry(3, 2, "lost"))
		young.append(founding, 3, entry(2, 2, "a"))
		young.append(raft.Log{Index: 2, Term: 2}, 3, entry(3, 3, "kept"))
		return follower.fsm.String()
	}
	for name, ends := range map[string]struct{ sender, receiver bool }{
		"sender repaired":   {repaired, bare},
		"receiver repaired": {bare, repaired},
		"both repaired":     {repaired, repaired},
	} {
		inBubble(t, name, func(t *testing.T) {
			if got := scenario(t, ends.sender, ends.receiver); got != "a kept" {
				t.Errorf("applied %q, want %q", got, "a kept")
			}
		})
	}
	inBubble(t, "bare", func(t *testing.T) {
		if got := scenario(t, bare, bare); got != "a lost" {
			t.Errorf("applied %q: the library no longer applies what was lost, and the repair may go", got)
		}
	})
}

// What a leader with nothing to append says is committed still arrives.
func TestIdleLeaderCommits(t *testing.T) {
	inBubble(t, "repaired", func(t *testing.T) {
		net := memnet.New()
		follower := start(t, net, repaired)
		leader := play(t, net, "n1", 2, repaired)
		leader.append(founding, 1, entry(2, 2, "a"), entry(3, 2, "b"))
		leader.append(raft.Log{Index: 3, Term: 2}, 3)
		if got := follower.fsm.String(); got != "a b" {
			t.Errorf("applied %q, want %q", got, "a b")
		}
	})
}

// A snapshot arrives again when the follower is past it.
func TestLateSnapshotTakesNothingBack(t *testing.T) {
	scenario := func(t *testing.T, repair bool) string {
		net := memnet.New()
		follower := start(t, net, repair)
		leader := play(t, net, "n1", 2, repair)
		last := raft.Log{Index: 5, Term: 2}

		leader.mustInstall(last, "a b")
		leader.append(last, 6, entry(6, 2, "revoked"))
		if got := follower.fsm.String(); got != "a b revoked" {
			t.Fatalf("before: %q", got)
		}
		if resp := leader.mustInstall(last, "a b"); !resp.Success || resp.Term != 2 {
			t.Errorf("answer to the late snapshot: %+v", resp)
		}
		return follower.fsm.String()
	}
	inBubble(t, "repaired", func(t *testing.T) {
		if got := scenario(t, repaired); got != "a b revoked" {
			t.Errorf("after: %q", got)
		}
	})
	inBubble(t, "bare", func(t *testing.T) {
		if got := scenario(t, bare); got != "a b" {
			t.Errorf("after: %q: the library no longer goes back, and the repair may go", got)
		}
	})
}

// A snapshot arrives late while the entries that take the follower past it are still on their way to the disk: what
// is committed has to be looked at only after that.
func TestLateSnapshotDuringAppend(t *testing.T) {
	scenario := func(t *testing.T, repair bool) string {
		net := memnet.New()
		follower := start(t, net, repair)
		leader := play(t, net, "n1", 2, repair)
		leader.append(founding, 1, entry(2, 2, "a"), entry(3, 2, "b"))

		release := follower.logs.hang()
		go leader.append(raft.Log{Index: 3, Term: 2}, 4, entry(4, 2, "c"))
		synctest.Wait()
		installed := false
		go func() { installed = leader.mustInstall(raft.Log{Index: 3, Term: 2}, "a b").Success }()
		synctest.Wait()
		if installed {
			t.Error("the snapshot was judged while an append was under way")
		}
		release()
		synctest.Wait()
		if !installed {
			t.Error("the snapshot was not answered")
		}
		return follower.fsm.String()
	}
	inBubble(t, "repaired", func(t *testing.T) {
		if got := scenario(t, repaired); got != "a b c" {
			t.Errorf("applied %q, want %q", got, "a b c")
		}
	})
	inBubble(t, "bare", func(t *testing.T) {
		if got := scenario(t, bare); got != "a b" {
			t.Errorf("applied %q: the library no longer goes back, and the repair may go", got)
		}
	})
}

// A snapshot that is not installed is still a message from a leader, and Raft judges its term.
func TestSnapshotTerms(t *testing.T) {
	last := raft.Log{Index: 3, Term: 2}
	begin := func(t *testing.T) (*memnet.Net, *node, *peer) {
		net := memnet.New()
		follower := start(t, net, repaired)
		leader := play(t, net, "n1", 2, repaired)
		leader.append(founding, 3, entry(2, 2, "a"), entry(3, 2, "b"))
		return net, follower, leader
	}
	inBubble(t, "a deposed leader learns of the newer term", func(t *testing.T) {
		net, follower, old := begin(t)
		play(t, net, "n3", 3, repaired).heartbeat()
		for _, at := range []uint64{3, 9} {
			if resp := old.mustInstall(raft.Log{Index: at, Term: 2}, "old"); resp.Success || resp.Term != 3 {
				t.Errorf("snapshot of %d: %+v", at, resp)
			}
		}
		if got := follower.fsm.String(); got != "a b" {
			t.Errorf("applied %q", got)
		}
	})
	inBubble(t, "a new leader is followed", func(t *testing.T) {
		net, follower, _ := begin(t)
		young := play(t, net, "n3", 3, repaired)
		if resp := young.mustInstall(last, "a b"); !resp.Success || resp.Term != 3 {
			t.Errorf("answer: %+v", resp)
		}
		if _, leader := follower.LeaderWithID(); leader != "n3" || follower.CurrentTerm() != 3 {
			t.Errorf("follows %q in term %d", leader, follower.CurrentTerm())
		}
	})
	inBubble(t, "what is ahead is installed", func(t *testing.T) {
		_, follower, leader := begin(t)
		if resp := leader.mustInstall(raft.Log{Index: 9, Term: 2}, "a b c d"); !resp.Success {
			t.Errorf("answer: %+v", resp)
		}
		leader.append(raft.Log{Index: 9, Term: 2}, 10, entry(10, 2, "e"))
		if got := follower.fsm.String(); got != "a b c d e" {
			t.Errorf("applied %q", got)
		}
	})
	inBubble(t, "an unknown protocol is refused", func(t *testing.T) {
		_, follower, leader := begin(t)
		var resp raft.InstallSnapshotResponse
		req := &raft.InstallSnapshotRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 99}, Term: 2, LastLogIndex: 9}
		if err := leader.InstallSnapshot("n2", "n2:7401", req, &resp, new(nothing)); err == nil {
			t.Error("no error")
		}
		if got := follower.fsm.String(); got != "a b" {
			t.Errorf("applied %q", got)
		}
	})
}

// noticing starts a follower, repaired, that counts how often it notices that it was overtaken.
func noticing(t *testing.T, n *memnet.Net, noticed *int) *node {
	t.Helper()
	l, err := n.Listen("n2:7401")
	if err != nil {
		t.Fatal(err)
	}
	trans, err := NewTCP(TCPConfig{Listener: l, Dial: n.Dialer("n2"), Overtaken: func() { *noticed++ }})
	if err != nil {
		t.Fatal(err)
	}
	return run(t, "n2", trans, still)
}

// A follower has entries of a deposed leader that reach past the snapshot which the new leader sends.
func TestALogThatItsSnapshotContradictsIsNoticed(t *testing.T) {
	inBubble(t, "it refuses what follows, and says so once", func(t *testing.T) {
		net := memnet.New()
		noticed := 0
		follower := noticing(t, net, &noticed)
		old, young := play(t, net, "n1", 2, repaired), play(t, net, "n3", 3, repaired)
		last := raft.Log{Index: 3, Term: 3}

		old.append(founding, 1, entry(2, 2, "lost"), entry(3, 2, "lost"), entry(4, 2, "lost"), entry(5, 2, "lost"))
		young.append(raft.Log{Index: 9, Term: 3}, 9) // what is merely behind is refused as well
		if noticed != 0 {
			t.Error("a follower that is behind was called overtaken")
		}
		young.mustInstall(last, "a b")
		for range 2 {
			if resp := young.append(last, 4, entry(4, 3, "c")); resp.Success {
				t.Error("the library goes on by itself: the repair may go")
			}
		}
		if got := follower.fsm.String(); noticed != 1 || got != "a b" {
			t.Errorf("noticed %d times, applied %q", noticed, got)
		}
	})
}

// A node that does not stand loses no vote of others, and is quick to let another lead.
func TestWhoDoesNotStandElectsAnother(t *testing.T) {
	inBubble(t, "the leader is lost", func(t *testing.T) {
		net := memnet.New()
		all, transports := standing(t, net)
		id, lead := leader(t, all, "")
		apply(t, lead, "a")
		agree(t, all, "a")
		seated := other(id)
		transports[seated].Stand(false)
		if err := lead.LeadershipTransferToServer(seated, raft.ServerAddress(seated+":7401")).Error(); err == nil {
			t.Error("it took the leadership that was handed to it")
		}
		net.Isolate(string(id))
		lost := time.Now()
		next, young := leader(t, all, id)
		if next == seated {
			t.Errorf("%s leads, and does not stand", next)
		}
		if took := time.Since(lost); took > 10*time.Second {
			t.Errorf("another leads after %v only", took)
		}
		apply(t, young, "b")
	})
	inBubble(t, "alone it stands again when it is let", func(t *testing.T) {
		net := memnet.New()
		all, transports := standing(t, net)
		_, lead := leader(t, all, "")
		apply(t, lead, "a")
		agree(t, all, "a")
		for _, trans := range transports {
			trans.Stand(false)
		}
		if err := lead.LeadershipTransfer().Error(); err == nil {
			t.Error("one of them took the leadership that was handed to it")
		}
		for id := range all {
			transports[id].Stand(true)
		}
		_, again := leader(t, all, "")
		apply(t, again, "b")
		agree(t, all, "a", "b")
	})
}

// A follower's log begins behind the snapshot that it was sent, with an entry that was lost. Without the repair Raft
// refuses what follows on the snapshot, which the leader can only answer with that snapshot, for ever.
func TestALogThatBeginsBehindItsSnapshotGoesOn(t *testing.T) {
	scenario := func(t *testing.T, repair bool) (raft.AppendEntriesResponse, string) {
		net := memnet.New()
		follower := start(t, net, repair)
		old, young := play(t, net, "n1", 2, repair), play(t, net, "n3", 3, repair)
		last := raft.Log{Index: 5, Term: 2}
		old.mustInstall(last, "a b")
		if resp := old.append(last, 5, entry(6, 2, "lost")); !resp.Success {
			t.Fatalf("%+v", resp)
		}
		resp := young.append(last, 6, entry(6, 3, "c"))
		return resp, follower.fsm.String()
	}
	inBubble(t, "repaired", func(t *testing.T) {
		if resp, got := scenario(t, repaired); !resp.Success || got != "a b c" {
			t.Errorf("%+v, applied %q", resp, got)
		}
	})
	inBubble(t, "bare", func(t *testing.T) {
		if resp, got := scenario(t, bare); resp.Success {
			t.Errorf("applied %q: the library goes on by itself, and the repair may go", got)
		}
	})
}

// The leader took a follower to be further behind than it is, and goes back over entries that the follower has in its
// snapshot only. Without the repair Raft refuses each, as far back as the leader's log goes, and then the leader's
// snapshot, which is older, leads to the first of them again.
func TestAnAppendThatBeginsBeforeTheSnapshotGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		entries []*raft.Log
		want    string
	}{
		"and ends before its end": {[]*raft.Log{entry(3, 2, "a"), entry(4, 2, "b")}, "a b c"},
		"and ends with it":        {[]*raft.Log{entry(3, 2, "a"), entry(4, 2, "b"), entry(5, 2, "c")}, "a b c"},
		"and goes on behind it":   {[]*raft.Log{entry(4, 2, "b"), entry(5, 2, "c"), entry(6, 2, "d"), entry(7, 3, "e")}, "a b c d e"},
	} {
		scenario := func(t *testing.T, repair bool) (raft.AppendEntriesResponse, string) {
			net := memnet.New()
			follower := start(t, net, repair)
			leader := play(t, net, "n3", 3, repair)
			leader.mustInstall(raft.Log{Index: 5, Term: 2}, "a b c")
			prev := raft.Log{Index: c.entries[0].Index - 1, Term: 2}
			resp := leader.append(prev, 7, c.entries...)
			if !resp.Success {
				return resp, follower.fsm.String()
			}
			if next := leader.append(*c.entries[len(c.entries)-1], 7); !next.Success { // what the leader takes it to have by now
				t.Errorf("then: %+v", next)
			}
			return resp, follower.fsm.String()
		}
		inBubble(t, name+", repaired", func(t *testing.T) {
			if resp, got := scenario(t, repaired); !resp.Success || got != c.want {
				t.Errorf("%+v, applied %q", resp, got)
			}
		})
		inBubble(t, name+", bare", func(t *testing.T) {
			if resp, got := scenario(t, bare); resp.Success {
				t.Errorf("applied %q: the library goes on by itself, and the repair may go", got)
			}
		})
	}
}

// A leader whose log is not the one that the follower's snapshot is of, as when committed entries were lost elsewhere, gets
// nothing taken as read.
func TestALeaderWhoseLogContradictsTheSnapshotIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		prev    raft.Log
		entries []*raft.Log
	}{
		"in the entry that it ends with": {raft.Log{Index: 4, Term: 2}, []*raft.Log{entry(5, 3, "x"), entry(6, 3, "y")}},
		"in one before":                  {raft.Log{Index: 2, Term: 2}, []*raft.Log{entry(3, 3, "x"), entry(4, 3, "y")}},
		"in what precedes":               {raft.Log{Index: 4, Term: 3}, []*raft.Log{entry(5, 3, "x")}},
	} {
		inBubble(t, name, func(t *testing.T) {
			net := memnet.New()
			noticed := 0
			follower := noticing(t, net, &noticed)
			leader := play(t, net, "n3", 3, repaired)
			leader.mustInstall(raft.Log{Index: 5, Term: 2}, "a b c")
			resp := leader.append(c.prev, 7, c.entries...)
			if got := follower.fsm.String(); resp.Success || noticed != 1 || got != "a b c" {
				t.Errorf("%+v, noticed %d times, applied %q", resp, noticed, got)
			}
		})
	}
}

// Whose term is over is refused, whatever the snapshot has.
func TestAnOldLeadersAppendBeforeTheSnapshotIsRefused(t *testing.T) {
	inBubble(t, "repaired", func(t *testing.T) {
		net := memnet.New()
		start(t, net, repaired)
		old, young := play(t, net, "n1", 2, repaired), play(t, net, "n3", 3, repaired)
		young.mustInstall(raft.Log{Index: 5, Term: 2}, "a b c")
		if resp := old.append(raft.Log{Index: 2, Term: 2}, 5, entry(3, 2, "a")); resp.Success || resp.Term != 3 {
			t.Errorf("%+v", resp)
		}
	})
}

// A vote is for a node, wherever it is.
func TestAVoteIsForANodeNotForItsAddress(t *testing.T) {
	scenario := func(t *testing.T, repair bool) (granted bool) {
		net := memnet.New()
		follower := start(t, net, repair)
		first := play(t, net, "n1", 2, repair)
		ask := func(p *peer, id string) bool {
			var resp raft.RequestVoteResponse
			header := raft.RPCHeader{ProtocolVersion: 3, ID: []byte(id), Addr: p.EncodePeer(raft.ServerID(id), "n1:7401")}
			if err := p.RequestVote("n2", "n2:7401", &raft.RequestVoteRequest{RPCHeader: header, Term: 2, LastLogIndex: 1, LastLogTerm: 1}, &resp); err != nil {
				t.Fatal(err)
			}
			return resp.Granted
		}
		if !ask(first, "n1") {
			t.Fatal("the first is not voted for")
		}
		granted = ask(first, "n3") // which is at n1's address now
		if follower.CurrentTerm() != 2 {
			t.Errorf("term %d", follower.CurrentTerm())
		}
		return granted
	}
	inBubble(t, "repaired", func(t *testing.T) {
		if scenario(t, repaired) {
			t.Error("two nodes got one vote in one term")
		}
	})
	inBubble(t, "bare", func(t *testing.T) {
		if !scenario(t, bare) {
			t.Error("the library no longer votes for addresses: the repair may go")
		}
	})
}

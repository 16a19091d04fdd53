package raftnet

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/test/memnet"
)

// members runs the whole cluster on a network in memory.
func members(t *testing.T, n *memnet.Net) map[raft.ServerID]*node {
	t.Helper()
	all, _ := standing(t, n)
	return all
}

// standing is members, with their transports.
func standing(t *testing.T, n *memnet.Net) (map[raft.ServerID]*node, map[raft.ServerID]*Transport) {
	t.Helper()
	all, transports := make(map[raft.ServerID]*node), make(map[raft.ServerID]*Transport)
	for _, s := range cluster.Servers {
		trans, ok := open(t, n, string(s.ID), repaired).(*Transport)
		if !ok {
			t.Fatal("a repaired transport is none of ours")
		}
		all[s.ID], transports[s.ID] = run(t, s.ID, trans, nil), trans
	}
	return all, transports
}

// leader waits, for a minute at most, until one of the members leads.
func leader(t *testing.T, among map[raft.ServerID]*node, except raft.ServerID) (raft.ServerID, *node) {
	t.Helper()
	for range 6000 {
		for id, node := range among {
			if id != except && node.State() == raft.Leader {
				return id, node
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no leader within a minute")
	return "", nil
}

// agree waits, for a minute at most, until all members have applied words.
func agree(t *testing.T, all map[raft.ServerID]*node, words ...string) {
	t.Helper()
	want := strings.Join(words, " ")
	var got string
	for range 600 {
		same := true
		for id, node := range all {
			if s := node.fsm.String(); s != want {
				same, got = false, fmt.Sprintf("%s has %q", id, s)
			}
		}
		if same {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s, want %q", got, want)
}

func apply(t *testing.T, on *node, word string) {
	t.Helper()
	if err := on.Apply([]byte(word), time.Minute).Error(); err != nil {
		t.Fatalf("apply %q: %v", word, err)
	}
}

func TestCluster(t *testing.T) {
	inBubble(t, "a partition, a new leader, and whole again", func(t *testing.T) {
		net := memnet.New()
		all := members(t, net)
		first, old := leader(t, all, "")
		apply(t, old, "a")
		agree(t, all, "a")

		net.Isolate(string(first))
		lost := old.Apply([]byte("lost"), time.Minute)
		_, young := leader(t, all, first)
		apply(t, young, "b")
		if err := lost.Error(); err == nil {
			t.Error("a leader that was cut off committed")
		}
		net.Heal()
		agree(t, all, "a", "b")
		if err := young.VerifyLeader().Error(); err != nil {
			t.Errorf("healing deposed the leader: %v", err)
		}
	})
	inBubble(t, "a link that is cut one way does not disturb", func(t *testing.T) {
		net := memnet.New()
		all := members(t, net)
		id, lead := leader(t, all, "")
		apply(t, lead, "a")
		agree(t, all, "a")
		term := lead.CurrentTerm()

		// The follower hears no one and stands for leader again and again; pre-votes keep the term as it is.
		follower := other(id)
		for peer := range all {
			net.CutOneWay(string(peer), string(follower))
		}
		time.Sleep(time.Minute)
		apply(t, lead, "b")
		net.Heal()
		agree(t, all, "a", "b")
		if now := lead.CurrentTerm(); now != term || lead.State() != raft.Leader {
			t.Errorf("term %d and %v, was %d and leading", now, lead.State(), term)
		}
	})
	inBubble(t, "what was committed on an idle leader is told within a short time", func(t *testing.T) {
		net := memnet.New()
		all := members(t, net)
		_, lead := leader(t, all, "")
		apply(t, lead, "a")
		time.Sleep(3 * raft.DefaultConfig().CommitTimeout)
		for id, node := range all {
			if got := node.fsm.String(); got != "a" {
				t.Errorf("%s has %q", id, got)
			}
		}
	})
	inBubble(t, "a follower that is far behind gets a snapshot", func(t *testing.T) {
		net := memnet.New()
		all := members(t, net)
		id, lead := leader(t, all, "")
		behind := other(id)
		net.Isolate(string(behind))
		var words []string
		for i := range 20 {
			words = append(words, fmt.Sprint(i))
			apply(t, lead, words[i])
		}
		if err := lead.ReloadConfig(raft.ReloadableConfig{
			TrailingLogs: 1, SnapshotInterval: time.Hour, SnapshotThreshold: 1, HeartbeatTimeout: time.Second, ElectionTimeout: time.Second,
		}); err != nil {
			t.Fatal(err)
		}
		if err := lead.Raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		net.Heal()
		agree(t, all, words...)
		if got := all[behind].Stats()["last_snapshot_index"]; got == "0" {
			t.Error("it caught up without a snapshot: the test shows nothing")
		}
	})
	inBubble(t, "leadership is handed over", func(t *testing.T) {
		net := memnet.New()
		all := members(t, net)
		id, lead := leader(t, all, "")
		apply(t, lead, "a")
		if err := lead.LeadershipTransfer().Error(); err != nil {
			t.Fatal(err)
		}
		_, next := leader(t, all, id)
		apply(t, next, "b")
		agree(t, all, "a", "b")
	})
}

// other gives a member that is not the one named.
func other(not raft.ServerID) raft.ServerID {
	for _, s := range cluster.Servers {
		if s.ID != not {
			return s.ID
		}
	}
	return ""
}

// A whole cluster stops in a partition, with requests under way; synctest fails if a goroutine is left.
func TestStopLeavesNothing(t *testing.T) {
	inBubble(t, "cut off and busy", func(t *testing.T) {
		net := memnet.New()
		all := members(t, net)
		id, lead := leader(t, all, "")
		net.Isolate(string(id))
		lead.Apply([]byte("never"), 0)
		synctest.Wait()
	})
}

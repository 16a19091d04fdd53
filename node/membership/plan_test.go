package membership

import (
	"fmt"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
)

// situation has v voters and e non-voters that are caught up, n1 the leader.
func situation(v, e, wanted int) Situation {
	s := Situation{Self: "n1", Wanted: wanted, AllAnswer: true, Removed: func(string) bool { return false }, Ready: func(raft.ServerID) bool { return true }}
	for i := range v + e {
		id := fmt.Sprintf("n%d", i+1)
		suffrage := raft.Voter
		if i >= v {
			suffrage = raft.Nonvoter
		}
		s.Servers = append(s.Servers, raft.Server{ID: raft.ServerID(id), Suffrage: suffrage})
		s.Members = append(s.Members, fsm.Member{ID: id})
	}
	return s
}

func TestVotersGrowToAnOddNumber(t *testing.T) {
	for _, tc := range []struct {
		voters, others, wanted int
		want                   Plan
	}{
		{1, 0, 5, Plan{}},
		{1, 1, 5, Plan{}}, // two voters survive no more than one
		{1, 2, 5, Plan{Promote: raft.Server{ID: "n2", Suffrage: raft.Nonvoter}}},
		{2, 1, 5, Plan{Promote: raft.Server{ID: "n3", Suffrage: raft.Nonvoter}}},
		{2, 0, 5, Plan{}},
		{3, 1, 5, Plan{}},
		{3, 2, 5, Plan{Promote: raft.Server{ID: "n4", Suffrage: raft.Nonvoter}}},
		{3, 2, 3, Plan{}},
		{5, 2, 5, Plan{}},
		{5, 0, 3, Plan{Demote: "n5"}},
		{4, 0, 3, Plan{Demote: "n4"}},
	} {
		if got := Next(situation(tc.voters, tc.others, tc.wanted)); got != tc.want {
			t.Errorf("%d voters and %d others, %d wanted: %+v, want %+v", tc.voters, tc.others, tc.wanted, got, tc.want)
		}
	}
}

func TestReplicasAndNodesThatLagNeverBecomeVoters(t *testing.T) {
	s := situation(1, 2, 3)
	s.Members[1].Replica = true
	if got := Next(s); got != (Plan{}) {
		t.Errorf("with a replica: %+v", got)
	}
	s = situation(1, 2, 3)
	s.Ready = func(id raft.ServerID) bool { return id != "n3" }
	if got := Next(s); got != (Plan{}) {
		t.Errorf("with a node that lags: %+v", got)
	}
}

func TestNobodyIsDemotedWhileAVoterIsSilent(t *testing.T) {
	s := situation(5, 0, 3)
	s.AllAnswer = false
	if got := Next(s); got != (Plan{}) {
		t.Errorf("%+v", got)
	}
}

func TestTheLeaderNeverDemotesItself(t *testing.T) {
	s := situation(5, 0, 3)
	s.Self = "n5"
	if got := Next(s); got != (Plan{Demote: "n4"}) {
		t.Errorf("%+v", got)
	}
}

func TestARemovalThatWasCutShortIsFinished(t *testing.T) {
	s := situation(3, 0, 3)
	s.Removed = func(id string) bool { return id == "n2" }
	if got := Next(s); got != (Plan{Evict: "n2"}) {
		t.Errorf("%+v", got)
	}
}

func TestAnAdmissionThatWasCutShortIsFinished(t *testing.T) {
	s := situation(3, 0, 3)
	s.Members = append(s.Members, fsm.Member{ID: "new"})
	if got := Next(s); got != (Plan{Place: fsm.Member{ID: "new"}}) {
		t.Errorf("%+v", got)
	}
}

package raftnet

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// voter is a node whose Raft gives everybody a pre-vote, at the end of a link that takes a while.
type voter struct {
	*Transport
	id      raft.ServerID
	in      chan raft.RPC
	refuses bool
}

// link is a way from one voter to another.
type link struct {
	Inner
	in    <-chan raft.RPC
	to    func(raft.ServerID) *voter
	delay time.Duration
}

func (l link) Consumer() <-chan raft.RPC { return l.in }
func (l link) Close() error              { return nil }

func (l link) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	time.Sleep(l.delay) // virtual
	answer := make(chan raft.RPCResponse, 1)
	l.to(id).in <- raft.RPC{Command: args, RespChan: answer}
	got := <-answer
	time.Sleep(l.delay) // virtual
	*resp = *got.Response.(*raft.RequestPreVoteResponse)
	return got.Error
}

// oneWay is how long a request takes.
const oneWay = 75 * time.Millisecond

func voters(t *testing.T, ids ...raft.ServerID) map[raft.ServerID]*voter {
	t.Helper()
	all := make(map[raft.ServerID]*voter)
	for _, id := range ids {
		v := &voter{id: id, in: make(chan raft.RPC)}
		v.Transport = Wrap(link{in: v.in, to: func(id raft.ServerID) *voter { return all[id] }, delay: oneWay}, Config{})
		all[id] = v
		stop := make(chan struct{})
		t.Cleanup(func() { close(stop); v.Close() })
		go func() {
			for {
				select {
				case rpc := <-v.Consumer():
					rpc.Respond(&raft.RequestPreVoteResponse{Granted: !v.refuses}, nil)
				case <-stop:
					return
				}
			}
		}()
	}
	return all
}

// stand asks another for a pre-vote, and gives what comes of it.
func (v *voter) stand(t *testing.T, whom raft.ServerID, last uint64) <-chan bool {
	t.Helper()
	granted := make(chan bool, 1)
	go func() {
		req := &raft.RequestPreVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte(v.id)}, Term: 3, LastLogTerm: 2, LastLogIndex: last}
		var resp raft.RequestPreVoteResponse
		if err := v.RequestPreVote(whom, "", req, &resp); err != nil {
			t.Error(err)
		}
		granted <- resp.Granted
	}()
	return granted
}

func TestOfTwoWhoStandAtTheSameTimeOneGivesWay(t *testing.T) {
	for name, c := range map[string]struct {
		lastOfN2, lastOfN3 uint64
		later              time.Duration // n3 stands
		refuses            bool          // n2's Raft, or n3's
		n2, n3             bool          // what they are given
	}{
		"the higher id comes first":            {lastOfN2: 5, lastOfN3: 5, n3: true},
		"also a while after the other":         {lastOfN2: 5, lastOfN3: 5, later: oneWay - 1, n3: true},
		"the longer log comes first":           {lastOfN2: 6, lastOfN3: 5, n2: true},
		"nobody is held up where all refuse":   {lastOfN2: 5, lastOfN3: 5, refuses: true},
		"who was given one is not in the way":  {lastOfN2: 5, lastOfN3: 5, later: 2 * oneWay, n2: true, n3: true},
		"unless its log is the further":        {lastOfN2: 6, lastOfN3: 5, later: 2 * oneWay, n2: true},
		"and that only as long as an election": {lastOfN2: 6, lastOfN3: 5, later: rivalry + 1, n2: true, n3: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := voters(t, "n2", "n3")
				all["n2"].refuses, all["n3"].refuses = c.refuses, c.refuses
				n2 := all["n2"].stand(t, "n3", c.lastOfN2)
				time.Sleep(c.later) // virtual
				n3 := all["n3"].stand(t, "n2", c.lastOfN3)
				if got2, got3 := <-n2, <-n3; got2 != c.n2 || got3 != c.n3 {
					t.Errorf("n2 %v, n3 %v; want %v, %v", got2, got3, c.n2, c.n3)
				}
			})
		})
	}
}

// A request that was refused says nothing of later ones.
func TestARivalThatWasRefusedIsNotInTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := voters(t, "n2", "n3")
		all["n2"].refuses = true
		if <-all["n3"].stand(t, "n2", 5) {
			t.Fatal("n3 was given a pre-vote")
		}
		if !<-all["n2"].stand(t, "n3", 5) {
			t.Error("n2 was refused by who had been refused")
		}
	})
}

// Who gives way to one makes nothing of what others give.
func TestWhoGivesWayStandsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := voters(t, "n1", "n2", "n3")
		here, there := all["n2"].stand(t, "n3", 5), all["n2"].stand(t, "n1", 5)
		up := all["n3"].stand(t, "n2", 5)
		if <-here || <-there || !<-up {
			t.Error("n2 stands beside n3")
		}
		if !<-all["n2"].stand(t, "n1", 5) {
			t.Error("n2 never stands again")
		}
	})
}

package raftnet

import (
	"bytes"
	"cmp"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// rivalry is how long a request for a pre-vote counts that has not been refused. A round trip between voters takes less.
const rivalry = 500 * time.Millisecond

// rivals keeps two nodes that ask for pre-votes at the same time from both standing. When a leader is lost, each of those
// who are left is given the pre-vote by the other where their requests cross on the way, then votes for itself, and so
// nobody is elected until both have waited once more. With a round trip of 150 ms and a time-out of half a second to a
// second, that happened up to four times in a row.
//
// So where requests cross, the node whose log is further, or else whose id is higher, refuses the other's, and that other
// makes nothing of what pre-votes it is still given. A pre-vote that is refused is always safe.
type rivals struct {
	mu sync.Mutex
	// asked are the requests that were not refused so far, by whom they went to.
	asked map[raft.ServerID]candidacy
	// gaveWay is when this node last saw a rival that comes before it.
	gaveWay time.Time
}

// candidacy is a request for a pre-vote, and when it was sent.
type candidacy struct {
	args *raft.RequestPreVoteRequest
	at   time.Time
}

// asks notes that this node asks the given one.
func (r *rivals) asks(whom raft.ServerID, args *raft.RequestPreVoteRequest) candidacy {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked == nil {
		r.asked = make(map[raft.ServerID]candidacy)
	}
	c := candidacy{args: args, at: time.Now()}
	r.asked[whom] = c
	return c
}

// answered tells whether the pre-vote counts, if it was given at all.
func (r *rivals) answered(whom raft.ServerID, c candidacy, granted bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !granted && r.asked[whom] == c {
		delete(r.asked, whom)
	}
	return granted && r.gaveWay.Before(c.at)
}

// refuses tells whether the request of another node crossed one to it that comes first. If it crossed one that does not,
// this node gives way.
func (r *rivals) refuses(args *raft.RequestPreVoteRequest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	own, crossed := r.asked[raft.ServerID(args.ID)]
	if !crossed || time.Since(own.at) > rivalry {
		return false
	}
	if before(own.args, args) {
		return true
	}
	r.gaveWay = time.Now()
	return false
}

// before tells whether the first of two candidates comes before the other.
func before(a, b *raft.RequestPreVoteRequest) bool {
	return cmp.Or(
		cmp.Compare(a.LastLogTerm, b.LastLogTerm),
		cmp.Compare(a.LastLogIndex, b.LastLogIndex),
		bytes.Compare(a.ID, b.ID),
	) > 0
}

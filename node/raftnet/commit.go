package raftnet

import (
	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/plant"
)

// vouched gives req with its commit index lowered to the last entry that req vouches for: what comes before its
// entries is checked against PrevLogEntry, the entries themselves it brings, and of anything behind them it says
// nothing (Raft paper, figure 2, AppendEntries, receiver step 5). Raft's own request may still be in use, so the
// lowered one is a copy.
//
// A heartbeat checks nothing and so commits nothing; Raft sends them with commit index 0 anyway. Followers hear
// what is committed with the next entries or, on an idle leader, within CommitTimeout by an append without
// entries whose PrevLogEntry is the last one they have.
func vouched(req *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	last := req.PrevLogEntry + uint64(len(req.Entries))
	if req.LeaderCommitIndex <= last || plant.On(plant.CommitIndex) {
		return req
	}
	lowered := *req
	lowered.LeaderCommitIndex = last
	return &lowered
}

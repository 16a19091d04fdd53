package raftnet

import (
	"errors"
	"strconv"

	"github.com/hashicorp/raft"
)

// state is what an append that Raft refused is judged by.
type state struct {
	raft *raft.Raft
	logs raft.LogStore
}

// append has Raft handle an append. One that Raft refuses although it follows on this node's own snapshot is looked
// at again: what comes before it is committed here, so there is nothing that could be missing or wrong.
//
//   - The log begins behind the snapshot. Raft wants the entry before the ones that came, and does not look at the
//     snapshot. It is asked again, for entries without anything before them, as the first of a log are.
//   - The log has another entry where the snapshot ends: all that is there was lost. Raft judges by that log and will
//     refuse for ever, and the leader will send its snapshot again and again.
func (t *Transport) append(rpc raft.RPC, req *raft.AppendEntriesRequest) raft.RPCResponse {
	rpc.Command = req
	resp := t.ask(rpc)
	s := t.state.Load()
	if s == nil || !refused(req, resp) || !s.follows(req) {
		return resp
	}
	var last raft.Log
	switch err := s.logs.GetLog(req.PrevLogEntry, &last); {
	case errors.Is(err, raft.ErrLogNotFound):
		alone := *req
		alone.PrevLogEntry, alone.PrevLogTerm = 0, 0
		rpc.Command = &alone
		return t.ask(rpc)
	case err == nil && last.Term != req.PrevLogTerm:
		t.log.Error("the log contradicts the snapshot: this node has to be started anew", "snapshot-index", req.PrevLogEntry)
		t.overtakenOnce.Do(t.overtaken)
	}
	return resp
}

// refused tells whether Raft follows the sender and yet refused what follows on some entry.
func refused(req *raft.AppendEntriesRequest, resp raft.RPCResponse) bool {
	answer, ok := resp.Response.(*raft.AppendEntriesResponse)
	return ok && resp.Error == nil && !answer.Success && answer.Term == req.Term && req.PrevLogEntry > 0
}

// follows tells whether an append follows on the last entry of the snapshot.
func (s *state) follows(req *raft.AppendEntriesRequest) bool {
	index, term := lastSnapshot(s.raft)
	return req.PrevLogEntry == index && req.PrevLogTerm == term
}

// lastSnapshot gives the entry that r's snapshot ends with; zeros if it has none. Raft tells it in its statistics
// only.
func lastSnapshot(r *raft.Raft) (index, term uint64) {
	stats := r.Stats()
	number := func(name string) uint64 {
		n, err := strconv.ParseUint(stats[name], 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	return number("last_snapshot_index"), number("last_snapshot_term")
}

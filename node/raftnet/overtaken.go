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

// append has Raft handle an append. One that Raft refuses although this node's own snapshot has the entry before it
// is looked at again: up to the snapshot's end all is committed, here as at the leader, so there is nothing before it
// that could be missing or wrong.
//
//   - It begins before the snapshot's end. The log may not go back that far, and Raft would refuse for ever what the
//     leader sends: it goes back one entry at a time, as far as a snapshot of its own, older than this node's, and
//     begins anew. What the snapshot has is taken as read, and Raft is asked about the rest.
//   - The log begins behind the snapshot. Raft wants the entry before the ones that came, and does not look at the
//     snapshot. It is asked again, for entries without anything before them, as the first of a log are.
//   - The log has another entry where the snapshot ends: all that is there was lost. Raft judges by that log and will
//     refuse for ever, and the leader will send its snapshot again and again.
func (t *Transport) append(rpc raft.RPC, req *raft.AppendEntriesRequest) raft.RPCResponse {
	rpc.Command = req
	resp := t.ask(rpc)
	s := t.state.Load()
	if s == nil || !refused(req, resp) {
		return resp
	}
	index, term := lastSnapshot(s.raft)
	if contradicts(req, index, term) {
		t.giveUp("the leader's log contradicts this node's snapshot: the cluster has lost entries that were committed", index)
		return resp
	}
	if req.PrevLogEntry < index {
		req = behind(req, index, term)
		if len(req.Entries) == 0 {
			return raft.RPCResponse{Response: accepted(resp)}
		}
		rpc.Command = req
		if resp = t.ask(rpc); !refused(req, resp) {
			return resp
		}
	}
	if req.PrevLogEntry != index || req.PrevLogTerm != term {
		return resp
	}
	var last raft.Log
	switch err := s.logs.GetLog(index, &last); {
	case errors.Is(err, raft.ErrLogNotFound):
		alone := *req
		alone.PrevLogEntry, alone.PrevLogTerm = 0, 0
		rpc.Command = &alone
		return t.ask(rpc)
	case err == nil && last.Term != term:
		t.giveUp("the log contradicts the snapshot: this node has to be started anew", index)
	}
	return resp
}

func (t *Transport) giveUp(why string, index uint64) {
	t.overtakenOnce.Do(func() {
		t.log.Error(why, "snapshot-index", index)
		t.overtaken()
	})
}

// contradicts tells whether an append cannot be of the log that a snapshot ends with the entry index of term: terms never
// fall along a log. It takes committed entries that were lost elsewhere, as with a data directory that was put back.
func contradicts(req *raft.AppendEntriesRequest, index, term uint64) bool {
	if req.PrevLogEntry <= index && req.PrevLogTerm > term {
		return true
	}
	for _, e := range req.Entries {
		if e.Index < index && e.Term > term || e.Index == index && e.Term != term {
			return true
		}
	}
	return false
}

// refused tells whether Raft follows the sender and yet refused what follows on some entry.
func refused(req *raft.AppendEntriesRequest, resp raft.RPCResponse) bool {
	answer, ok := resp.Response.(*raft.AppendEntriesResponse)
	return ok && resp.Error == nil && !answer.Success && answer.Term == req.Term && req.PrevLogEntry > 0
}

// behind gives what req brings behind a snapshot that ends with the entry index of term.
func behind(req *raft.AppendEntriesRequest, index, term uint64) *raft.AppendEntriesRequest {
	rest := *req
	rest.PrevLogEntry, rest.PrevLogTerm = index, term
	rest.Entries = req.Entries[min(index-req.PrevLogEntry, uint64(len(req.Entries))):]
	return &rest
}

// accepted turns the answer to an append into one that has taken it.
func accepted(resp raft.RPCResponse) *raft.AppendEntriesResponse {
	answer := *resp.Response.(*raft.AppendEntriesResponse)
	answer.Success, answer.NoRetryBackoff = true, false
	return &answer
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

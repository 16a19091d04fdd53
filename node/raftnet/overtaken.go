package raftnet

import (
	"strconv"

	"github.com/hashicorp/raft"
)

// noticeOvertaken looks at an append that Raft refused. If it follows on this node's own snapshot, it can only be
// refused because the log has another entry where the snapshot ends: all that is there was lost. Raft judges by that
// log and will refuse for ever, and the leader will send its snapshot again and again.
func (t *Transport) noticeOvertaken(req *raft.AppendEntriesRequest, resp raft.RPCResponse) {
	answer, ok := resp.Response.(*raft.AppendEntriesResponse)
	snapshot := t.snapshot.Load()
	if !ok || resp.Error != nil || answer.Success || answer.Term != req.Term || req.PrevLogEntry == 0 || snapshot == nil {
		return
	}
	if index, term := (*snapshot)(); index != req.PrevLogEntry || term != req.PrevLogTerm {
		return
	}
	t.log.Error("the log contradicts the snapshot: this node has to be started anew", "snapshot-index", req.PrevLogEntry)
	t.overtakenOnce.Do(t.overtaken)
}

func (t *Transport) bindSnapshot(last func() (index, term uint64)) { t.snapshot.Store(&last) }

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

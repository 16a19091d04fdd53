package raftnet

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/plant"
)

var errNotBound = errors.New("this node does not know yet what it has committed: send the snapshot again")

// handleSnapshot lets Raft install a snapshot only if it holds something that is not committed here yet, and while none of
// this node's own is about to count.
//
// It first shows Raft a heartbeat with the snapshot's term and sender, and waits for the answer. Raft judges the
// term itself that way, and all that a leader's message does besides (follow it, put off the next election) is
// done also for a snapshot that is not installed. It also makes the check of the index final: once Raft follows
// that term, its commit index moves only with requests that come through here, which wait their turn; and if it
// stands for leader in the meantime, it has a newer term and turns the snapshot down.
func (t *Transport) handleSnapshot(rpc raft.RPC, req *raft.InstallSnapshotRequest) {
	term, follows, err := t.announce(req)
	committed := t.committed.Load()
	switch {
	case err != nil || !follows:
	case committed == nil:
		err = errNotBound
	case req.LastLogIndex > (*committed)(), plant.On(plant.OldSnapshot), plant.On(plant.RestoredFreshness): // which needs one
		if err = t.own.yield(); err == nil {
			resp := t.ask(rpc)
			if !errors.Is(resp.Error, raft.ErrTransportShutdown) { // Raft may still be at it
				t.own.resume()
			}
			t.answer(rpc, resp)
			return
		}
	default:
		t.log.Info("snapshot not installed: all of it is committed here", "snapshot-index", req.LastLogIndex, "snapshot-term", req.Term)
	}
	resp := raft.RPCResponse{Response: &raft.InstallSnapshotResponse{Term: term, Success: follows}, Error: err}
	t.running.Go(func() { t.answer(rpc, drained(rpc.Reader, req.Size, resp)) })
}

// announce shows Raft the sender of a snapshot as the leader of its term. It gives Raft's term and whether Raft
// follows that leader.
func (t *Transport) announce(req *raft.InstallSnapshotRequest) (term uint64, follows bool, err error) {
	resp := t.ask(raft.RPC{Command: &raft.AppendEntriesRequest{
		RPCHeader: req.RPCHeader,
		Term:      req.Term,
		Leader:    req.Leader, //nolint:staticcheck // members that do not know RPCHeader.Addr send it alone
	}})
	if resp.Error != nil {
		return 0, false, resp.Error
	}
	heartbeat, ok := resp.Response.(*raft.AppendEntriesResponse)
	if !ok {
		return 0, false, fmt.Errorf("raft answered a heartbeat with %T", resp.Response)
	}
	return heartbeat.Term, heartbeat.Success, nil
}

// drained reads away the snapshot, so that what follows it on the connection can be read, and then gives resp.
func drained(from io.Reader, size int64, resp raft.RPCResponse) raft.RPCResponse {
	n, err := io.Copy(io.Discard, from)
	if err == nil && n != size {
		err = fmt.Errorf("%d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
	}
	if err != nil && resp.Error == nil {
		resp.Error = fmt.Errorf("read a snapshot that is not installed: %w", err)
	}
	return resp
}

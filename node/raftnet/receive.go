package raftnet

import "github.com/hashicorp/raft"

// receive brings requests to Raft, one after the other: the next one is handed over when the one before it has
// been answered. Raft's main loop takes them one at a time in any case; here it means that whatever an earlier
// request changes has been changed when a later one is judged.
func (t *Transport) receive() {
	for {
		select {
		case rpc := <-t.inner.Consumer():
			t.handle(rpc)
		case <-t.stop:
			return
		}
	}
}

func (t *Transport) handle(rpc raft.RPC) {
	switch req := rpc.Command.(type) {
	case *raft.InstallSnapshotRequest:
		t.handleSnapshot(rpc, req)
		return
	case *raft.AppendEntriesRequest:
		t.answer(rpc, t.append(rpc, vouched(req)))
		return
	case *raft.RequestPreVoteRequest:
		if t.rivals.refuses(req) {
			t.answer(rpc, raft.RPCResponse{Response: &raft.RequestPreVoteResponse{Term: req.Term}})
			return
		}
	case *raft.TimeoutNowRequest:
		if t.seated.Load() {
			t.answer(rpc, raft.RPCResponse{Response: &raft.TimeoutNowResponse{}, Error: errSeated})
			return
		}
	}
	t.answer(rpc, t.ask(rpc))
}

// ask has Raft's main loop handle rpc and waits for what it answers.
func (t *Transport) ask(rpc raft.RPC) raft.RPCResponse {
	answered := make(chan raft.RPCResponse, 1)
	rpc.RespChan = answered
	select {
	case t.out <- rpc:
	case <-t.stop:
		return raft.RPCResponse{Error: raft.ErrTransportShutdown}
	}
	select {
	case resp := <-answered:
		return resp
	case <-t.stop:
		return raft.RPCResponse{Error: raft.ErrTransportShutdown}
	}
}

// answer gives resp to whoever sent rpc. It does not wait once the transport is closed.
func (t *Transport) answer(rpc raft.RPC, resp raft.RPCResponse) {
	select {
	case rpc.RespChan <- resp:
	default:
		select {
		case rpc.RespChan <- resp:
		case <-t.stop:
		}
	}
}

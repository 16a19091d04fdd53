package raftnet

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// nothing is an empty snapshot.
type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

// fake is a transport whose other side is the test.
type fake struct {
	Inner
	in     chan raft.RPC
	target raft.ServerAddress
	closed int
}

func newFake() *fake { return &fake{in: make(chan raft.RPC)} }

func (f *fake) Consumer() <-chan raft.RPC { return f.in }
func (f *fake) Close() error              { f.closed++; return nil }

func (f *fake) SetHeartbeatHandler(func(raft.RPC)) { panic("a heartbeat handler was installed") }

func (f *fake) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, nil // it could
}

func (f *fake) RequestPreVote(_ raft.ServerID, target raft.ServerAddress, _ *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	f.target, resp.Granted = target, true
	return nil
}

// request brings cmd in as from another node.
func (f *fake) request(cmd any, data io.Reader) <-chan raft.RPCResponse {
	resp := make(chan raft.RPCResponse, 1)
	f.in <- raft.RPC{Command: cmd, Reader: data, RespChan: resp}
	return resp
}

func TestNoShortcuts(t *testing.T) {
	trans := Wrap(newFake(), Config{})
	defer trans.Close()
	trans.SetHeartbeatHandler(func(raft.RPC) {})
	if _, err := trans.AppendEntriesPipeline("n2", "n2:7401"); !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Errorf("pipeline: %v", err)
	}
}

type addresses map[raft.ServerID]raft.ServerAddress

func (a addresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if addr, ok := a[id]; ok {
		return addr, nil
	}
	return "", errors.New("unknown")
}

func TestAddressesByID(t *testing.T) {
	inner := newFake()
	trans := Wrap(inner, Config{Addresses: addresses{"n2": "moved:7401"}})
	defer trans.Close()
	for id, want := range map[raft.ServerID]raft.ServerAddress{"n2": "moved:7401", "n3": "configured:7401"} {
		var resp raft.RequestPreVoteResponse
		if err := trans.RequestPreVote(id, "configured:7401", &raft.RequestPreVoteRequest{}, &resp); err != nil || !resp.Granted {
			t.Errorf("pre-vote: %+v, %v", resp, err)
		}
		if inner.target != want {
			t.Errorf("%s asked at %s, want %s", id, inner.target, want)
		}
	}
}

// A snapshot that comes before it is known what is committed is not lost: the leader sends it again.
func TestSnapshotBeforeBind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newFake()
		trans := Wrap(inner, Config{})
		defer trans.Close()
		passed := 0
		go follow(trans, &passed)

		send := func() (raft.RPCResponse, int) {
			data := strings.NewReader("a b")
			resp := <-inner.request(&raft.InstallSnapshotRequest{Term: 1, LastLogIndex: 9, Size: 3}, data)
			return resp, data.Len()
		}
		if resp, left := send(); resp.Error == nil || passed != 0 || left != 0 {
			t.Errorf("before: %+v, %d passed on, %d bytes left", resp, passed, left)
		}
		trans.bind(func() uint64 { return 8 })
		if resp, _ := send(); resp.Error != nil || passed != 1 {
			t.Errorf("ahead of what is committed: %+v, %d passed on", resp, passed)
		}
		trans.bind(func() uint64 { return 9 })
		if resp, left := send(); resp.Error != nil || passed != 1 || left != 0 {
			t.Errorf("committed: %+v, %d passed on, %d bytes left", resp, passed, left)
		}
	})
}

// A node that leads commits by itself, until it hears of the newer term: what is committed counts only from then on.
func TestSnapshotToLeaderThatStillCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newFake()
		committed := uint64(8)
		trans := Wrap(inner, Config{})
		trans.bind(func() uint64 { return committed })
		defer trans.Close()
		go func() {
			heartbeat := <-trans.Consumer()
			committed = 9
			heartbeat.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			passed := 0
			follow(trans, &passed)
			if passed != 0 {
				t.Error("a snapshot of what had been committed by then was passed on")
			}
		}()
		<-inner.request(&raft.InstallSnapshotRequest{LastLogIndex: 9}, nothing{})
	})
}

func TestSnapshotCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newFake()
		trans := Wrap(inner, Config{})
		trans.bind(func() uint64 { return 9 })
		defer trans.Close()
		go follow(trans, new(int))
		resp := <-inner.request(&raft.InstallSnapshotRequest{LastLogIndex: 9, Size: 100}, strings.NewReader("a b"))
		if !errors.Is(resp.Error, io.ErrUnexpectedEOF) {
			t.Errorf("answer %+v", resp)
		}
	})
}

// A snapshot that trickles in does not keep other requests waiting while it is read away.
func TestSlowSnapshotHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newFake()
		trans := Wrap(inner, Config{})
		trans.bind(func() uint64 { return 9 })
		defer trans.Close()
		go follow(trans, new(int))
		r, w := io.Pipe()
		slow := inner.request(&raft.InstallSnapshotRequest{LastLogIndex: 9, Size: 1}, r)
		if resp := <-inner.request(&raft.RequestVoteRequest{}, nil); resp.Error != nil {
			t.Errorf("meanwhile: %+v", resp)
		}
		w.Write([]byte("a"))
		w.Close()
		if resp := <-slow; resp.Error != nil || !resp.Response.(*raft.InstallSnapshotResponse).Success {
			t.Errorf("in the end: %+v", resp)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newFake()
		trans := Wrap(inner, Config{})
		waiting := inner.request(&raft.RequestVoteRequest{}, nil) // and Raft does not come
		for range 2 {
			if err := trans.Close(); err != nil {
				t.Error(err)
			}
		}
		if resp := <-waiting; !errors.Is(resp.Error, raft.ErrTransportShutdown) {
			t.Errorf("the request that waited: %+v", resp)
		}
		if inner.closed != 1 {
			t.Errorf("the inner transport was closed %d times", inner.closed)
		}
	})
}

// follow answers as a follower would, and counts the snapshots that reach it.
func follow(trans *Transport, snapshots *int) {
	for {
		select {
		case rpc := <-trans.Consumer():
			switch rpc.Command.(type) {
			case *raft.AppendEntriesRequest:
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			case *raft.InstallSnapshotRequest:
				*snapshots++
				rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
			default:
				rpc.Respond(nil, nil)
			}
		case <-trans.stop:
			return
		}
	}
}

// BenchmarkReceive is what a request costs on its way to Raft, through the repairs and without.
func BenchmarkReceive(b *testing.B) {
	bench := func(b *testing.B, in chan<- raft.RPC, out <-chan raft.RPC) {
		done := make(chan struct{})
		defer close(done)
		go func() {
			for {
				select {
				case rpc := <-out:
					rpc.Respond(nil, nil)
				case <-done:
					return
				}
			}
		}()
		req := &raft.AppendEntriesRequest{PrevLogEntry: 7, LeaderCommitIndex: 9}
		for b.Loop() {
			resp := make(chan raft.RPCResponse, 1)
			in <- raft.RPC{Command: req, RespChan: resp}
			<-resp
		}
	}
	b.Run("bare", func(b *testing.B) {
		b.ReportAllocs()
		in := make(chan raft.RPC)
		bench(b, in, in)
	})
	b.Run("repaired", func(b *testing.B) {
		b.ReportAllocs()
		inner := newFake()
		trans := Wrap(inner, Config{})
		defer trans.Close()
		bench(b, inner.in, trans.Consumer())
	})
}

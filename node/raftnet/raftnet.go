// Package raftnet repairs, in one wrapper around any transport, what hashicorp/raft 1.8.0 does to a cluster's
// safety over the wire. The library is not changed; a node's real transport and a simulation's both go through
// the wrapper, so that what is simulated is what runs.
//
// The faults, and what is done about each:
//
//   - Heartbeats are answered beside Raft's main loop, which lets one raise the term while the entries of an
//     older leader are still being appended, and that append is then acknowledged (hashicorp/raft issue 695).
//     Here no heartbeat handler is ever installed: heartbeats take the main loop like everything else, and
//     wait for a follower's fsync. Raft's time-outs have to leave room for that.
//   - A follower commits up to the leader's commit index or its own last entry, whichever is lower, though the
//     request vouched only for the entries that it carried and those before them. A suffix that the leader
//     does not have is applied that way. Here both ends lower the commit index to what the request vouches for
//     (commit.go).
//   - An InstallSnapshot that arrives late puts a follower back to an older state. Here it is answered, and not
//     installed (snapshot.go).
//   - A node that is sent a snapshot while it takes an older one of itself notes the older one as its last, whichever
//     comes later (issue 248). It refuses then what follows on the newer one, and, as that is not installed twice, the
//     leader would send it for ever. Here its own gives way (own.go).
//   - A refused append can wedge a follower while appends are pipelined (issue 612). Here there is no pipeline.
//   - A vote is remembered by the candidate's address, and given to whoever stands at that address in the same term,
//     whatever its log. Members that exchanged addresses could both lead in one term. Here a node is written by its id.
//   - After a snapshot, a follower refuses what follows on it if the log no longer has the snapshot's last entry, or
//     still has another one, which was lost. Here the first is mended, and the second, which only a start can mend
//     (raftstore), is noticed (overtaken.go).
//   - A leader that takes a follower to be further behind than it is goes back over entries that the follower has in
//     its snapshot only, one at a time and without a pause; as late snapshots are not installed, it would never come to
//     an end. Here what the snapshot has is taken as read (overtaken.go).
//
// Beside the repairs, a node can be kept from standing for leader (stand.go), and of two that stand at the same time one
// gives way (rivals.go).
package raftnet

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Inner is a transport that can be wrapped. Pre-vote is asked for because Raft silently does without it when a
// transport lacks the method; and Close because a node that stops waits for its goroutines.
type Inner interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// Config says how a Transport behaves. Its zero value is fit for use.
type Config struct {
	// Overtaken is called, once, when this node's log contradicts its own snapshot: it has to be started anew. It
	// is called on the goroutine that takes requests, so it must not wait. Nil for nobody.
	Overtaken func()
	// Addresses finds a node's address by its id. Where it fails, or is nil, the address in Raft's own
	// configuration is used. It is asked before each request, so it must be quick; any goroutine may call it.
	Addresses raft.ServerAddressProvider
	// Logger gets what the wrapper does in place of Raft; nothing is logged if nil.
	Logger hclog.Logger
}

// Transport is a raft.Transport with the repairs. All methods are safe for concurrent use.
type Transport struct {
	// addressed tells that connections begin with whom they are meant for.
	addressed bool

	inner     Inner
	addresses raft.ServerAddressProvider
	log       hclog.Logger
	committed atomic.Pointer[func() uint64]
	state     atomic.Pointer[state]
	overtaken func()
	// overtakenOnce is for calling it.
	overtakenOnce sync.Once
	// seated is set while this node does not stand for leader.
	seated atomic.Bool
	rivals rivals
	own    own

	out     chan raft.RPC // to Raft's main loop
	stop    chan struct{}
	close   sync.Once
	running sync.WaitGroup
}

// Raft looks for these by type assertion, and does without them in silence.
var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
	_ Inner            = (*raft.NetworkTransport)(nil)
)

// Wrap repairs inner, which belongs to the Transport from then on. Close must be called; Raft does so when the
// error of its shutdown future is asked for.
func Wrap(inner Inner, cfg Config) *Transport {
	t := &Transport{
		inner:     inner,
		addresses: cfg.Addresses,
		log:       cfg.Logger,
		overtaken: cfg.Overtaken,
		out:       make(chan raft.RPC),
		stop:      make(chan struct{}),
	}
	if t.log == nil {
		t.log = hclog.NewNullLogger()
	}
	if t.overtaken == nil {
		t.overtaken = func() {}
	}
	t.running.Go(t.receive)
	return t
}

// bind sets what gives the index up to which this node's state can never be taken back.
func (t *Transport) bind(committed func() uint64) { t.committed.Store(&committed) }

// BindRaft binds to what r has committed, to the snapshot that it stands on, and to its log. r needs the transport, so
// this comes later; until then snapshots from other nodes are refused with an error, and the leader sends them again.
func (t *Transport) BindRaft(r *raft.Raft, logs raft.LogStore) {
	t.bind(func() uint64 { return max(r.CommitIndex(), r.AppliedIndex()) })
	t.state.Store(&state{raft: r, logs: logs})
}

// Close closes the inner transport and waits for the wrapper's own goroutines. Requests that wait for Raft are
// answered with raft.ErrTransportShutdown. It may be called more than once.
func (t *Transport) Close() error {
	var err error
	t.close.Do(func() {
		close(t.stop)
		err = t.inner.Close()
	})
	t.running.Wait()
	return err
}

// Consumer gives what other nodes ask of this one.
func (t *Transport) Consumer() <-chan raft.RPC { return t.out }

// SetHeartbeatHandler does nothing: a heartbeat that is handled beside the main loop breaks Raft's safety.
func (t *Transport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntriesPipeline always says that there is no pipelining.
func (t *Transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries sends args with no more committed than it vouches for; args itself stays as it is.
func (t *Transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return t.inner.AppendEntries(id, t.resolve(id, target), vouched(args), resp)
}

// RequestVote asks for a vote.
func (t *Transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.inner.RequestVote(id, t.resolve(id, target), args, resp)
}

// RequestPreVote asks whether a vote would be given. A node that does not stand asks nobody, and one that has given way to
// another meanwhile takes the answer for a refusal.
func (t *Transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if t.seated.Load() {
		*resp = raft.RequestPreVoteResponse{Term: args.Term}
		return nil
	}
	asked := t.rivals.asks(id, args)
	err := t.inner.RequestPreVote(id, t.resolve(id, target), args, resp)
	resp.Granted = t.rivals.answered(id, asked, err == nil && resp.Granted)
	return err
}

// InstallSnapshot sends a snapshot, which is read from data.
func (t *Transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.inner.InstallSnapshot(id, t.resolve(id, target), args, resp, data)
}

// TimeoutNow tells a node to stand for leader at once.
func (t *Transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.inner.TimeoutNow(id, t.resolve(id, target), args, resp)
}

// LocalAddr is the address that other nodes reach this one at.
func (t *Transport) LocalAddr() raft.ServerAddress { return t.inner.LocalAddr() }

// EncodePeer gives a node as it is written in requests and votes: by its id.
func (t *Transport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte { return []byte(id) }

// DecodePeer reads what EncodePeer wrote. Raft compares it and shows it; nobody connects to it.
func (t *Transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

func (t *Transport) resolve(id raft.ServerID, fallback raft.ServerAddress) raft.ServerAddress {
	addr := fallback
	if t.addresses != nil {
		if known, err := t.addresses.ServerAddr(id); err == nil && known != "" {
			addr = known
		}
	}
	if t.addressed {
		return Address(id, addr)
	}
	return addr
}

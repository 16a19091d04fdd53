package sim

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/node/raftnet"
)

// weather is what happens to Raft's messages: each number is a chance from 0 to 1.
type weather struct {
	// lose drops a message, mute the answer to one; either way the sender hears that it failed.
	lose, mute float64
	// delay holds a message up, repeat delivers it once more, later.
	delay, repeat float64
	// late tells the sender that a message failed, and delivers it later: behind others that were sent after it.
	late float64
	// most is the longest that something is held up.
	most time.Duration
}

// sky is the weather of a world, and what it did.
type sky struct {
	now  atomic.Pointer[weather]
	hits atomic.Int64
	// repeatedSnapshots counts snapshots that came again late, installed those that a member took.
	repeatedSnapshots, installed atomic.Int64

	mu    sync.Mutex
	wires map[raft.ServerID]*wire // of the processes that run
}

// wire is one process's transport inside the repairs: where its messages meet the weather. Messages that come late are
// handed to the receiver beside its connections, so that they outlive their sender.
type wire struct {
	raftnet.Inner
	id  raft.ServerID
	sky *sky

	mu  sync.Mutex // of rng
	rng *rand.Rand

	out     chan raft.RPC
	late    chan raft.RPC
	stop    chan struct{}
	close   sync.Once
	running sync.WaitGroup
}

var errLost = errors.New("simulated: the message was lost")

func (s *sky) wrap(id string, rng *rand.Rand, inner raftnet.Inner) *wire {
	w := &wire{
		Inner: inner, id: raft.ServerID(id), sky: s, rng: rng,
		out: make(chan raft.RPC), late: make(chan raft.RPC), stop: make(chan struct{}),
	}
	w.running.Go(w.receive)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wires[w.id] = w
	return w
}

// forget takes a process that has ended off the air.
func (s *sky) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.wires, raft.ServerID(id))
}

func (s *sky) find(id raft.ServerID) *wire {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wires[id]
}

// receive brings together what comes by connection and what comes late.
func (w *wire) receive() {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-w.Inner.Consumer():
		case rpc = <-w.late:
		case <-w.stop:
			return
		}
		select {
		case w.out <- rpc:
		case <-w.stop:
			return
		}
	}
}

// Consumer implements raft.Transport.
func (w *wire) Consumer() <-chan raft.RPC { return w.out }

// Close implements raft.WithClose.
func (w *wire) Close() error {
	w.close.Do(func() { close(w.stop) })
	err := w.Inner.Close()
	w.running.Wait()
	return err
}

// fate is what becomes of one message.
type fate struct {
	lost, muted, late, repeated bool
	delay                       time.Duration
}

func (w *wire) draw() fate {
	now := w.sky.now.Load()
	if now == nil {
		return fate{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	chance := func(p float64) bool { return w.rng.Float64() < p }
	f := fate{lost: chance(now.lose), muted: chance(now.mute), late: chance(now.late), repeated: chance(now.repeat)}
	if f.late || f.repeated || chance(now.delay) {
		f.delay = time.Duration(w.rng.Int64N(int64(now.most)))
	}
	if f != (fate{}) {
		w.sky.hits.Add(1)
	}
	return f
}

// wait tells whether the process lives on after d.
func (w *wire) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.stop:
		return false
	}
}

// patience is how long a sender takes to give a message up.
const patience = 150 * time.Millisecond

// failed has the sender wait for an answer that never comes.
func (w *wire) failed() error {
	w.wait(patience)
	return errLost
}

// transmit sends one message through the weather.
func transmit[Req, Res any](w *wire, to raft.ServerID, req *Req, res *Res, send func(*Req, *Res) error) error {
	f := w.draw()
	switch copied := *req; {
	case f.lost:
		return w.failed()
	case f.late:
		w.again(to, &copied, nil, f.delay)
		return w.failed()
	case f.repeated:
		w.again(to, &copied, nil, f.delay)
	case f.delay > 0 && !w.wait(f.delay):
		return errLost
	}
	if err := send(req, res); err != nil || !f.muted {
		return err
	}
	return w.failed()
}

// again delivers a message after d to the process that then runs at its destination, if one does. The answer reaches
// nobody.
func (w *wire) again(to raft.ServerID, req any, data []byte, d time.Duration) {
	time.AfterFunc(d, func() {
		receiver := w.sky.find(to)
		if receiver == nil {
			return
		}
		answers := make(chan raft.RPCResponse, 1)
		rpc := raft.RPC{Command: req, RespChan: answers}
		if data != nil {
			rpc.Reader = bytes.NewReader(data)
		}
		select {
		case receiver.late <- rpc:
		case <-receiver.stop:
		}
	})
}

// AppendEntries implements raft.Transport.
func (w *wire) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return transmit(w, id, args, resp, func(a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
		return w.Inner.AppendEntries(id, target, a, r)
	})
}

// RequestVote implements raft.Transport.
func (w *wire) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return transmit(w, id, args, resp, func(a *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
		return w.Inner.RequestVote(id, target, a, r)
	})
}

// RequestPreVote implements raft.WithPreVote.
func (w *wire) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return transmit(w, id, args, resp, func(a *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
		return w.Inner.RequestPreVote(id, target, a, r)
	})
}

// TimeoutNow implements raft.Transport.
func (w *wire) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return transmit(w, id, args, resp, func(a *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
		return w.Inner.TimeoutNow(id, target, a, r)
	})
}

// InstallSnapshot implements raft.Transport. In bad weather, each snapshot comes once more.
func (w *wire) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if now := w.sky.now.Load(); now != nil && now.repeat > 0 {
		whole, err := io.ReadAll(data)
		if err != nil {
			return err
		}
		copied := *args
		w.mu.Lock()
		delay := time.Duration(w.rng.Int64N(int64(4 * now.most)))
		w.mu.Unlock()
		w.sky.hits.Add(1)
		w.sky.repeatedSnapshots.Add(1)
		w.again(id, &copied, whole, delay)
		data = bytes.NewReader(whole)
	}
	err := w.Inner.InstallSnapshot(id, target, args, resp, data)
	if err == nil && resp.Success {
		w.sky.installed.Add(1)
	}
	return err
}

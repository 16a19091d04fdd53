package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/plant"
	"github.com/keyquorum/keyquorum/node/rotation"
)

// watchLeadership does the leader's duties while, and only while, this node leads. LeaderCh holds the latest
// news only, so two changes in quick succession look like one: a second win without a loss starts the duties
// anew.
func (n *Node) watchLeadership(ctx context.Context) error {
	end := func() {}
	defer func() { end() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case won := <-n.raft.LeaderCh():
			end()
			end = func() {}
			if won {
				end = n.lead(ctx)
			}
		}
	}
}

// lead starts the leader's duties, and gives what ends them and waits for that.
func (n *Node) lead(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.duties(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// reign is a term that this node leads in, and when it had applied all that earlier leaders committed.
type reign struct {
	term  uint64
	since time.Duration // by Mono
}

// duties are the leader's: first to have applied all that earlier leaders committed, then to rotate, to look
// after the members and the master keyring, and to lead from where the cluster wants it.
func (n *Node) duties(ctx context.Context) {
	term := n.raft.CurrentTerm()
	if !n.barrier(ctx) {
		return
	}
	plant.Dawdle(plant.StaleReign)
	if now := n.raft.CurrentTerm(); now == term { // else the next win is on its way
		n.reign.Store(&reign{term: term, since: n.cfg.Mono()})
	}
	n.log.Info("this node leads", "term", n.raft.CurrentTerm())
	n.leading.Store(true)
	// What the duties wait for may outlast the leadership; saying that this node leads must not.
	defer context.AfterFunc(ctx, func() { n.leading.Store(false) })()
	defer n.leading.Store(false)
	rotator := rotation.New(rotation.Config{
		View: n.fsm.View, Now: n.clock.Now, Propose: n.propose, NewKey: n.keyring.NewKey,
		Origin: n.origin(), Observe: n.metrics.expired, Logger: n.log,
	})
	var duties errgroup.Group
	duties.Go(func() error { return rotator.Run(ctx) })
	duties.Go(func() error { return n.members.Run(ctx) })
	duties.Go(func() error { return n.placement.Run(ctx) })
	duties.Go(func() error { return n.masterKeys().Run(ctx) })
	_ = duties.Wait() // they end with ctx alone
}

// barrier waits until this leader has applied all that was committed before it won.
//
// A transfer of leadership can wedge in an earlier term of this node's, when it is deposed while the other does not answer
// (issue 696 of hashicorp/raft): Raft then goes on to say that one is under way, and refuses all writes whenever the node
// leads again. It is ended then, unless it is about to end, and hands over for that.
func (n *Node) barrier(ctx context.Context) bool {
	won := time.Now()
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := n.proposer.Await(attempt, n.raft.Barrier(0))
		cancel()
		switch {
		case err == nil:
			return true
		case errors.Is(err, fault.ErrShuttingDown), errors.Is(err, fault.ErrNotLeader) && n.raft.State() != raft.Leader:
			return false
		case errors.Is(err, fault.ErrNotLeader) && time.Since(won) > n.transferPatience() && !n.draining.Load():
			n.halt(fmt.Errorf("an earlier transfer of leadership hangs: restart this node (%w)", err))
			return false
		}
		n.log.Debug("the barrier on winning has to be tried again", "error", err)
		pause(ctx, 50*time.Millisecond)
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// watchOwnClock keeps a node whose clock is wrong from leading: as a follower it does not stand, as the leader it
// hands over to one whose clock is right.
func (n *Node) watchOwnClock(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		off := n.clock.Off()
		n.transport.Stand(!off)
		if off && n.raft.State() == raft.Leader {
			n.yield(ctx)
		}
	}
}

// yield hands leadership to a voter whose clock is right, if there is one that answers.
func (n *Node) yield(ctx context.Context) {
	to := n.punctual()
	if to == nil {
		return
	}
	if err := n.handOver(ctx, to); err != nil {
		n.log.Warn("leadership could not be handed over to a node whose clock is right", "to", to.ID, "error", err)
	}
}

// punctual gives one of the voters whose clocks were measured lately and found right, this node aside; nil if there
// is none.
func (n *Node) punctual() *raft.Server {
	var right []raft.Server
	for _, s := range n.servers() {
		if s.Suffrage == raft.Voter && string(s.ID) != n.cfg.ID && n.rightClock(string(s.ID)) {
			right = append(right, s)
		}
	}
	if len(right) == 0 {
		return nil
	}
	return &right[rand.IntN(len(right))] //nolint:gosec // by chance, so that one that cannot lead is not asked for ever
}

// handOver transfers leadership to the given voter, or to the one furthest along.
//
// Raft gives a transfer up after one election time-out, but one can wedge in hashicorp/raft 1.8.0 (issue 696), and
// its leader then refuses every write for ever. So the transfer is watched for several times as long, whatever
// the caller's patience, and a node that leads still when that is over halts: the others elect a leader.
func (n *Node) handOver(ctx context.Context, to *raft.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.transferPatience())
	defer cancel()
	err := n.proposer.Await(ctx, n.transfer(to))
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && n.raft.State() == raft.Leader && !n.draining.Load() { // one that drains is about to end
		n.halt(fmt.Errorf("a transfer of leadership hangs: restart this node (%w)", err))
	}
	return fmt.Errorf("transfer leadership: %w", err)
}

// transferPatience is how long a transfer of leadership may take.
func (n *Node) transferPatience() time.Duration { return 4*n.cfg.Timing.Heartbeat + time.Second }

func (n *Node) transfer(to *raft.Server) raft.Future {
	if to == nil {
		return n.raft.LeadershipTransfer()
	}
	return n.raft.LeadershipTransferToServer(to.ID, to.Address)
}

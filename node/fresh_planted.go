package node

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/plant"
	"github.com/keyquorum/keyquorum/node/freshness"
	"github.com/keyquorum/keyquorum/node/tokens"
)

// What somebody might prove freshness by, to whom hashicorp/raft looks as if it offered that. Only planted faults call it.

// believed takes the leader's word that it leads, and how far it has come, for a tick.
func (n *Node) believed(ctx context.Context) (fsm.Result, error) {
	verified := make(chan error, 1)
	go func() { verified <- n.raft.VerifyLeader().Error() }()
	select {
	case err := <-verified:
		// The commit index counts what no state machine sees as well: as far as it is of commands, this is it.
		view := n.fsm.View()
		return fsm.Result{Position: view.Position(), Holders: view.Holders()}, err
	case <-ctx.Done():
		return fsm.Result{}, ctx.Err()
	}
}

// uncommitted proposes the tick, and does not wait until it is committed at the place in the log that it goes to.
func (n *Node) uncommitted(ctx context.Context, tick fsm.Command) fsm.Result {
	position := n.raft.LastIndex() + 1
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.cfg.Timing.Heartbeat)
		defer cancel()
		_, _ = n.proposer.Propose(ctx, tick)
	}()
	return fsm.Result{Position: position, Holders: n.fsm.View().Holders()}
}

// heard takes a node that has heard from a leader a moment ago for one that misses nothing.
func (n *Node) heard() (uint64, error) {
	if n.raft.State() != raft.Leader && time.Since(n.raft.LastContact()) > n.cfg.Timing.Heartbeat {
		return 0, fault.ErrNoLeader
	}
	return n.fsm.View().Position(), nil
}

// handedOver waits until Raft calls the tick applied, and then says that nothing is left to wait for.
func (n *Node) handedOver(ctx context.Context, waited bool) (uint64, error) {
	position, err := n.ask(ctx, waited)
	if err != nil {
		return 0, err
	}
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for n.raft.AppliedIndex() < position {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return 0, nil
}

// lasting is the freshness of a node that keeps it over a restart.
type lasting struct {
	*freshness.Freshness
	node *Node
}

// Age is as old as what the process before had proved, until something is proved of the state.
func (l lasting) Age(state *fsm.State) (time.Duration, bool) {
	age, proved := l.Freshness.Age(state)
	if proved {
		plant.Keep(l.node.cfg.ID, l.node.cfg.Mono()-age)
		return age, true
	}
	through, ok := plant.Kept(l.node.cfg.ID).(time.Duration)
	return l.node.cfg.Mono() - through, ok
}

// proofs is what verifications ask for the age of a state.
func (n *Node) proofs() tokens.Freshness {
	if plant.On(plant.RestartedFreshness) {
		return lasting{n.freshness, n}
	}
	return n.freshness
}

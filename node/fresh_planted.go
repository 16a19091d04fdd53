package node

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/fault"
)

// What somebody might prove freshness by, to whom hashicorp/raft looks as if it offered that. Only planted faults call it.

// believed takes the leader's word that it leads, and how far it has come.
func (n *Node) believed(ctx context.Context) (uint64, error) {
	verified := make(chan error, 1)
	go func() { verified <- n.raft.VerifyLeader().Error() }()
	select {
	case err := <-verified:
		// The commit index counts what no state machine sees as well: as far as it is of commands, this is it.
		return n.fsm.View().Position(), err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
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

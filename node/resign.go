package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/fault"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
)

// Resign takes this node out of its cluster for good: it does not come back under its identity. A leader hands
// leadership over first. The node goes on running, and serves no more.
func (n *Node) Resign(ctx context.Context) error {
	if n.raft.State() == raft.Leader {
		if len(n.voters()) == 1 {
			return fault.ErrLastVoter
		}
		if err := n.handOver(ctx, nil); err != nil {
			return err
		}
	}
	var faults []error
	for _, address := range n.candidates() {
		if err := n.leaveAt(ctx, address); err != nil {
			faults = append(faults, fmt.Errorf("ask %s: %w", address, err))
			continue
		}
		n.removed.Store(true)
		return nil
	}
	return fmt.Errorf("leave the cluster: %w", errors.Join(append(faults, fault.ErrNoLeader)...))
}

// leaveAt has the node at an address take this one out.
func (n *Node) leaveAt(ctx context.Context, address string) error {
	challenge, master, err := n.peers.challenge(ctx, address)
	if err != nil {
		return err
	}
	proof, err := n.keyring.ProveUnder(master, proofLeave, boundText(n.cfg.ID, challenge))
	if err != nil {
		return fmt.Errorf("prove the keyring: %w", err)
	}
	return n.peers.leave(ctx, address, &peerv1.LeaveRequest{NodeId: n.cfg.ID, Challenge: challenge, KeyringProof: proof})
}

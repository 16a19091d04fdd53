package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node/membership"
	"github.com/keyquorum/keyquorum/rpc"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
)

// join keeps the node a member. A node that was removed stays up to say so.
func (n *Node) join(ctx context.Context) error {
	joiner := membership.NewJoiner(membership.JoinerConfig{
		Self: n.self, View: n.fsm.View, Led: n.led, Candidates: n.candidates,
		Found: n.cfg.Discovery.Changed(), Ask: n.askToJoin, Logger: n.log,
	})
	err := joiner.Run(ctx)
	if errors.Is(err, fault.ErrRemoved) {
		n.removed.Store(true)
		n.log.Error("this node no longer serves", "error", err)
		return nil
	}
	return err
}

// askToJoin asks the node at an address to admit this one, and checks that it was one of the cluster's. A leader
// sees to its own record itself.
func (n *Node) askToJoin(ctx context.Context, address string) error {
	if address == n.cfg.RPCAddress {
		if !n.leading.Load() {
			return fault.ErrNotLeader
		}
		return n.members.Admit(ctx, n.self, n.process)
	}
	if err := n.takeTurn(ctx); err != nil {
		return err
	}
	defer n.giveTurn()
	if n.halfFounded() {
		return errHalfFounded
	}
	return n.joinAt(ctx, address)
}

// joinAt has the node at an address admit this one.
func (n *Node) joinAt(ctx context.Context, address string) error {
	challenge, master, err := n.peers.challenge(ctx, address)
	if err != nil {
		return err
	}
	proof, err := n.keyring.ProveUnder(master, proofJoin, joinText(n.self, challenge))
	if err != nil {
		return fmt.Errorf("prove the keyring: %w", err)
	}
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails: crypto/rand
	res, err := n.peers.join(ctx, address, &peerv1.JoinRequest{
		ClusterId: n.fsm.View().ClusterID(), Member: rpc.MemberMessage(n.self),
		Challenge: challenge, KeyringProof: proof, Nonce: nonce, Process: n.process,
	})
	if err != nil {
		return err
	}
	return n.admitted(address, res, nonce)
}

// admitted checks that the answer is from one of the cluster's: whoever else says that this node is in, or out, is not
// believed. A member knows itself whether its keyring is its cluster's.
func (n *Node) admitted(address string, res *peerv1.JoinResponse, nonce []byte) error {
	purpose := proofAdmit
	switch {
	case res.GetRemoved():
		purpose = proofRemoved
	case res.GetTwin():
		purpose = proofTwin
	}
	err := n.keyring.CheckProof(purpose, boundText(n.cfg.ID, nonce), res.GetKeyringProof())
	switch {
	case err != nil && n.fsm.View().Founded():
		return fmt.Errorf("%w: the node at %s does not show that it holds this cluster's keyring", membership.ErrMendable, address)
	case err != nil && res.GetOtherKeyring():
		return fmt.Errorf("%w, says the node at %s", fault.ErrKeyring, address)
	case err != nil:
		return err
	case res.GetRemoved():
		return fault.ErrRemoved
	case res.GetTwin():
		return fault.ErrTwin
	}
	n.clock.Kick() // there will be voters to measure
	return nil
}

// candidates gives the RPC addresses to ask for admission: the leader's first, then the other members', then
// those that discovery found.
func (n *Node) candidates() []string {
	var addresses []string
	seen := make(map[string]bool)
	add := func(address string) {
		if address != "" && !seen[address] {
			seen[address] = true
			addresses = append(addresses, address)
		}
	}
	_, leader := n.raft.LeaderWithID()
	if string(leader) == n.cfg.ID {
		return []string{n.cfg.RPCAddress}
	}
	if address, ok := n.rpcAddress(string(leader)); ok {
		add(address)
	}
	for _, m := range n.fsm.View().Members() {
		if m.ID != n.cfg.ID {
			add(m.RPCAddress)
		}
	}
	for _, address := range n.cfg.Discovery.Peers() {
		add(address)
	}
	return addresses
}

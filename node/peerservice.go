package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node/membership"
	"github.com/keyquorum/keyquorum/rpc"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
)

// Local implements rpc.Peers.
func (n *Node) Local() rpc.Writer { return n.local }

// Clock implements rpc.Peers.
func (n *Node) Clock(context.Context) (*peerv1.ClockResponse, error) {
	return &peerv1.ClockResponse{WallNs: n.cfg.Wall().UnixNano(), NodeId: n.cfg.ID}, nil
}

// Join implements rpc.Peers, on the leader: it admits a node that shows that it holds the keyring, and shows it
// the same.
func (n *Node) Join(ctx context.Context, req *peerv1.JoinRequest) (*peerv1.JoinResponse, error) {
	member := rpc.MemberRecord(req.GetMember())
	if err := n.challenges.check(req.GetChallenge()); err != nil {
		return nil, err
	}
	err := n.cfg.Keyring.CheckProof(proofJoin, joinText(member, req.GetChallenge()), req.GetKeyringProof())
	if errors.Is(err, fault.ErrKeyring) {
		return &peerv1.JoinResponse{OtherKeyring: true}, nil
	}
	if err != nil {
		return nil, err
	}
	if !n.leading.Load() {
		return nil, fault.ErrNotLeader
	}
	view := n.fsm.View()
	if !view.Founded() {
		return nil, fault.ErrNotFounded
	}
	if id := req.GetClusterId(); id != "" && id != view.ClusterID() {
		return nil, fault.Invalid("clusterId", fmt.Sprintf("this is cluster %s, not %s", view.ClusterID(), id))
	}
	err = n.members.Admit(ctx, member)
	removed := errors.Is(err, fault.ErrRemoved)
	if err != nil && !removed {
		return nil, err
	}
	purpose := proofAdmit
	if removed {
		purpose = proofRemoved
	}
	proof, err := n.cfg.Keyring.Prove(purpose, boundText(member.ID, req.GetNonce()))
	if err != nil {
		return nil, fmt.Errorf("prove the keyring: %w", err)
	}
	return &peerv1.JoinResponse{ClusterId: view.ClusterID(), KeyringProof: proof, Removed: removed}, nil
}

// Standing implements rpc.Peers.
func (n *Node) Standing(context.Context) (*peerv1.StandingResponse, error) {
	founding := n.claiming.Load() || n.halfFounded() // before the view: it ends once the view has the cluster
	return &peerv1.StandingResponse{
		NodeId: n.cfg.ID, ClusterId: n.fsm.View().ClusterID(), Founding: founding, AppliedIndex: n.raft.AppliedIndex(),
	}, nil
}

// Challenge implements rpc.Peers.
func (n *Node) Challenge(context.Context) (*peerv1.ChallengeResponse, error) {
	return &peerv1.ChallengeResponse{Challenge: n.challenges.new()}, nil
}

// joinText is what a node that asks to be admitted has to be the holder of the keyring for: its whole record, and a
// challenge of the receiver's, so that nobody changes a member's record with a proof that was overheard.
func joinText(m fsm.Member, challenge []byte) string {
	return boundText(fmt.Sprintf("%q %q %q %q %q %q %d %t",
		m.ID, m.Name, m.Region, m.RPCAddress, m.RaftAddress, m.Version, m.Format, m.Replica), challenge)
}

// boundText is a text that a proof is made for, and what makes the proof good for once.
func boundText(text string, once []byte) string { return fmt.Sprintf("%s %x", text, once) }

// Leave implements rpc.Peers, on the leader.
func (n *Node) Leave(ctx context.Context, req *peerv1.LeaveRequest) (*peerv1.LeaveResponse, error) {
	if err := n.challenges.check(req.GetChallenge()); err != nil {
		return nil, err
	}
	if err := n.cfg.Keyring.CheckProof(proofLeave, boundText(req.GetNodeId(), req.GetChallenge()), req.GetKeyringProof()); err != nil {
		return nil, err
	}
	if !n.leading.Load() {
		return nil, fault.ErrNotLeader
	}
	origin := n.origin()
	origin.Actor = req.GetNodeId()
	if err := n.members.Remove(ctx, raft.ServerID(req.GetNodeId()), origin); err != nil {
		return nil, err
	}
	return &peerv1.LeaveResponse{}, nil
}

// askToJoin asks the node at an address to admit this one, and checks that it was one of the cluster's. A leader
// sees to its own record itself.
func (n *Node) askToJoin(ctx context.Context, address string) error {
	if address == n.cfg.RPCAddress {
		if !n.leading.Load() {
			return fault.ErrNotLeader
		}
		return n.members.Admit(ctx, n.self)
	}
	if err := n.enter(ctx); err != nil {
		return err
	}
	defer n.leave()
	if n.halfFounded() {
		return errHalfFounded
	}
	return n.joinAt(ctx, address)
}

// joinAt has the node at an address admit this one.
func (n *Node) joinAt(ctx context.Context, address string) error {
	challenge, err := n.peers.challenge(ctx, address)
	if err != nil {
		return err
	}
	proof, err := n.cfg.Keyring.Prove(proofJoin, joinText(n.self, challenge))
	if err != nil {
		return fmt.Errorf("prove the keyring: %w", err)
	}
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails: crypto/rand
	res, err := n.peers.join(ctx, address, &peerv1.JoinRequest{
		ClusterId: n.fsm.View().ClusterID(), Member: rpc.MemberMessage(n.self),
		Challenge: challenge, KeyringProof: proof, Nonce: nonce,
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
	if res.GetRemoved() {
		purpose = proofRemoved
	}
	err := n.cfg.Keyring.CheckProof(purpose, boundText(n.cfg.ID, nonce), res.GetKeyringProof())
	switch {
	case err != nil && n.fsm.View().Founded():
		return fmt.Errorf("%w: the node at %s does not show that it holds this cluster's keyring", membership.ErrMendable, address)
	case err != nil && res.GetOtherKeyring():
		return fmt.Errorf("%w, says the node at %s", fault.ErrKeyring, address)
	case err != nil:
		return err
	case res.GetRemoved():
		return fault.ErrRemoved
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

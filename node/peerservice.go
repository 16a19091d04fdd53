package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
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
	err := n.keyring.CheckProof(proofJoin, joinText(member, req.GetChallenge()), req.GetKeyringProof())
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
	master := fsm.SealedBy(req.GetKeyringProof())
	if primary := view.PrimaryMasterKey(); master != primary {
		return nil, fault.Invalid("keyringProof", fmt.Sprintf("was made with master key %d, and the cluster seals with %d: "+
			"give the node the keyring as the members have it now", master, primary))
	}
	res := &peerv1.JoinResponse{ClusterId: view.ClusterID()}
	purpose := proofAdmit
	switch err := n.members.Admit(ctx, member, req.GetProcess()); {
	case errors.Is(err, fault.ErrRemoved):
		res.Removed, purpose = true, proofRemoved
	case errors.Is(err, fault.ErrTwin):
		res.Twin, purpose = true, proofTwin
	case err != nil:
		return nil, err
	}
	if res.KeyringProof, err = n.keyring.ProveUnder(master, purpose, boundText(member.ID, req.GetNonce())); err != nil {
		return nil, fmt.Errorf("prove the keyring: %w", err)
	}
	return res, nil
}

// Standing implements rpc.Peers.
func (n *Node) Standing(context.Context) (*peerv1.StandingResponse, error) {
	founding := n.claiming.Load() || n.halfFounded() // before the view: it ends once the view has the cluster
	return &peerv1.StandingResponse{
		NodeId: n.cfg.ID, ClusterId: n.fsm.View().ClusterID(), Founding: founding, AppliedIndex: n.raft.AppliedIndex(),
		Process: n.process, AuditFailing: n.trail.Failing() != nil, MasterKeys: n.cfg.Keyring.IDs(),
	}, nil
}

// Admits implements rpc.Peers.
func (n *Node) Admits(name, id string) bool {
	view := n.fsm.View()
	if !view.Founded() {
		return true
	}
	for _, m := range view.Members() {
		if m.Name == name && m.ID == id {
			return true
		}
	}
	return false
}

// Tick implements rpc.Peers, on the leader.
func (n *Node) Tick(ctx context.Context, req *peerv1.TickRequest) (*peerv1.TickResponse, error) {
	position, err := n.ticks.Tick(ctx, req.GetNodeId(), req.GetWaited())
	if err != nil {
		return nil, err
	}
	return &peerv1.TickResponse{Position: position}, nil
}

// maxApplied is how long a question for a position is held open. Who asks, asks again.
const maxApplied = time.Second

// Applied implements rpc.Peers. Where the position does not come in time, the answer has an earlier one.
func (n *Node) Applied(ctx context.Context, req *peerv1.AppliedRequest) (*peerv1.AppliedResponse, error) {
	bounded, cancel := context.WithTimeout(ctx, maxApplied)
	defer cancel()
	_, err := n.fsm.Wait(bounded, func(v *fsm.View) bool { return v.Position() >= req.GetPosition() })
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	return &peerv1.AppliedResponse{NodeId: n.cfg.ID, Position: n.fsm.View().Position()}, nil
}

// Challenge implements rpc.Peers.
func (n *Node) Challenge(context.Context) (*peerv1.ChallengeResponse, error) {
	return &peerv1.ChallengeResponse{Challenge: n.challenges.new(), MasterKey: n.fsm.View().PrimaryMasterKey()}, nil
}

// Leave implements rpc.Peers, on the leader.
func (n *Node) Leave(ctx context.Context, req *peerv1.LeaveRequest) (*peerv1.LeaveResponse, error) {
	if err := n.challenges.check(req.GetChallenge()); err != nil {
		return nil, err
	}
	if err := n.keyring.CheckProof(proofLeave, boundText(req.GetNodeId(), req.GetChallenge()), req.GetKeyringProof()); err != nil {
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

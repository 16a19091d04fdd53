package node

import (
	"context"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node/clock"
)

// lag is how far behind the leader's commit index a voter may be and still be worth leadership: what is committed while
// the question is on its way.
const lag = 256

// fitToLead tells whether a member could lead as well as this node does.
func (n *Node) fitToLead(ctx context.Context, m fsm.Member) bool {
	if !n.rightClock(m.ID) {
		return false
	}
	commit := n.raft.CommitIndex()
	standing, err := n.peers.standing(ctx, m.RPCAddress)
	return err == nil && standing.GetNodeId() == m.ID && !standing.GetAuditFailing() && standing.GetAppliedIndex()+lag >= commit
}

// rightClock tells whether a voter's clock was measured lately and found right.
func (n *Node) rightClock(id string) bool {
	offset, measured := n.clock.Offsets()[id]
	return measured && offset.Abs() <= clock.DefaultAgreement
}

// handTo transfers leadership to the voter with the id.
func (n *Node) handTo(ctx context.Context, id string) error {
	for _, s := range n.servers() {
		if string(s.ID) == id && s.Suffrage == raft.Voter {
			return n.handOver(ctx, &s)
		}
	}
	return fault.ErrNotVoter
}

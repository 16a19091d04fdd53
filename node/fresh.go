package node

import (
	"context"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/plant"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
)

// watchLeader is how often a question to the leader looks whether that is still the leader.
const watchLeader = 50 * time.Millisecond

// commitTick puts a tick through the log.
func (n *Node) commitTick(ctx context.Context, tick fsm.Command) (fsm.Result, error) {
	switch {
	case plant.On(plant.VerifyLeader):
		return n.believed(ctx)
	case plant.On(plant.UncommittedTick):
		return n.uncommitted(ctx, tick), nil
	}
	return n.proposer.Propose(ctx, tick)
}

// askTick asks whoever leads for a tick. It gives up when somebody else leads.
func (n *Node) askTick(ctx context.Context, waited bool) (uint64, error) {
	switch {
	case plant.On(plant.LastContact):
		return n.heard()
	case plant.On(plant.AppliedIndex):
		return n.handedOver(ctx, waited)
	}
	return n.ask(ctx, waited)
}

func (n *Node) ask(ctx context.Context, waited bool) (uint64, error) {
	_, leader := n.raft.LeaderWithID()
	switch string(leader) {
	case "":
		return 0, fault.ErrNoLeader
	case n.cfg.ID:
		return n.ticks.Tick(ctx, n.cfg.ID, waited)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.NewTicker(watchLeader)
	defer watch.Stop()
	type answer struct {
		position uint64
		err      error
	}
	answers := make(chan answer, 1)
	go func() {
		position, err := n.peers.tick(ctx, string(leader), &peerv1.TickRequest{NodeId: n.cfg.ID, Waited: waited})
		answers <- answer{position, err}
	}()
	for {
		select {
		case a := <-answers:
			return a.position, a.err
		case <-watch.C:
			if _, now := n.raft.LeaderWithID(); now != leader {
				cancel(fault.ErrNoLeader)
			}
		}
	}
}

// lastHeard gives from when on the member is waited out: when it last asked this node for a tick, or when this node's term
// as leader began, if that is later. Ticks of earlier leaders were proposed before, and asked for before that. It gives
// false where this node does not lead, as far as it knows, in the term that it took up its duties in.
func (n *Node) lastHeard(member string) (time.Duration, bool) {
	reign := n.reign.Load()
	if reign == nil || n.raft.CurrentTerm() != reign.term && !plant.On(plant.StaleReign) {
		return 0, false
	}
	heard, ok := n.ticks.Heard(member)
	if plant.On(plant.ForgottenTicks) {
		return heard, true
	}
	if !ok {
		return reign.since, true
	}
	return max(heard, reign.since), true
}

// settle waits until what a write did holds on all nodes, and tells of how many it is known, and how many had to be waited
// out.
func (n *Node) settle(ctx context.Context, res fsm.Result) (applied, expired int, err error) {
	begun := n.cfg.Mono()
	f, err := n.revoked.Settle(ctx, res)
	if err != nil {
		return 0, 0, err
	}
	took := n.cfg.Mono() - begun
	n.metrics.settle(took, f)
	if f.Expired > 0 {
		n.log.Info("a revocation had to wait until nodes could not be fresh any more", "nodes", f.Expired, "took", took)
	}
	return f.Applied, f.Expired, nil
}

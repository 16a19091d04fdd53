package node

import (
	"fmt"
	"time"

	"github.com/keyquorum/keyquorum/internal/fault"
)

// Live says why the process should be restarted, or nil.
func (n *Node) Live() error { return n.fsm.Err() }

// Ready says why no requests should be sent to this node, or nil.
func (n *Node) Ready() error {
	_, ever := n.clock.Last()
	switch {
	case n.Live() != nil:
		return n.Live()
	case n.draining.Load():
		return fault.ErrShuttingDown
	case n.removed.Load():
		return fault.ErrRemoved
	case !n.fsm.View().Founded():
		return n.unfounded()
	case !ever:
		return fault.ErrTimeUnknown
	case n.clock.Off():
		return fault.ErrClockOff
	}
	if err := n.keyring.missing(n.fsm.View()); err != nil {
		return err
	}
	return n.fresh()
}

// led tells whether the node knows a leader.
func (n *Node) led() bool {
	_, id := n.raft.LeaderWithID()
	return id != ""
}

// fresh says why the node verifies nothing, or nil. A node that is fresh goes on without a leader, for as long as it is.
func (n *Node) fresh() error {
	state := n.fsm.State()
	bound := state.View().Settings().MaxStaleness
	switch age, proved := n.freshness.Age(state); {
	case !proved:
		return fmt.Errorf("%w: it has had no answer from a leader since it started, or was restored", fault.ErrStale)
	case age > bound:
		return fmt.Errorf("%w: it had its last answer from a leader %v ago", fault.ErrStale, age.Round(time.Millisecond))
	}
	return nil
}

// serving says why the node takes no writes, or nil.
func (n *Node) serving() error {
	switch {
	case n.draining.Load():
		return fault.ErrShuttingDown
	case n.Live() != nil:
		return n.Live()
	case n.removed.Load():
		return fault.ErrRemoved
	case !n.fsm.View().Founded():
		return n.unfounded()
	}
	return nil
}

// unfounded says why there is no cluster in the node's state: it is in none, or it was started anew and has yet to hear
// how much of its log is committed.
func (n *Node) unfounded() error {
	if len(n.servers()) == 0 || n.halfFounded() {
		return errNoCluster
	}
	return errUntold
}

// errUntold keeps an operator from founding a second cluster while the first is only short of members.
var errUntold = fmt.Errorf("%w: this node was restarted, and too few of the other members have been heard yet", fault.ErrNoLeader)

// errNoCluster tells a node that waits for its cluster what may be missing.
var errNoCluster = fmt.Errorf("%w: run \"keyquorum cluster init\" at one node, once, or see that this one finds the others", fault.ErrNotFounded)

// reading says why the node answers nothing from its memory, or nil. It goes on while it drains, and without a
// leader.
func (n *Node) reading() error {
	if n.removed.Load() {
		return fault.ErrRemoved
	}
	return n.Live()
}

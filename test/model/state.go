package model

import "slices"

const (
	maxNodes = 4
	maxLog   = 8
	nobody   = 0xff
)

// Entries of the log. There is one key, at most one node that joins, and at most one that leaves.
const (
	issue uint8 = iota + 1
	revoke
	tick
	put
	remove
	forget
)

// State is all there is at one moment. It is compared and hashed as a whole, so a field that means nothing any more is
// zero. Times count from the start; where there may be none, a time is one more than it says and zero is none.
type State struct {
	log      [maxLog]uint8
	commitAt [maxLog]uint8 // when each entry was committed, where Bounds.Age asks for it
	length   uint8         // of the log, with what is not committed yet
	commit   uint8
	now      uint8
	leader   uint8 // the one that can commit
	revoked  bool  // a Revoke has returned
	issued   bool  // the Issue has returned
	wait     wait
	nodes    [maxNodes]node
	verify   verification
	used     used
}

// used counts what Bounds bounds.
type used struct {
	asks, elections, restarts, restores, revokes uint8
}

// node is one machine.
type node struct {
	key, rev uint8 // the positions through which keys and revision are published
	fresh    uint8 // the time through which the node's state object is proved fresh
	believes uint8 // if it leads, or believes so: one more than the last position that it knows committed, once deposed
	removal  uint8 // the time from which it counts the node that left
	leads    uint8 // the time from which it has led, if it leads or believes so
	// heard is when it last heard a question of each node.
	heard [maxNodes]uint8
	round round
}

// applied is the position that the node's state has come to.
func (n *node) applied() uint8 { return min(n.key, n.rev) }

// Phases of a round.
const (
	noRound uint8 = iota
	sent
	asked    // the question has arrived
	bound    // to a tick
	answered // with a position
	proved   // the state has come to the position, and is not marked as fresh yet
)

// round is one question of a node to whom it takes for the leader.
type round struct {
	phase, leader, pos, noted uint8
}

// wait is a Revoke that has not returned.
type wait struct {
	active      bool
	leader, pos uint8
	acked       uint8 // the nodes that were seen to have applied it
	from        uint8 // the position of its leader's state when it was proposed, where those count who were members then
	// since is, for each node, from when on it is waited out; set once the leader has applied the entry.
	since [maxNodes]uint8
}

// has tells whether the key is there once the log is applied through pos.
func (m *Model) has(s *State, pos uint8) bool {
	there := !m.bounds.Issue
	for _, e := range s.log[:pos] {
		switch e {
		case issue:
			there = true
		case revoke:
			there = false
		default:
		}
	}
	return there
}

// ahead tells whether the token's key is from a later revision than that of the state at pos.
func (m *Model) ahead(s *State, pos uint8) bool {
	return m.bounds.Issue && !holds(s, issue, pos)
}

// holds tells whether there is such an entry through pos.
func holds(s *State, kind, pos uint8) bool {
	return slices.Contains(s.log[:pos], kind)
}

// member tells whether the node is one once the log is applied through pos.
func (m *Model) member(s *State, n, pos uint8) bool {
	switch n {
	case m.bounds.joiner():
		return holds(s, put, pos)
	case m.bounds.leaver():
		return !holds(s, remove, pos)
	default:
		return true
	}
}

// former tells whether the node that leaves is a former member once the log is applied through pos.
func former(s *State, pos uint8) bool {
	return holds(s, remove, pos) && !holds(s, forget, pos)
}

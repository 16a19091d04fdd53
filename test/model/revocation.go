package model

import "math/bits"

// write takes the steps that change keys and members.
func (m *Model) write(s *State) {
	m.issue(s)
	m.revoke(s)
	m.finish(s)
	m.join(s)
	m.leave(s)
}

func (m *Model) issue(s *State) {
	if !m.bounds.Issue {
		return
	}
	if !holds(s, issue, s.length) {
		if next, ok := m.propose(s, issue); ok {
			m.step(Action{kind: proposesIssue, node: s.leader, pos: next.length}, &next)
		}
		return
	}
	if !s.issued && s.leader != nobody && holds(s, issue, s.nodes[s.leader].applied()) {
		next := *s
		next.issued = true
		m.step(Action{kind: issueReturns}, &next)
	}
}

// revoke proposes one. Whoever sends it again has given up the one before.
func (m *Model) revoke(s *State) {
	if s.used.revokes == m.bounds.Revokes || s.revoked || s.leader == nobody {
		return
	}
	if m.bounds.Issue && !s.issued {
		return
	}
	if m.off.retryCommitsAgain && s.used.revokes > 0 && !m.has(s, s.nodes[s.leader].applied()) {
		next := *s
		next.revoked = true
		m.step(Action{kind: revokeFindsNothing, node: s.leader}, &next)
		return
	}
	next, ok := m.propose(s, revoke)
	if !ok {
		return
	}
	next.used.revokes++
	next.wait = wait{active: true, leader: s.leader, pos: next.length}
	if m.off.holdersOfTheEntry {
		next.wait.from = s.nodes[s.leader].applied()
	}
	m.step(Action{kind: proposesRevoke, node: s.leader, pos: next.length}, &next)
}

// finish returns from a Revoke: everyone who may be fresh without it has it, or none can be fresh any more. The leader
// need not lead any more.
func (m *Model) finish(s *State) {
	w := s.wait
	if !w.active || s.nodes[w.leader].applied() < w.pos {
		return
	}
	next := *s
	next.wait, next.revoked = wait{}, true
	var seen Event
	if w.leader != s.leader {
		seen = RevokedByDeposed
	}
	if m.settled(s) {
		m.seen(Action{kind: revokeSettles, node: w.leader}, &next, seen|RevokedByAll)
	}
	if m.ranOut(s) {
		m.seen(Action{kind: revokeRunsOut, node: w.leader}, &next, seen|RevokedByTime)
	}
}

// settled tells whether all holders are known to have applied the entry.
func (m *Model) settled(s *State) bool {
	w := s.wait
	holders := m.holders(s, m.membersAsOf(w))
	if m.off.waitForAll {
		voters := holders &^ uint8(m.bounds.Replicas)
		return bits.OnesCount8(voters&w.acked) > bits.OnesCount8(voters)/2
	}
	if m.off.nonVotersHold {
		holders &^= uint8(m.bounds.Replicas)
	}
	return holders&^w.acked == 0 && (!m.counts(s, w.leader, w.pos) || m.off.formerMembersHold)
}

// ranOut tells whether no holder that is not known to have applied the entry can be fresh any more.
func (m *Model) ranOut(s *State) bool {
	w := s.wait
	holders := m.holders(s, m.membersAsOf(w))
	for n := range m.bounds.Nodes {
		if set(holders&^w.acked).has(n) && w.since[n] != 0 && !m.over(w.leader, w.since[n]-1, s.now) {
			return false
		}
	}
	return !m.counts(s, w.leader, w.pos) || m.off.formerMembersHold
}

// waitOut notes from when on each node is waited out: from when its leader last heard a question of it, or has led. What
// it proved with the help of earlier leaders, it asked for before.
func (m *Model) waitOut(s *State) {
	leader := &s.nodes[s.wait.leader]
	for n := range m.bounds.Nodes {
		if n == s.wait.leader {
			continue
		}
		since := leader.heard[n]
		if !m.off.countFromLeading {
			since = max(since, leader.leads)
		}
		s.wait.since[n] = since
	}
}

// membersAsOf is the position whose members are waited for.
func (m *Model) membersAsOf(w wait) uint8 {
	if m.off.holdersOfTheEntry {
		return w.from
	}
	return w.pos
}

func (m *Model) holders(s *State, pos uint8) (holders uint8) {
	for n := range m.bounds.Nodes {
		if m.member(s, n, pos) {
			holders |= 1 << n
		}
	}
	return holders
}

// counts tells whether the node still counts the former member that the state at pos has.
func (m *Model) counts(s *State, n, pos uint8) bool {
	if !former(s, pos) {
		return false
	}
	since := s.nodes[n].removal
	if since == 0 {
		return false // only where a new leader forgets
	}
	return !m.over(n, since-1, s.now)
}

// join adds the node that joins.
func (m *Model) join(s *State) {
	if m.bounds.Joiner == 0 || holds(s, put, s.length) {
		return
	}
	if next, ok := m.propose(s, put); ok {
		m.step(Action{kind: adds, node: m.bounds.joiner(), pos: next.length}, &next)
	}
}

// leave removes the node that leaves, and later forgets it.
func (m *Model) leave(s *State) {
	if m.bounds.Leaver == 0 || s.revoked || s.leader == nobody || s.leader == m.bounds.leaver() {
		return
	}
	if !holds(s, remove, s.length) {
		if next, ok := m.propose(s, remove); ok {
			m.step(Action{kind: removes, node: m.bounds.leaver(), pos: next.length}, &next)
		}
		return
	}
	pos := s.nodes[s.leader].applied()
	if !former(s, pos) || holds(s, forget, s.length) {
		return
	}
	if m.counts(s, s.leader, pos) && !m.off.forgetAfterWindow {
		return
	}
	if next, ok := m.propose(s, forget); ok {
		m.seen(Action{kind: forgets, node: m.bounds.leaver(), pos: next.length}, &next, Forgot)
	}
}

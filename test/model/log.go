package model

// propose has the leader append an entry; it gives false where the log is full or nobody leads.
func (m *Model) propose(s *State, kind uint8) (next State, ok bool) {
	if s.leader == nobody || s.length == m.bounds.Log {
		return next, false
	}
	next = *s
	next.log[next.length] = kind
	next.length++
	if !m.bounds.Uncommitted {
		m.commitNext(&next)
	}
	return next, true
}

func (m *Model) commitNext(s *State) {
	if m.bounds.Age {
		s.commitAt[s.commit] = s.now
	}
	s.commit++
}

// replicate commits entries, and applies them on every node at its own pace.
func (m *Model) replicate(s *State) {
	if s.commit < s.length && s.leader != nobody {
		next := *s
		m.commitNext(&next)
		m.step(Action{kind: commits, pos: next.commit}, &next)
	}
	for n := range m.bounds.Nodes {
		if s.nodes[n].applied() < s.commit && (n != m.bounds.joiner() || holds(s, put, s.commit)) {
			m.apply(s, n)
		}
	}
}

func (m *Model) apply(s *State, n uint8) {
	next := *s
	at := &next.nodes[n]
	published := Action{kind: applies, node: n, pos: at.applied() + 1}
	switch {
	case !m.bounds.Split:
		at.key, at.rev = at.key+1, at.rev+1
	case at.key != at.rev:
		at.key = max(at.key, at.rev)
		at.rev = at.key
		published.kind = publishesRest
	case m.off.keyPublishedFirst:
		at.rev++
		published.kind = publishesRevision
	default:
		at.key++
		published.kind = publishesKey
	}
	if p := at.applied(); p == published.pos {
		m.arrive(&next, n)
	}
	m.step(published, &next)
}

// arrive notes what a node's own state has come to.
func (m *Model) arrive(s *State, n uint8) {
	at := &s.nodes[n]
	switch s.log[at.applied()-1] {
	case remove:
		at.removal = s.now + 1
		if m.off.formerFromApplication {
			at.removal = 1
		}
	case forget:
		at.removal = 0
	default:
	}
	if s.wait.active && at.applied() >= s.wait.pos {
		s.wait.acked |= 1 << n
		if n == s.wait.leader && at.applied() == s.wait.pos {
			m.waitOut(s)
		}
	}
}

// elect has another node win an election. The one before does not know: it goes on believing. What it had not committed is
// lost, or is carried on by the new leader.
func (m *Model) elect(s *State) {
	if s.used.elections == m.bounds.Elections {
		return
	}
	for n := range m.bounds.Nodes {
		if n == s.leader || !m.bounds.Leaders.has(n) || !m.member(s, n, s.commit) {
			continue
		}
		next := *s
		next.used.elections++
		if s.leader != nobody {
			next.nodes[s.leader].believes = s.commit + 1
		}
		next.leader = n
		next.nodes[n].believes = 1
		if !m.off.reignOfTheTerm || s.nodes[n].believes == 0 {
			next.nodes[n].leads, next.nodes[n].heard = s.now+1, [maxNodes]uint8{}
		}
		if m.off.newLeaderCountsFormer {
			next.nodes[n].removal = 0
		}
		m.step(Action{kind: elected, node: n}, &next)
		if next.length > next.commit {
			m.truncate(&next)
			m.step(Action{kind: electedWithout, node: n}, &next)
		}
	}
}

// truncate loses what is not committed, and with it what waited for it.
func (m *Model) truncate(s *State) {
	for i := s.commit; i < s.length; i++ {
		s.log[i] = 0
	}
	s.length = s.commit
	for n := range m.bounds.Nodes {
		if r := &s.nodes[n].round; r.phase == bound && r.pos > s.commit {
			*r = round{}
		}
	}
	if s.wait.pos > s.commit {
		m.giveUp(s)
	}
}

// restart starts a node anew, from some older state that its disk has.
func (m *Model) restart(s *State) {
	if s.used.restarts == m.bounds.Restarts {
		return
	}
	for n := range m.bounds.Nodes {
		for pos := range s.nodes[n].applied() + 1 {
			next := *s
			next.used.restarts++
			m.startAt(&next, n, pos)
			m.step(Action{kind: restarts, node: n, pos: pos}, &next)
		}
	}
}

func (m *Model) startAt(s *State, n, pos uint8) {
	at := node{key: pos, rev: pos, removal: m.removalAt(s, pos, m.off.startCountsFormer)}
	if m.off.restartDropsFreshness {
		at.fresh = s.nodes[n].fresh
	}
	s.nodes[n] = at
	if s.leader == n {
		s.leader = nobody
	}
	if s.wait.leader == n {
		m.giveUp(s)
	}
	if s.verify.node == n {
		s.verify = verification{}
	}
	m.lose(s, n)
}

// lose ends the rounds that were asked of a node that knows nothing of them any more.
func (m *Model) lose(s *State, n uint8) {
	for i := range m.bounds.Nodes {
		if r := &s.nodes[i].round; (r.phase == sent || r.phase == asked || r.phase == bound) && r.leader == n {
			*r = round{}
		}
	}
}

// giveUp ends a Revoke whose leader falls: its caller does not know whether it was made, or takes it for done where that
// rule is off.
func (m *Model) giveUp(s *State) {
	if s.wait.active && m.off.fallenIsUnknown {
		s.revoked = true
	}
	s.wait = wait{}
}

// removalAt is from when a node whose state begins at pos counts the node that left.
func (m *Model) removalAt(s *State, pos uint8, forgets bool) uint8 {
	if former(s, pos) && !m.off.newLeaderCountsFormer && !forgets {
		return s.now + 1
	}
	return 0
}

// restore replaces a follower's state by an older one, as an InstallSnapshot does that comes late. (One that is newer is
// no step of its own: it is several entries applied at once, in the same state object.)
func (m *Model) restore(s *State) {
	if !m.bounds.Snapshots && !m.off.oldSnapshotsRefused || s.used.restores == m.bounds.Restores {
		return
	}
	for n := range m.bounds.Nodes {
		if s.nodes[n].believes != 0 {
			continue
		}
		for pos := range s.nodes[n].applied() {
			next := *s
			next.used.restores++
			m.replace(&next, n, pos)
			m.step(Action{kind: restored, node: n, pos: pos}, &next)
		}
	}
}

func (m *Model) replace(s *State, n, pos uint8) {
	at := &s.nodes[n]
	if v := &s.verify; v.node == n && v.loaded && !v.frozen {
		v.frozen, v.key, v.rev, v.fresh = true, at.key, at.rev, at.fresh
	}
	at.key, at.rev, at.removal = pos, pos, m.removalAt(s, pos, m.off.restoreCountsFormer)
	if !m.off.restoreDropsFreshness {
		at.fresh = 0
	}
	if !m.off.restoreDropsRounds {
		at.round = round{}
		if s.verify.node == n {
			s.verify.joined = false
		}
	}
}

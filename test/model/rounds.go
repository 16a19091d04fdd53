package model

// freshness takes the steps of the rounds.
func (m *Model) freshness(s *State) {
	for n := range m.bounds.Nodes {
		if !m.bounds.Askers.has(n) {
			continue
		}
		m.ask(s, n)
		m.contact(s, n)
		switch s.nodes[n].round.phase {
		case sent:
			m.isAskedBy(s, n)
		case asked:
			m.shortcut(s, n)
		case bound:
			m.answer(s, n)
		case answered:
			m.prove(s, n)
		case proved:
			next := *s
			m.mark(&next, n)
			m.step(Action{kind: becomesFresh, node: n}, &next)
		default:
		}
	}
	m.tick(s)
}

// ask starts a round with whoever believes to lead. A round that is under way is given up.
func (m *Model) ask(s *State, n uint8) {
	if s.used.asks == m.bounds.Asks {
		return
	}
	for l := range m.bounds.Nodes {
		if s.nodes[l].believes == 0 {
			continue
		}
		next := *s
		next.used.asks++
		next.nodes[n].round = round{phase: sent, leader: l, noted: s.now}
		if v := &next.verify; v.node == n && m.awaits(v) {
			v.joined = true
		}
		m.step(Action{kind: asks, node: n, other: l}, &next)
	}
}

// isAskedBy has a question come to whom it is for, who notes when that was.
func (m *Model) isAskedBy(s *State, n uint8) {
	next := *s
	r := &next.nodes[n].round
	r.phase = asked
	if !m.off.countFromArrival {
		next.nodes[r.leader].heard[n] = s.now + 1
	}
	m.step(Action{kind: isAsked, node: n, other: r.leader}, &next)
}

// tick has the leader propose one for any of those whose questions are there.
func (m *Model) tick(s *State) {
	next, ok := m.propose(s, tick)
	if !ok {
		return
	}
	var waiting set
	for n := range m.bounds.Nodes {
		if r := s.nodes[n].round; r.phase == asked && r.leader == s.leader {
			waiting |= 1 << n
		}
	}
	for some := waiting; some != 0; some = (some - 1) & waiting {
		chosen := next
		for n := range m.bounds.Nodes {
			if some.has(n) {
				chosen.nodes[n].round.phase, chosen.nodes[n].round.pos = bound, next.length
			}
		}
		m.step(Action{kind: proposesTick, node: s.leader, pos: next.length, some: some}, &chosen)
	}
}

// answer gives the tick's position once it is proved by the leader's own state, and only to a member.
func (m *Model) answer(s *State, n uint8) {
	r := s.nodes[n].round
	leader := &s.nodes[r.leader]
	known := r.pos // the position whose members count
	switch {
	case r.pos > s.commit:
		if !m.off.answerAfterCommit {
			return
		}
		known = leader.applied()
	case leader.applied() < r.pos:
		if !m.off.answerAfterApplied {
			return
		}
		known = leader.applied()
	case m.off.memberAsOfTick:
		known = leader.applied()
	}
	m.reply(s, n, Action{kind: answers, pos: r.pos}, m.member(s, n, known))
}

func (m *Model) reply(s *State, n uint8, answer Action, member bool) {
	next := *s
	r := &next.nodes[n].round
	if !member && !m.off.askerIsMember {
		*r = round{}
		m.step(Action{kind: refuses, node: n}, &next)
		return
	}
	r.phase, r.pos = answered, answer.pos
	if m.off.countFromArrival {
		next.nodes[r.leader].heard[n] = s.now + 1
	}
	answer.node, answer.other = r.leader, n
	m.step(answer, &next)
}

// shortcut answers without a tick of its own, where a rule is off that forbids it.
func (m *Model) shortcut(s *State, n uint8) {
	l := s.nodes[n].round.leader
	knows := s.commit
	if l != s.leader {
		knows = s.nodes[l].believes - 1
	}
	if m.off.tickNotBelief {
		m.reply(s, n, Action{kind: answersKnown, pos: knows}, m.member(s, n, min(knows, s.nodes[l].applied())))
	}
	if m.off.answerAfterCommit && l != s.leader {
		m.reply(s, n, Action{kind: answersEarly, pos: knows + 1}, m.member(s, n, s.nodes[l].applied()))
	}
	if m.off.tickAfterQuestion {
		m.bindToOld(s, n)
	}
}

// bindToOld takes the last tick that the leader has proposed before.
func (m *Model) bindToOld(s *State, n uint8) {
	if s.nodes[n].round.leader != s.leader {
		return
	}
	for pos := s.length; pos > 0; pos-- {
		if s.log[pos-1] != tick {
			continue
		}
		next := *s
		next.nodes[n].round.phase, next.nodes[n].round.pos = bound, pos
		m.step(Action{kind: takesOldTick, node: n, pos: pos}, &next)
		return
	}
}

// contact takes a leader's heartbeat for a proof, where that rule is off.
func (m *Model) contact(s *State, n uint8) {
	if !m.off.tickNotContact {
		return
	}
	next := *s
	next.nodes[n].fresh = s.now + 1
	m.step(Action{kind: hearsLeader, node: n}, &next)
}

// prove waits until the node's state has come to the answer's position.
func (m *Model) prove(s *State, n uint8) {
	at := &s.nodes[n]
	switch {
	case at.applied() >= at.round.pos, m.off.positionApplied:
	case m.off.stateNotRaft && s.commit >= at.round.pos && at.applied()+2 >= at.round.pos:
	default:
		return
	}
	next := *s
	r := &next.nodes[n].round
	r.phase = proved
	if m.off.notedBeforeQuestion {
		r.noted = s.now
	}
	if m.bounds.Restores > 0 {
		m.step(Action{kind: reaches, node: n, pos: r.pos}, &next)
		return
	}
	m.mark(&next, n)
	m.step(Action{kind: becomesFresh, node: n}, &next)
}

// mark makes the node's state fresh, and lets go on who waited for the round.
func (m *Model) mark(s *State, n uint8) {
	at := &s.nodes[n]
	at.fresh = at.round.noted + 1
	at.round = round{}
	if v := &s.verify; v.node == n && v.joined {
		v.joined = false
		v.pc++
	}
}

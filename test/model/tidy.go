package model

// tidy makes states alike that nothing can tell apart any more, so that there are fewer of them: what has run out has
// run out, however long ago, and what nobody asks for again is forgotten.
func (m *Model) tidy(s *State) {
	for n := range m.bounds.Nodes {
		m.tidyNode(s, n)
	}
	for n := range m.bounds.Nodes {
		if since := &s.wait.since[n]; *since != 0 && m.over(s.wait.leader, *since-1, s.now) {
			*since = 0
		}
	}
	if s.revoked {
		s.used.revokes = m.bounds.Revokes
	}
}

func (m *Model) tidyNode(s *State, n uint8) {
	at := &s.nodes[n]
	if at.believes != 0 && !m.off.tickNotBelief && !m.off.answerAfterCommit {
		at.believes = 1
	}
	m.tidyLeader(s, n)
	switch {
	case at.removal == 0:
	case s.revoked:
		at.removal = 0
	case m.over(n, at.removal-1, s.now):
		at.removal = 1
	}
	if s.verify.active && s.verify.node == n {
		return
	}
	if at.fresh != 0 && !m.off.ageEachTime && !m.off.ageCountsPauses && !m.within(n, at.fresh-1, s.now) {
		at.fresh = 0
	}
	if m.stillborn(s, n) {
		at.round = round{}
	}
}

// tidyLeader forgets when a node began to lead and what it heard, where that is long ago or of no use.
func (m *Model) tidyLeader(s *State, n uint8) {
	at := &s.nodes[n]
	if s.revoked || at.believes == 0 || at.leads != 0 && m.over(n, at.leads-1, s.now) {
		at.leads = 0
	}
	for o := range m.bounds.Nodes {
		if heard := &at.heard[o]; s.revoked || at.believes == 0 || *heard != 0 && m.over(n, *heard-1, s.now) {
			*heard = 0
		}
	}
}

// stillborn tells whether the node's round is too old to prove anything, and nobody waits for it.
func (m *Model) stillborn(s *State, n uint8) bool {
	if m.bounds.Issue || m.bounds.Linearizable || m.off.notedBeforeQuestion || m.off.ageCountsPauses || m.off.ageEachTime {
		return false
	}
	r := s.nodes[n].round
	return r.phase != noRound && !m.within(n, r.noted, s.now)
}

// matters tells whether a verification that starts now could break a promise. Before the Issue has returned there is no
// token.
func (m *Model) matters(s *State) bool {
	if m.bounds.Issue {
		return s.issued
	}
	return s.revoked || m.bounds.Age || m.bounds.Linearizable || m.off.clockAfterRequest
}

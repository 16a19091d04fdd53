package model

import "slices"

// A verification goes through steps, and anything can happen between two of them.
const (
	arrives uint8 = iota // the request is there
	awaits               // waits for a round that asks from now on
	loads                // the state object
	readsClock
	checks // that the object is fresh by the clock that was read
	readsRevision
	readsKey
)

// verification is one that is under way. One at a time is enough: none of them changes what another one sees.
type verification struct {
	active, again bool  // again: it looks again after a round
	node, pc      uint8 // pc counts the steps of its program
	joined        bool  // a round that it waits for has asked
	loaded        bool
	frozen        bool // the state object that was loaded is not the node's any more, and is kept here
	key, rev      uint8
	fresh         uint8
	clock         uint8 // what was read
	found         bool
	tooOld        bool  // a read was from before needs
	needs         uint8 // the position that an answer may not be from before
	after         bool  // it started after a Revoke had returned
}

// program gives the steps of a verification.
func (m *Model) program(again bool) []uint8 {
	reads := []uint8{readsRevision, readsKey}
	if m.off.revisionBeforeKey {
		reads = []uint8{readsKey, readsRevision}
	}
	var steps []uint8
	switch {
	case again:
		steps = append([]uint8{arrives, awaits, loads}, reads...)
	case m.bounds.Linearizable && !m.off.linearizableTakesOne:
		steps = append([]uint8{arrives, awaits, loads, readsClock, checks}, reads...)
	case m.off.clockAfterRequest:
		steps = append([]uint8{readsClock, arrives, loads, checks}, reads...)
	case m.off.stateAfterFreshness:
		steps = append(append([]uint8{arrives, loads}, reads...), readsClock, checks)
	default:
		steps = append([]uint8{arrives, readsClock, loads, checks}, reads...)
	}
	if m.bounds.EveryStep {
		return steps
	}
	return slices.DeleteFunc(steps, m.idle)
}

// idle steps change nothing: the state object stays the same where none is restored, and no revision is ahead where no key
// is made. The clock is read as the request arrives: later, it would only find the state older.
func (m *Model) idle(step uint8) bool {
	switch step {
	case loads:
		return m.bounds.Restores == 0
	case readsRevision:
		return !m.bounds.Issue
	case readsClock:
		return !m.bounds.Linearizable && !m.off.clockAfterRequest && !m.off.stateAfterFreshness
	default:
		return false
	}
}

func (m *Model) steps(v *verification) []uint8 {
	if v.again {
		return m.secondLook
	}
	return m.firstLook
}

// awaits tells whether the verification waits for a round that has not asked.
func (m *Model) awaits(v *verification) bool {
	return v.active && !v.joined && m.steps(v)[v.pc] == awaits
}

// verifies starts a verification, or takes the next step of the one that is under way.
func (m *Model) verifies(s *State) {
	if s.verify.active {
		m.advance(s)
		return
	}
	if !m.matters(s) {
		return
	}
	for n := range m.bounds.Nodes {
		if m.bounds.Verifies.has(n) {
			next := *s
			next.verify = verification{active: true, node: n}
			m.advance(&next)
		}
	}
}

func (m *Model) advance(s *State) {
	next := *s
	v := &next.verify
	n := &next.nodes[v.node]
	action := Action{kind: verificationSteps, node: v.node, pos: m.steps(v)[v.pc]}
	switch action.pos {
	case awaits: // mark goes on with it, unless there is no round
		m.without(s, &next)
		return
	case arrives:
		m.request(&next)
	case loads:
		v.loaded = true
	case readsClock:
		v.clock = s.now + 1
	case checks:
		if !m.fresh(&next) {
			next.verify = verification{}
			m.seen(Action{kind: refusesStale, node: s.verify.node}, &next, RefusedStale)
			return
		}
	case readsRevision:
		pos := v.reads(n.rev, v.rev)
		v.tooOld = v.tooOld || pos < v.needs
		if m.ahead(s, pos) {
			m.fromFuture(s, &next)
			return
		}
	case readsKey:
		pos := v.reads(n.key, v.key)
		v.tooOld = v.tooOld || pos < v.needs
		v.found = m.has(s, pos)
	}
	v.pc++
	if int(v.pc) == len(m.steps(v)) {
		m.conclude(s, &next, v.found)
		return
	}
	m.waits(&next)
	m.step(action, &next)
}

// request notes what the answer will be held against.
func (m *Model) request(s *State) {
	v := &s.verify
	v.after = s.revoked
	if !m.bounds.EveryStep && !m.off.clockAfterRequest {
		v.clock = s.now + 1
	}
	switch {
	case m.bounds.Linearizable:
		v.needs = s.commit
	case m.bounds.Age:
		for v.needs < s.commit && s.commitAt[v.needs]+trueSteps < s.now {
			v.needs++
		}
	}
}

// reads gives the position of what is read: the node's own, or that of the object that it had before.
func (v *verification) reads(current, kept uint8) uint8 {
	if v.frozen {
		return kept
	}
	return current
}

// fresh tells whether the state object can be answered from.
func (m *Model) fresh(s *State) bool {
	v := &s.verify
	through := s.nodes[v.node].fresh
	if v.frozen && !m.off.freshnessOfObject {
		through = v.fresh
	}
	if m.off.ageEachTime {
		return through != 0
	}
	return through != 0 && m.within(v.node, through-1, v.clock-1)
}

// fromFuture has a token from a revision ahead of the node's wait for a round, once.
func (m *Model) fromFuture(s, next *State) {
	v := &next.verify
	if v.again || m.off.futureTakesARound {
		m.conclude(s, next, false)
		return
	}
	*v = verification{active: true, again: true, node: v.node, pc: 1, needs: v.needs, after: v.after}
	m.waits(next)
	m.seen(Action{kind: seesFuture, node: v.node}, next, FromFuture)
}

// without ends a verification that gets no round, for want of a leader say: there is no verdict.
func (m *Model) without(s, next *State) {
	if m.off.noRoundNoVerdict {
		m.conclude(s, next, false)
		return
	}
	next.verify = verification{}
	m.seen(Action{kind: getsNoRound, node: s.verify.node}, next, NoRound)
}

// waits joins a round that is under way, where the rule against that is off.
func (m *Model) waits(s *State) {
	v := &s.verify
	if m.off.joinLaterRounds && m.awaits(v) && s.nodes[v.node].round.phase != noRound {
		v.joined = true
	}
}

// conclude gives the answer, and holds it against what is promised.
func (m *Model) conclude(s, next *State, accepted bool) {
	v := next.verify
	next.verify = verification{}
	action, seen, wrong := Action{kind: accepts, node: v.node}, Accepted, ""
	if !accepted {
		action.kind, seen = callsInvalid, Invalid
	}
	switch {
	case accepted && v.after:
		wrong = "P2: accepted after the Revoke had returned"
	case !accepted && m.bounds.Issue && !holds(s, revoke, s.commit):
		wrong = "P3: the token of a key that is there is called invalid"
	case v.tooOld && m.bounds.Linearizable:
		wrong = "LINEARIZABLE: answered from a state that lacks what was acknowledged before"
	case v.tooOld:
		wrong = "P4: answered from a state that is older than S"
	}
	if wrong != "" {
		m.violated(action, next, wrong)
		return
	}
	m.seen(action, next, seen)
}

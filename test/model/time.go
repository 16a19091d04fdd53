package model

// Clocks. In one step of time a fast clock moves by 5 and a slow one by 4, which are about a tenth to each side of the
// true rate, so the bound is two steps of a slow clock. A quarter more is then two steps of a fast one: exactly what it
// has to be, and not yet enough.
const (
	fastRate = 5
	slowRate = 4
	// Staleness is S, the product's setting maxStaleness.
	Staleness = 2 * slowRate
	window    = Staleness + Staleness/4
	// trueSteps is how many steps of true time S is at the most.
	trueSteps = Staleness / slowRate
)

func (m *Model) rate(n uint8) int {
	if m.bounds.Fast.has(n) {
		return fastRate
	}
	return slowRate
}

// within tells whether what was noted at one time is fresh at the other, by the node's own clock.
func (m *Model) within(n, noted, now uint8) bool {
	return m.rate(n)*(int(now)-int(noted)) <= Staleness
}

// over tells whether the window has passed by the node's own clock.
func (m *Model) over(n, since, now uint8) bool {
	passed, needed := m.rate(n)*(int(now)-int(since)), window
	if m.off.quarterLonger {
		needed = Staleness
	}
	if m.off.strictlyLonger {
		return passed >= needed
	}
	return passed > needed
}

// pass lets time pass. That a machine is paused is nothing else: time passes and the machine takes no step. Only where
// ages do not count pauses is it a step of its own.
func (m *Model) pass(s *State) {
	if s.now == m.bounds.Time {
		return
	}
	next := *s
	next.now++
	m.step(Action{kind: timePasses}, &next)
	if !m.off.ageCountsPauses {
		return
	}
	for n := range m.bounds.Nodes {
		paused := next
		m.stopClock(&paused, n)
		m.step(Action{kind: timePassesAsleep, node: n}, &paused)
	}
}

// stopClock takes back the step that the clock of a paused node has not seen.
func (m *Model) stopClock(s *State, n uint8) {
	at := &s.nodes[n]
	if at.fresh != 0 {
		at.fresh++
	}
	if at.round.phase != noRound {
		at.round.noted++
	}
	if v := &s.verify; v.active && v.node == n {
		if v.fresh != 0 {
			v.fresh++
		}
		if v.clock != 0 {
			v.clock++
		}
	}
}

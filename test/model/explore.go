package model

import (
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
)

// Event is something that runs have to have come to, so that finding nothing wrong in them means something.
type Event uint16

// What is looked for.
const (
	RevokedByAll Event = 1 << iota
	RevokedByTime
	RevokedByDeposed
	Accepted
	Invalid
	RefusedStale
	FromFuture
	NoRound
	Forgot
)

// ErrTooMany says that there are more states within the bounds than were allowed for.
var ErrTooMany = errors.New("model: too many states")

// Result is what an exploration has come to.
type Result struct {
	States int
	Seen   Event
	// Wrong says which promise was broken; empty if none was.
	Wrong string
	// Trace has the steps to it, a shortest run.
	Trace []Action
}

// String has one step on each line.
func (r Result) String() string {
	var b strings.Builder
	for i, a := range r.Trace {
		fmt.Fprintf(&b, "%2d. %v\n", i+1, a)
	}
	return b.String() + r.Wrong
}

// Model explores one set of bounds, under the rules that are on.
type Model struct {
	bounds                Bounds
	off                   flags
	firstLook, secondLook []uint8

	visited visited
	from    uint32 // the state whose steps are taken
	seenAll Event
	wrong   string
	last    Action

	// sought is set while the step to a state is looked for, which is then found.
	sought bool
	target State
	found  Action
}

// Explore goes through all runs within the bounds, the shortest first, with some rules switched off. It stops at the first
// broken promise, or at more than limit states.
func Explore(b Bounds, limit int, off ...Rule) (Result, error) {
	m := &Model{bounds: b, off: without(off)}
	m.firstLook, m.secondLook = m.program(false), m.program(true)
	start := m.start()
	m.visited.add(&start, 0)
	for ; int(m.from) < len(m.visited.states) && m.wrong == ""; m.from++ {
		if len(m.visited.states) > limit {
			return Result{}, fmt.Errorf("%w: %s has more than %d", ErrTooMany, b.Name, limit)
		}
		s := m.visited.states[m.from]
		m.successors(&s)
	}
	r := Result{States: len(m.visited.states), Seen: m.seenAll, Wrong: m.wrong}
	if m.wrong != "" {
		r.Trace = m.trace()
	}
	return r, nil
}

func (m *Model) start() State {
	var s State
	s.nodes[0].believes = 1
	s.nodes[0].leads = 1
	for n := range m.bounds.Nodes {
		if m.bounds.Fresh.has(n) {
			s.nodes[n].fresh = 1
		}
	}
	return s
}

func (m *Model) successors(s *State) {
	m.verifies(s)
	m.replicate(s)
	m.freshness(s)
	m.write(s)
	m.elect(s)
	m.restart(s)
	m.restore(s)
	m.pass(s)
}

// step is told of each step that can be taken.
func (m *Model) step(a Action, next *State) {
	m.tidy(next)
	switch {
	case m.sought:
		if *next == m.target {
			m.found, m.sought = a, false
		}
	case m.wrong == "":
		m.visited.add(next, m.from)
	}
}

func (m *Model) seen(a Action, next *State, e Event) {
	m.seenAll |= e
	m.step(a, next)
}

func (m *Model) violated(a Action, next *State, wrong string) {
	if !m.sought && m.wrong == "" {
		m.wrong, m.last = wrong, a
		return
	}
	m.step(a, next)
}

// trace finds the steps that led to the state whose step was wrong.
func (m *Model) trace() []Action {
	path := []uint32{m.from - 1}
	for at := m.from - 1; at != 0; {
		at = m.visited.parents[at]
		path = append(path, at)
	}
	actions := make([]Action, 0, len(path))
	for i := len(path) - 1; i > 0; i-- {
		actions = append(actions, m.between(path[i], path[i-1]))
	}
	return append(actions, m.last)
}

func (m *Model) between(from, to uint32) Action {
	m.sought, m.target = true, m.visited.states[to]
	s := m.visited.states[from]
	m.successors(&s)
	return m.found
}

// visited has the states that were come to, each with the one before it. The table holds one more than a state's place,
// and is never more than half full.
type visited struct {
	seed    maphash.Seed
	states  []State
	parents []uint32
	table   []uint32
}

func (v *visited) add(s *State, parent uint32) {
	if 2*len(v.states) >= len(v.table) {
		v.grow()
	}
	at := v.slot(s)
	if v.table[at] != 0 {
		return
	}
	v.states, v.parents = append(v.states, *s), append(v.parents, parent)
	v.table[at] = uint32(len(v.states))
}

func (v *visited) slot(s *State) uint64 {
	mask := uint64(len(v.table) - 1)
	at := maphash.Comparable(v.seed, *s) & mask
	for v.table[at] != 0 && v.states[v.table[at]-1] != *s {
		at = (at + 1) & mask
	}
	return at
}

func (v *visited) grow() {
	if len(v.table) == 0 {
		v.seed = maphash.MakeSeed()
	}
	v.table = make([]uint32, max(1<<10, 2*len(v.table)))
	for i := range v.states {
		v.table[v.slot(&v.states[i])] = uint32(i + 1)
	}
}

package model

// Bounds say what may happen in the runs that are explored, and how often.
type Bounds struct {
	Name     string
	Nodes    uint8
	Leaders  set // who may be elected; node 0 leads at the start
	Askers   set // who runs rounds
	Verifies set // where verifications happen
	Fast     set // whose clocks run fast; the others' run slow
	Replicas set // who has no vote
	Fresh    set // who is fresh at the start

	Time, Log                                    uint8
	Asks, Elections, Restarts, Restores, Revokes uint8

	// Issue has the key made in the run; otherwise it is there at the start.
	Issue bool
	// Uncommitted lets entries lie in the log before they are committed.
	Uncommitted bool
	// Split publishes key and revision in two steps.
	Split bool
	// Linearizable has verifications run a round first.
	Linearizable bool
	// EveryStep keeps apart those steps of a verification too between which nothing can matter.
	EveryStep bool
	// Age checks that no answer is from too old a state.
	Age bool
	// Joiner and Leaver are one more than who may be added, or removed and forgotten; zero is nobody.
	Joiner, Leaver uint8
	// Snapshots has a snapshot overtake nothing but lets older ones through, as if nobody refused them.
	Snapshots bool
}

func (b *Bounds) joiner() uint8 { return b.Joiner - 1 }
func (b *Bounds) leaver() uint8 { return b.Leaver - 1 }

// set is a set of nodes.
type set uint8

func (s set) has(n uint8) bool { return s>>n&1 == 1 }

func nodes(ns ...uint8) (s set) {
	for _, n := range ns {
		s |= 1 << n
	}
	return s
}

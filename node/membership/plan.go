package membership

import (
	"cmp"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
)

// Plan is the next change of Raft's configuration that the leader should make: at most one of these is set.
type Plan struct {
	// Promote makes a caught-up non-voter a voter.
	Promote raft.Server
	// Demote makes a voter too many a non-voter.
	Demote raft.ServerID
	// Place puts a member whose admission was cut short into the configuration.
	Place fsm.Member
	// Evict takes a server whose removal was cut short out of the configuration.
	Evict raft.ServerID
}

// Situation is what a Plan is made of.
type Situation struct {
	Self    raft.ServerID
	Servers []raft.Server
	Members []fsm.Member
	// Removed tells whether the state says that a member was removed.
	Removed func(id string) bool
	// Wanted is the number of voters to grow to.
	Wanted int
	// AllAnswer tells that every voter answered just now. Only then is one demoted: with some of them gone, the
	// others may all be needed for the quorum.
	AllAnswer bool
	// Ready tells whether a non-voter has been caught up for long enough.
	Ready func(raft.ServerID) bool
}

// Next gives the next step towards the wanted number of voters.
//
// Voters are added only as far as their number ends up odd: an even one needs a larger quorum and survives no
// more failures. Servers are considered in order of their ids, so that every leader plans alike.
func Next(s Situation) Plan {
	for _, server := range s.Servers {
		if s.Removed(string(server.ID)) {
			return Plan{Evict: server.ID}
		}
	}
	voters, candidates := s.split()
	switch target := oddUpTo(min(s.Wanted, len(voters)+len(candidates))); {
	case len(voters) < target:
		return Plan{Promote: candidates[0]}
	case len(voters) > s.Wanted && s.AllAnswer:
		return Plan{Demote: s.surplus(voters)}
	}
	return Plan{Place: s.unplaced()}
}

// unplaced finds a record whose member is not in the configuration (yet).
func (s Situation) unplaced() fsm.Member {
	for _, m := range s.Members {
		in := slices.ContainsFunc(s.Servers, func(server raft.Server) bool { return string(server.ID) == m.ID })
		if !in {
			return m
		}
	}
	return fsm.Member{}
}

// split gives the voters, and the non-voters that could become voters, in order of their ids.
func (s Situation) split() (voters, candidates []raft.Server) {
	replicas := make(map[string]bool, len(s.Members))
	for _, m := range s.Members {
		replicas[m.ID] = m.Replica
	}
	for _, server := range s.Servers {
		replica, known := replicas[string(server.ID)]
		switch {
		case server.Suffrage == raft.Voter:
			voters = append(voters, server)
		case known && !replica && s.Ready(server.ID):
			candidates = append(candidates, server)
		}
	}
	byID := func(a, b raft.Server) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortFunc(voters, byID)
	slices.SortFunc(candidates, byID)
	return voters, candidates
}

// surplus picks the voter to demote: the last by id that is not the leader itself.
func (s Situation) surplus(voters []raft.Server) raft.ServerID {
	for _, v := range slices.Backward(voters) {
		if v.ID != s.Self {
			return v.ID
		}
	}
	return ""
}

// oddUpTo gives the largest odd number that is at most n, and 0 for 0.
func oddUpTo(n int) int {
	if n > 0 && n%2 == 0 {
		return n - 1
	}
	return n
}

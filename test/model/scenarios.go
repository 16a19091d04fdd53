package model

// The bounds that are explored. A, B, C and D are nodes 0 to 3; A leads at the start.
const (
	a uint8 = iota
	b
	c
	d
)

// partition: C lags behind, and asks leaders of which one may be deposed; A, whose clock runs fast, revokes.
func partition() Bounds {
	return Bounds{
		Name: "partition", Nodes: 3, Leaders: nodes(a, b), Askers: nodes(c), Verifies: nodes(c), Fast: nodes(a),
		Time: 3, Log: 3, Asks: 2, Elections: 1, Revokes: 1, Fresh: nodes(c),
	}
}

// retried: a Revoke is sent again, to the same leader or the next.
func retried() Bounds {
	x := partition()
	x.Name, x.Asks, x.Revokes = "revoke sent again", 1, 2
	return x
}

// uncommitted: entries wait for a majority, and an election may lose them.
func uncommitted() Bounds {
	return Bounds{
		Name: "uncommitted", Nodes: 2, Leaders: nodes(a, b), Askers: nodes(b), Verifies: nodes(b), Fast: nodes(a),
		Time: 3, Log: 4, Asks: 2, Elections: 1, Revokes: 1, Uncommitted: true,
	}
}

// ages: P4 is looked at too.
func ages() Bounds {
	return Bounds{
		Name: "ages", Nodes: 2, Leaders: nodes(a), Askers: nodes(b), Verifies: nodes(b), Fast: nodes(a),
		Time: 5, Log: 3, Asks: 2, Revokes: 1, Age: true, Fresh: nodes(b),
	}
}

func restarted() Bounds {
	return Bounds{
		Name: "restarts", Nodes: 2, Leaders: nodes(a, b), Askers: nodes(b), Verifies: nodes(b), Fast: nodes(a),
		Time: 3, Log: 4, Asks: 2, Elections: 2, Restarts: 1, Revokes: 2, Fresh: nodes(b),
	}
}

// snapshots: nobody refuses old ones, and the node's own rules have to do.
func snapshots() Bounds {
	return Bounds{
		Name: "old snapshots", Nodes: 2, Leaders: nodes(a), Askers: nodes(b), Verifies: nodes(b), Fast: nodes(a),
		Time: 3, Log: 3, Asks: 2, Restores: 1, Revokes: 1, Fresh: nodes(b), Snapshots: true,
	}
}

// future: a token is issued in the run, and read where its key may not be yet.
func future() Bounds {
	return Bounds{
		Name: "token from the future", Nodes: 2, Leaders: nodes(a, b), Askers: nodes(b), Verifies: nodes(b), Fast: nodes(a),
		Time: 3, Log: 4, Asks: 2, Elections: 1, Revokes: 1, Issue: true, Split: true, Fresh: nodes(b),
	}
}

// futureAlone: a token from the future is all there is to look at.
func futureAlone() Bounds {
	x := future()
	x.Name, x.Elections, x.Revokes, x.Split = "token from the future, one leader", 0, 0, false
	return x
}

func linearizable() Bounds {
	x := future()
	x.Name, x.Linearizable, x.Split = "linearizable", true, false
	return x
}

// joins: D asks before it is a member.
func joins() Bounds {
	return Bounds{
		Name: "a node joins", Nodes: 2, Leaders: nodes(a), Askers: nodes(b), Verifies: nodes(b), Fast: nodes(a),
		Time: 3, Log: 4, Asks: 2, Revokes: 1, Joiner: b + 1,
	}
}

// leaves: C is removed while it may be fresh, and forgotten later, perhaps by a leader that heard late.
func leaves() Bounds {
	return Bounds{
		Name: "a node leaves", Nodes: 3, Leaders: nodes(a, b), Askers: nodes(c), Verifies: nodes(c), Fast: nodes(a, b),
		Time: 3, Log: 4, Asks: 1, Elections: 1, Revokes: 1, Leaver: c + 1, Fresh: nodes(c),
	}
}

// leavesAlone: as leaves, with one leader.
func leavesAlone() Bounds {
	x := leaves()
	x.Name, x.Elections = "a node leaves, one leader", 0
	return x
}

// leavesStale: as leaves, and C is fresh only if it is answered after its removal.
func leavesStale() Bounds {
	x := leaves()
	x.Name, x.Fresh, x.Log = "a node leaves, stale", 0, 3
	return x
}

// leavesRestarted: as leaves, and a node that has applied the removal starts anew before it leads.
func leavesRestarted() Bounds {
	x := leaves()
	x.Name, x.Elections, x.Restarts, x.Asks = "a node leaves, another restarts", 2, 1, 0
	return x
}

// leavesRestored: as leaves, and a node's state is put back before it leads.
func leavesRestored() Bounds {
	x := leaves()
	x.Name, x.Restores, x.Snapshots, x.Asks = "a node leaves, another is put back", 1, true, 0
	return x
}

// reelected: A leads, B does, and A again.
func reelected() Bounds {
	x := partition()
	x.Name, x.Elections, x.Asks = "a leader leads again", 2, 1
	return x
}

// replica: B has no vote.
func replica() Bounds {
	return Bounds{
		Name: "replica", Nodes: 2, Leaders: nodes(a), Askers: nodes(b), Verifies: nodes(b), Fast: nodes(a),
		Time: 3, Log: 3, Asks: 2, Revokes: 1, Replicas: nodes(b), Fresh: nodes(b),
	}
}

// BoundsOf gives those in which the lack of the rule shows.
func BoundsOf(r Rule) Bounds {
	switch r {
	case AnswerAfterCommit, FallenIsUnknown:
		return uncommitted()
	case AnswerAfterApplied:
		return leavesStale()
	case AskerIsMember, FormerMembersHold, FormerFromApplication, ForgetAfterWindow:
		return leavesAlone()
	case NewLeaderCountsFormer:
		return leaves()
	case StartCountsFormer:
		return leavesRestarted()
	case RestoreCountsFormer:
		return leavesRestored()
	case ReignOfTheTerm:
		return reelected()
	case MemberAsOfTick, HoldersOfTheEntry:
		return joins()
	case JoinLaterRounds, RevisionBeforeKey, KeyPublishedFirst:
		return future()
	case FutureTakesARound, NoRoundNoVerdict:
		return futureAlone()
	case LinearizableTakesOne:
		return linearizable()
	case OldSnapshotsRefused:
		x := futureAlone()
		x.Restores = 1
		return x
	case RestartDropsFreshness:
		return restarted()
	case FreshnessOfObject, RestoreDropsFreshness, RestoreDropsRounds:
		return snapshots()
	case NonVotersHold:
		return replica()
	case RetryCommitsAgain:
		return retried()
	default:
		return partition()
	}
}

package model

func designed() []Bounds {
	all := []Bounds{
		partition(), retried(), uncommitted(), ages(), restarted(), snapshots(), future(), futureAlone(), linearizable(),
		joins(), leaves(), leavesAlone(), leavesStale(), leavesRestarted(), leavesRestored(), reelected(), replica(),
	}
	switch {
	case deep:
		return apply(all, deepened)
	case raced:
		return apply(all, lightened)
	default:
		return all
	}
}

func apply(all []Bounds, change func(Bounds) Bounds) []Bounds {
	for i := range all {
		all[i] = change(all[i])
	}
	return all
}

// deepened has more happen: what takes minutes and gigabytes.
func deepened(x Bounds) Bounds {
	x.EveryStep = true
	x.Time++
	x.Log++
	return x
}

// lightened is for the race detector, under which all takes ten times as long. There is nothing for it to find here.
func lightened(x Bounds) Bounds {
	switch x.Name {
	case ages().Name, linearizable().Name:
		x.Asks = 1
	case restarted().Name:
		x.Elections, x.Revokes = 1, 1
	case future().Name:
		x.Split, x.Asks = false, 1
	case leaves().Name:
		x.Log, x.Asks = 3, 0
	case leavesStale().Name:
		x.Elections = 0
	}
	return x
}

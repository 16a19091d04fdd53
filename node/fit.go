package node

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

const (
	// fitInterval is how often a node looks whether its timing goes with the distances that it measures.
	fitInterval = 10 * time.Second
	// fitAgain is the shortest time after which it says the same again.
	fitAgain = time.Hour
)

// watchTiming tells the log where this node's timing does not go with the distance between the voters, or with the bound
// on staleness that the cluster was founded with.
func (n *Node) watchTiming(ctx context.Context) error {
	ticker := time.NewTicker(fitInterval)
	defer ticker.Stop()
	told := make(map[fit]time.Time)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if !n.fsm.View().Founded() {
			continue
		}
		for _, f := range n.misfits() {
			if at, ever := told[f]; !ever || time.Since(at) >= fitAgain {
				told[f] = time.Now()
				n.tell(f)
			}
		}
	}
}

// misfits gives what is wrong with this node's timing.
func (n *Node) misfits() (found []fit) {
	if trip, measured := n.majorityTrip(); measured && n.cfg.Timing.suits(trip) != fits {
		found = append(found, n.cfg.Timing.suits(trip))
	}
	if n.cfg.Timing.staleness() > n.fsm.View().Settings().MaxStaleness {
		found = append(found, outlasts)
	}
	return found
}

// tell names the better setting.
func (n *Node) tell(f fit) {
	trip, _ := n.majorityTrip()
	measured := slog.Duration("round_trip", trip.Round(100*time.Microsecond))
	heartbeat := slog.Duration("heartbeat", n.cfg.Timing.Heartbeat)
	switch f {
	case tooShort:
		n.log.Warn("timing is lan, but a majority of the voters is too far away for that: set timing to wan", measured, heartbeat)
	case tooLong:
		n.log.Info("timing is wan, but a majority of the voters is near: lan would notice sooner that the leader is lost", measured, heartbeat)
	case outlasts:
		n.log.Warn("timing is wan, in a cluster that was founded with a max-staleness for lan: losing the leader can interrupt verifications here; "+
			"if the voters are near, set timing to lan; else found a cluster anew with a longer one",
			slog.Duration("max_staleness", n.fsm.View().Settings().MaxStaleness), slog.Duration("at_least", n.cfg.Timing.staleness()), heartbeat)
	case fits:
	}
}

// majorityTrip gives the round trip from this node to the voter that completes a majority with it; false where it does not
// vote, votes alone, or has not measured enough of the others.
func (n *Node) majorityTrip() (time.Duration, bool) {
	voters := n.voters()
	if !slices.Contains(voters, n.cfg.ID) {
		return 0, false
	}
	return tripToMajority(n.cfg.ID, voters, n.clock.RoundTrips())
}

// tripToMajority is majorityTrip of what was measured.
func tripToMajority(self string, voters []string, measured map[string]time.Duration) (time.Duration, bool) {
	var trips []time.Duration
	for _, id := range voters {
		if trip, ok := measured[id]; ok && id != self {
			trips = append(trips, trip)
		}
	}
	others := len(voters) / 2 // that a majority has besides this node
	if others == 0 || len(trips) < others {
		return 0, false
	}
	slices.Sort(trips)
	return trips[others-1], true
}

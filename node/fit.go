package node

import (
	"context"
	"fmt"
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
	timing, bound := n.cfg.Timing, n.fsm.View().Settings().MaxStaleness
	switch f {
	case tooShort:
		n.log.Warn(fmt.Sprintf("timing is %s, but a majority of the voters is %v away: set timing to wan", timing.name(), rounded(trip)),
			"round-trip", trip, "heartbeat", timing.Heartbeat)
	case tooLong:
		n.log.Info(fmt.Sprintf("timing is %s, but a majority of the voters is only %v away: lan would notice sooner that the leader is lost", timing.name(), rounded(trip)),
			"round-trip", trip, "heartbeat", timing.Heartbeat)
	case outlasts:
		n.log.Warn(fmt.Sprintf("timing is %s, with which a lost leader can be missed for so long that this node stops verifying: the cluster was founded with a max-staleness of %v, and %v would go with this timing; set timing to lan if the voters are near, else found a cluster anew with a longer one",
			timing.name(), bound, timing.staleness()), "heartbeat", timing.Heartbeat)
	case fits:
	}
}

func rounded(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

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

package clock

import (
	"maps"
	"slices"
	"time"
)

const (
	// keptTrips is how many measurements of a voter its round trip is taken from: the shortest is the distance, the
	// others also waited for something.
	keptTrips = 10
	// leastTrips is how many it takes: the first may have opened a connection.
	leastTrips = 3
)

// trip is the shortest of a voter's latest round trips.
type trip struct {
	took time.Duration
	seen time.Duration // monotonic clock at the latest measurement
}

// RoundTrips returns, for each other voter measured lately, how long a question to it and the answer take at least. It
// takes no part in the time: a round trip that is too long for that is here as well.
func (c *Clock) RoundTrips() map[string]time.Duration {
	out := make(map[string]time.Duration)
	trips := c.trips.Load()
	if trips == nil {
		return out
	}
	now := c.cfg.Mono()
	for voter, t := range *trips {
		if now-t.seen <= c.cfg.MaxAge {
			out[voter] = t.took
		}
	}
	return out
}

// noteTrip takes note of how long a measurement took, and publishes what that makes of the voter's round trip.
func (r *rounds) noteTrip(s Sample) {
	took := slices.Concat(r.took[s.Voter], []time.Duration{2 * s.Err})
	r.took[s.Voter] = took[max(0, len(took)-keptTrips):]
	trips := make(map[string]trip)
	if last := r.trips.Load(); last != nil {
		maps.Copy(trips, *last)
	}
	maps.DeleteFunc(trips, func(voter string, _ trip) bool { return !slices.Contains(r.voters, voter) })
	if len(took) >= leastTrips {
		trips[s.Voter] = trip{took: slices.Min(r.took[s.Voter]), seen: s.Seen}
	}
	r.trips.Store(&trips)
}

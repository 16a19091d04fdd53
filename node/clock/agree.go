package clock

import (
	"cmp"
	"slices"
	"time"
)

// driftDivisor is the allowance for the drift of two clocks against each other: 1 ms for each second of a
// sample's age, some twenty times what quartz does.
const driftDivisor = 1000

// Sample is one reading of a voter's wall clock, placed on the reader's own monotonic clock.
type Sample struct {
	// Voter is the id of the voter whose clock was read.
	Voter string
	// Wall is what it showed, without Go's monotonic reading.
	Wall time.Time
	// Mono is the reader's monotonic clock at that instant, give or take Err.
	Mono time.Duration
	// Err is half the round trip.
	Err time.Duration
	// Seen is the reader's monotonic clock at the last measurement that bore this sample out.
	Seen time.Duration
}

// base is what the voter's wall clock showed when the reader's monotonic clock was zero.
func (s Sample) base() time.Time { return s.Wall.Add(-s.Mono) }

// slack is how far base may be off by now, to either side.
func (s Sample) slack(now time.Duration) time.Duration {
	return s.Err + max(0, now-s.Mono)/driftDivisor
}

// contradicts tells whether the two readings cannot be of one clock that ran steadily.
func (s Sample) contradicts(other Sample, now time.Duration) bool {
	return s.base().Sub(other.base()).Abs() > s.slack(now)+other.slack(now)
}

// Rules are the bounds of an agreement.
type Rules struct {
	// MaxAge is how long a sample counts after it was last borne out.
	MaxAge time.Duration
	// Agreement is how far apart the clocks of an agreeing group may be, errors of measurement included.
	Agreement time.Duration
}

// usable tells whether a sample is exact enough to agree with anything.
func (r Rules) usable(s Sample) bool { return 2*s.Err <= r.Agreement }

// prefer returns the sample of a voter to go on with: held, or a new measurement of the same clock.
// The more exact one is kept for up to half of MaxAge, unless the new one shows that the clock has jumped.
func (r Rules) prefer(held, fresh Sample, now time.Duration) (Sample, bool) {
	switch {
	case fresh.contradicts(held, now):
		return fresh, r.usable(fresh)
	case !r.usable(fresh):
		return held, true
	case now-held.Mono > r.MaxAge/2 || fresh.slack(now) <= held.slack(now):
		return fresh, true
	}
	held.Seen = fresh.Seen
	return held, true
}

// Estimate is the cluster's time as a reader of the voters' clocks knows it.
type Estimate struct {
	// Base is the cluster's time at the zero of the reader's monotonic clock: Base plus that clock is the time.
	Base time.Time
	// Until is the reader's monotonic clock at which too few samples will be young enough to vouch for Base.
	Until time.Duration
	// Group holds the voters that agree, sorted.
	Group []string
}

// reading is the interval that a voter's base lies in.
type reading struct {
	voter  string
	lo, hi time.Time
	seen   time.Duration
}

// Agree finds the time that a majority of voters agrees on at now, the reader's monotonic clock; false if
// there is none. It takes the group of most voters whose clocks, with their errors, certainly lie within
// Agreement of each other; among groups of equal size the one that lies closest together, then the earliest.
// The estimate is the middle of the group. Order and repetition of voters, and samples of others, do not matter.
//
// If the clocks of a majority are within half of Agreement of the true time, the estimate is within
// Agreement of it, whatever the others show: every group of a majority has a member of that one.
func Agree(samples []Sample, voters []string, now time.Duration, r Rules) (Estimate, bool) {
	voters = slices.Compact(slices.Sorted(slices.Values(voters)))
	majority := len(voters)/2 + 1
	readings := readingsOf(samples, voters, now, r)
	var best group
	for _, first := range readings {
		if g := groupFrom(first, readings, r.Agreement); len(g.members) >= majority && g.beats(best) {
			best = g
		}
	}
	if len(best.members) == 0 {
		return Estimate{}, false
	}
	return best.estimate(majority, r), true
}

// readingsOf keeps the usable, young samples of voters, one for each, in order of time.
func readingsOf(samples []Sample, voters []string, now time.Duration, r Rules) []reading {
	var out []reading
	for _, s := range samples {
		_, votes := slices.BinarySearch(voters, s.Voter)
		again := slices.ContainsFunc(out, func(o reading) bool { return o.voter == s.Voter })
		if !votes || again || now-s.Seen > r.MaxAge || !r.usable(s) {
			continue
		}
		base, slack := s.base(), s.slack(now)
		out = append(out, reading{voter: s.Voter, lo: base.Add(-slack), hi: base.Add(slack), seen: s.Seen})
	}
	slices.SortFunc(out, func(a, b reading) int {
		return cmp.Or(a.lo.Compare(b.lo), a.hi.Compare(b.hi), cmp.Compare(a.voter, b.voter))
	})
	return out
}

// group is a set of readings that lie within the agreed bound.
type group struct {
	members []reading
	lo, hi  time.Time
}

// groupFrom gathers all readings that start no earlier than first and end within bound of its start.
func groupFrom(first reading, readings []reading, bound time.Duration) group {
	g := group{lo: first.lo, hi: first.lo}
	for _, m := range readings {
		if m.lo.Before(first.lo) || m.hi.Sub(first.lo) > bound {
			continue
		}
		g.members = append(g.members, m)
		if m.hi.After(g.hi) {
			g.hi = m.hi
		}
	}
	return g
}

func (g group) spread() time.Duration { return g.hi.Sub(g.lo) }

func (g group) beats(other group) bool {
	if len(g.members) != len(other.members) {
		return len(g.members) > len(other.members)
	}
	return g.spread() < other.spread()
}

func (g group) estimate(majority int, r Rules) Estimate {
	est := Estimate{Base: g.lo.Add(g.spread() / 2)}
	var seen []time.Duration
	for _, m := range g.members {
		est.Group = append(est.Group, m.voter)
		seen = append(seen, m.seen)
	}
	slices.Sort(est.Group)
	slices.Sort(seen)
	est.Until = seen[len(seen)-majority] + r.MaxAge
	return est
}

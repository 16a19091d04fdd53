package clock

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// Run measures until ctx ends, and returns nil once its goroutines are done. It may be called once.
// If this node is the only voter, the time is known as soon as Run has begun.
func (c *Clock) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	r := &rounds{
		Clock:   c,
		samples: make(map[string]Sample),
		asking:  make(map[string]bool),
		unheard: make(map[string]bool),
		took:    make(map[string][]time.Duration),
		answers: make(chan answer),
		report:  newReport(c.cfg),
	}
	defer r.wg.Wait()
	defer cancel()
	ticker := time.NewTicker(c.cfg.Interval)
	defer ticker.Stop()
	for r.begin(ctx); ; {
		select {
		case <-ctx.Done():
			return nil
		case a := <-r.answers:
			r.take(a)
		case <-ticker.C:
			r.begin(ctx)
		case <-c.kick:
			r.begin(ctx)
		}
	}
}

// rounds is the state of Run, touched by its goroutine only.
type rounds struct {
	*Clock
	voters  []string
	samples map[string]Sample
	asking  map[string]bool            // voters whose measurement is under way
	unheard map[string]bool            // voters that are new, until their first measurement ends
	took    map[string][]time.Duration // the latest round trips of each voter
	answers chan answer
	report  *report
	wg      sync.WaitGroup
}

// answer is the end of one measurement.
type answer struct {
	voter  string
	sample Sample
	err    error
}

// begin starts a round: it reads the own clock, and asks each other voter that it is not asking already.
func (r *rounds) begin(ctx context.Context) {
	r.elect(r.cfg.Voters())
	r.hold(r.readSelf())
	for _, id := range r.voters {
		if id == r.cfg.Self || r.asking[id] {
			continue
		}
		r.asking[id] = true
		r.wg.Go(func() { r.ask(ctx, id) })
	}
	r.settle()
}

// elect takes over the voters of a new round and forgets those that are none any more.
func (r *rounds) elect(voters []string) {
	for _, id := range voters {
		if id != r.cfg.Self && !slices.Contains(r.voters, id) {
			r.unheard[id] = true
		}
	}
	gone := func(id string) bool { return id != r.cfg.Self && !slices.Contains(voters, id) }
	maps.DeleteFunc(r.samples, func(id string, _ Sample) bool { return gone(id) })
	maps.DeleteFunc(r.unheard, func(id string, _ bool) bool { return gone(id) })
	maps.DeleteFunc(r.took, func(id string, _ []time.Duration) bool { return gone(id) })
	r.voters = slices.Clone(voters)
}

// readSelf measures the own clock like any other, in case the machine paused between its two readings.
func (r *rounds) readSelf() Sample {
	start := r.cfg.Mono()
	wall := r.wall()
	return sampleOf(r.cfg.Self, wall, start, r.cfg.Mono())
}

// ask measures one voter; it runs on a goroutine of its own.
func (r *rounds) ask(ctx context.Context, id string) {
	asked, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	start := r.cfg.Mono()
	wall, err := r.cfg.Measure(asked, id)
	a := answer{voter: id, sample: sampleOf(id, wall.Round(0), start, r.cfg.Mono()), err: err}
	select {
	case r.answers <- a:
	case <-ctx.Done():
	}
}

// sampleOf places a reading in the middle of the time that it took.
func sampleOf(voter string, wall time.Time, start, end time.Duration) Sample {
	half := (end - start + 1) / 2
	return Sample{Voter: voter, Wall: wall, Mono: start + half, Err: half, Seen: end}
}

// take ends one measurement.
func (r *rounds) take(a answer) {
	delete(r.asking, a.voter)
	delete(r.unheard, a.voter)
	if a.err != nil {
		r.cfg.Logger.Debug("clock: could not read a voter's clock", "voter", a.voter, "error", a.err)
	} else if slices.Contains(r.voters, a.voter) {
		r.hold(a.sample)
		r.noteTrip(a.sample)
	}
	r.settle()
}

// hold keeps the better of a new sample and the one that is held.
func (r *rounds) hold(fresh Sample) {
	held, ok := r.samples[fresh.Voter]
	if !ok {
		held, ok = fresh, r.rules.usable(fresh)
	} else {
		held, ok = r.rules.prefer(held, fresh, fresh.Seen)
	}
	if !ok {
		delete(r.samples, fresh.Voter)
		return
	}
	r.samples[fresh.Voter] = held
}

// settle publishes what the samples say now. While a new voter has not been heard, what was known stands, so
// that a growing cluster does not lose the time for a round trip.
func (r *rounds) settle() {
	now := r.cfg.Mono()
	samples := r.young(now)
	bases := make(map[string]time.Time, len(samples))
	for _, s := range samples {
		bases[s.Voter] = s.base()
	}
	est, ok := Agree(samples, r.voters, now, r.rules)
	if ok {
		r.known.Store(&known{base: est.Base, until: est.Until, bases: bases})
		r.report.known(est, bases)
		return
	}
	last := r.known.Load()
	if last != nil && len(r.unheard) > 0 {
		return
	}
	if last != nil {
		r.known.Store(&known{base: last.base, until: min(last.until, now-1), bases: bases})
	}
	r.report.unknown(now, len(samples), len(r.voters))
}

// young returns the samples that still count.
func (r *rounds) young(now time.Duration) []Sample {
	return slices.DeleteFunc(slices.Collect(maps.Values(r.samples)), func(s Sample) bool {
		return now-s.Seen > r.rules.MaxAge
	})
}

package sim

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What is due is done within a second, and what has expired is refused within the bound on the clocks (P5). Both are looked
// at all the while: the first wherever some leader gets its writes through, whatever goes wrong meanwhile; the second by what
// each node itself takes for the time, which is looked at as well.
const (
	// lookEvery is the time from one look to the next.
	lookEvery = 100 * time.Millisecond
	// dueWithin is how late a rotation may be, by the leader's own time, where messages take no time.
	dueWithin = time.Second
	// steady is the longest time between two entries of a leader that gets its writes through.
	steady = 250 * time.Millisecond
	// clockBound is how far the time of a node may be off that has measured a majority lately; vague how much more it may be
	// with links on which a measurement takes as long as it may, and carried on for as long as the time counts as known.
	clockBound = 500 * time.Millisecond
	vague      = 250*time.Millisecond + time.Second
	// drift is how far a clock may run from the true rate: one tenth.
	drift = 10
)

// watch looks after what is due, and after the nodes' clocks, until end.
func (w *World) watch(end <-chan struct{}) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	duties := make(map[*member]*duty)
	for _, m := range w.members {
		duties[m] = &duty{}
	}
	for {
		select {
		case <-end:
			return
		case <-ticker.C:
		}
		for _, m := range w.members {
			w.checkClock(m)
			w.checkDue(m, duties[m])
		}
	}
}

// duty is how long a process has led, known the time, and got its writes through without a pause.
type duty struct {
	life         *life
	position     uint64
	moved, since time.Time
	// held is how much longer than usual an entry may take, by what befalls messages now or did a moment ago.
	held time.Duration
}

// look gives for how long that has been so by now.
func (d *duty) look(m *member, now time.Time, known bool) time.Duration {
	l := m.process()
	if l == nil || l != d.life || !l.node.Leading() {
		*d = duty{life: l, moved: now, since: now, held: d.held}
	}
	d.held = max(m.world.holdUp(), d.held-lookEvery)
	if l == nil || !l.node.Leading() {
		return 0
	}
	if p := l.node.View().Position(); p != d.position {
		d.position, d.moved = p, now
	}
	if now.Sub(d.moved) > steady || !known {
		d.since = now
	}
	return now.Sub(d.since)
}

// checkDue looks whether what fell due while the member could do it, or before, has been done in time.
func (w *World) checkDue(m *member, d *duty) {
	now := time.Now()
	clock := w.timely.of(m.host).last()
	able := d.look(m, now, clock.known)
	within := dueWithin + d.held
	if able <= within {
		return
	}
	w.timely.watched.Add(int64(lookEvery))
	at, ok := m.view().NextDue()
	if late := now.Add(clock.low).Sub(at); ok && late > within {
		w.violation("P5: what was due at %v is not done at %s, which could do it for %v, after %v of its time", at.Sub(w.began), m.host, able, late)
	}
}

// holdUp is how long the way of an entry, and that of the one before it which it has to wait for, takes longer on slow links
// and where messages are delayed.
func (w *World) holdUp() time.Duration {
	up := 2 * time.Duration(w.slowed.Load())
	if weather := w.sky.now.Load(); weather != nil {
		up += weather.most
	}
	return 2 * up
}

// checkClock notes how far the member's time is from the true one.
func (w *World) checkClock(m *member) {
	l := m.process()
	if l == nil {
		return
	}
	r := w.timely.note(m.host, l)
	off := max(-r.low, r.high)
	calm, ok := w.peace()
	switch {
	case !r.known:
	case off > clockBound+vague:
		w.violation("P5: the time of %s is off by %v", l.name, off)
	case off > clockBound && ok && calm > 3*time.Second:
		w.violation("P5: the time of %s is off by %v, though nothing has gone wrong for %v", l.name, off, calm)
	}
}

// timely has what each machine took for the time, all along.
type timely struct {
	mu  sync.Mutex
	all map[string]*readings
	// watched is for how long P5 was looked at.
	watched atomic.Int64
}

// readings are those of one machine, in order.
type readings struct {
	mu   sync.Mutex
	all  []clockReading
	life *life
}

// clockReading says how far a node's time was ahead of the true one: at least low, at most high. Where the node does not
// know the time, that is how far the time may be off that it knew last.
type clockReading struct {
	at        time.Time
	low, high time.Duration
	known     bool
}

func (t *timely) of(host string) *readings {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = make(map[string]*readings)
	}
	if t.all[host] == nil {
		t.all[host] = &readings{}
	}
	return t.all[host]
}

// note reads the clock of a process.
func (t *timely) note(host string, l *life) clockReading {
	now := time.Now()
	res, err := l.node.Status(context.Background())
	r := t.of(host)
	r.mu.Lock()
	defer r.mu.Unlock()
	if l != r.life {
		r.life = l
		r.all = append(r.all, clockReading{at: now}) // a new process knows nothing, and judges nothing
	}
	next := clockReading{at: now}
	if clock := res.GetClock(); err == nil && clock.GetKnown() {
		off := clock.GetTime().AsTime().Sub(now)
		next.low, next.high, next.known = off, off, true
	} else {
		was := r.all[len(r.all)-1]
		passed := now.Sub(was.at)
		next.low, next.high = was.low-passed/drift, was.high+passed/drift
	}
	r.all = append(r.all, next)
	return next
}

func (r *readings) last() clockReading {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) == 0 {
		return clockReading{}
	}
	return r.all[len(r.all)-1]
}

// between gives the least and the most that the time was ahead, from the last reading before from on.
func (r *readings) between(from, to time.Time) (low, high time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range slices.Backward(r.all) {
		if !c.at.After(to.Add(lookEvery)) {
			low, high = min(low, c.low), max(high, c.high)
		}
		if c.at.Before(from) {
			break
		}
	}
	return low, high
}

// carriedOn is by how much more than clockBound a node's time may be off before it says so: by what a clock that is a tenth off
// is off after two seconds without a measurement, from when on clock.Doubt counts, and what is between two looks at it.
const carriedOn = 250 * time.Millisecond

// leniency is how long before and after an expiry a verdict may treat the token as if it had come, or not: the bound on the
// clocks, or what they were off by. For an acceptance that is the node's own; for an early refusal any member's, as the log's
// time counts as well, and is the leaders': it can be ahead for as long as one of them was. The node's own counts for no more
// than it may be off, except at STALE_OK: at the other levels a node gives no verdict that hangs on more than it knows of the
// time.
func (w *World) leniency(o *Op) (early, late time.Duration) {
	host, _, _ := strings.Cut(o.Process, "#")
	now := time.Now()
	for _, m := range w.members {
		if l := m.process(); l != nil {
			w.timely.note(m.host, l)
		}
		low, high := w.timely.of(m.host).between(o.Began.Add(-3*time.Second), now)
		if m.host == host {
			late = -low
			if o.Level != StaleOK {
				late, high = min(late, clockBound+carriedOn), min(high, clockBound+carriedOn)
			}
		}
		early = max(early, high)
	}
	return max(clockBound, early+lookEvery), max(clockBound, late+lookEvery)
}

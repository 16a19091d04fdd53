package client

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// maxStrikes is how many failures in a row eject a node.
	maxStrikes = 3
	// firstEjection is how long the first ejection lasts; each that follows lasts twice as long, up to longestEjection.
	firstEjection   = time.Second
	longestEjection = 30 * time.Second
)

// conduct is how a node did in one attempt.
type conduct int

const (
	// unjudged says nothing of the node, as when the caller gave up.
	unjudged conduct = iota
	well
	failed
	// foreign is to be another cluster's.
	foreign
)

// health is what has been seen of a node.
type health struct {
	mu       sync.Mutex
	inFlight int
	// latency is what nodes are compared by: it also has what was given up on. usual is that of answers alone.
	latency, usual [kindCount]latency
	// strikes and ejections are counted since an answer last came.
	strikes, ejections int
	// ejected nodes are asked when nobody else is left, and once, as a trial, when until has come.
	ejected, onTrial bool
	until            time.Time
	// recovered says that an ejected node has answered a probe since: what it lacks is a caller's request that goes well.
	recovered bool
	// answered is when an answer last came.
	answered time.Time
	// probed says that somebody looks after its coming back.
	probed bool
}

// usable tells whether a request may go to the node.
func (h *health) usable(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fit(now)
}

func (h *health) fit(now time.Time) bool {
	return !h.ejected || !h.onTrial && !now.Before(h.until)
}

// begin counts a request in if the node is usable. Each that was counted in is counted out by end.
func (h *health) begin(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.fit(now) {
		return false
	}
	h.onTrial = h.ejected
	h.inFlight++
	return true
}

// beginAnyway counts in a request for which there is no usable node.
func (h *health) beginAnyway() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inFlight++
}

// end counts a request out. took is how long the answer took, or at least that; zero if it tells nothing. It reports
// whether somebody has to see to the node's coming back.
func (h *health) end(k kind, did conduct, took time.Duration) (probe bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.inFlight--
	if took > 0 {
		h.latency[k].add(took, now)
	}
	if took > 0 && did == well {
		h.usual[k].add(took, now)
	}
	switch did {
	case well:
		h.answered = now
		h.praise(k)
	case foreign:
		h.strikes = max(h.strikes, maxStrikes-1)
		h.strike(now)
	case failed:
		h.strike(now)
	case unjudged:
	}
	h.onTrial = false
	probe = h.ejected && !h.recovered && !h.probed
	h.probed = h.probed || probe
	return probe
}

// strike ejects the node at the third failure in a row, and at the first while it is on trial.
func (h *health) strike(now time.Time) {
	h.strikes++
	if h.strikes < maxStrikes || h.ejected && now.Before(h.until) {
		return
	}
	h.ejected, h.recovered = true, false
	h.until = now.Add(jitter(min(firstEjection<<min(h.ejections, 10), longestEjection)))
	h.ejections++
}

// praise readmits the node. One that has only answered a probe may still fail requests: it stays on trial, so that
// however many callers there are, one of them at a time finds out.
func (h *health) praise(k kind) {
	if k == probing && h.ejected {
		h.recovered, h.until = true, time.Time{}
		return
	}
	if k != probing {
		h.strikes, h.ejections = 0, 0
		h.ejected = false
	}
}

// thrives tells whether the node has answered recently, and not failed since.
func (h *health) thrives(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.ejected && h.strikes == 0 && !h.answered.IsZero() && now.Sub(h.answered) < recently
}

// awaitRelease gives the end of an ejection to who sees to it. Where there is nothing to see to, that one is done.
func (h *health) awaitRelease() (until time.Time, out bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probed = h.ejected && !h.recovered
	return h.until, h.probed
}

// released gives the end of the latest ejection.
func (h *health) released() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.until
}

// cost compares nodes: the time that a request will take, by how long others took and how many are on their way. A node
// of which nothing is known is tried, once.
func (h *health) cost(k kind, now time.Time) float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &h.latency[k]
	if !l.measured() {
		return float64(h.inFlight) * float64(time.Second)
	}
	return float64(h.inFlight+1) * float64(l.faded(now)+time.Microsecond)
}

// expected is how long an answer takes as a rule.
func (h *health) expected(k kind, now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.usual[k].faded(now)
}

// jitter spreads d over its upper half, so that many clients do not act in step.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1) //nolint:gosec // spreading needs no unpredictable numbers
}

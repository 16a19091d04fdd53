package client

import (
	"math"
	"slices"
	"sync"
	"time"
)

// memory is how long a latency takes to be forgotten by two thirds.
const memory = 10 * time.Second

// latency is an average that follows a rise at once and a fall slowly (a peak EWMA), and fades where nothing is
// measured, so that a node that was slow is tried again some day.
type latency struct {
	average float64 // nanoseconds
	at      time.Time
}

func (l *latency) measured() bool { return !l.at.IsZero() }

// faded gives what the average counts for now.
func (l *latency) faded(now time.Time) time.Duration {
	return time.Duration(l.average * l.weight(now))
}

// weight is what is left of the average since it was last measured.
func (l *latency) weight(now time.Time) float64 {
	return math.Exp(-float64(now.Sub(l.at)) / float64(memory))
}

func (l *latency) add(took time.Duration, now time.Time) {
	sample := float64(took)
	if l.measured() && sample < l.average {
		w := l.weight(now)
		sample = l.average*w + sample*(1-w)
	}
	l.average, l.at = sample, now
}

const (
	// recent is how many answers a quantile is of, and fewest how many it takes before there is one.
	recent = 256
	fewest = 32
)

// quantile tells in which time a given part of the latest answers came.
type quantile struct {
	mu      sync.Mutex
	samples [recent]time.Duration
	seen    int
	last    time.Duration
}

// add takes an answer's time, and looks anew at every 32nd how they are spread.
func (q *quantile) add(took time.Duration, percentile float64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.samples[q.seen%recent] = took
	q.seen++
	if q.seen%fewest == 0 {
		sorted := slices.Sorted(slices.Values(q.samples[:min(q.seen, recent)]))
		q.last = sorted[int(percentile*float64(len(sorted)))]
	}
}

// value is zero until enough was seen.
func (q *quantile) value() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last
}

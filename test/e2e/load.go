//go:build unix

package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// pace is the time from one call of a caller to its next: the nodes share the machine with their callers.
const pace = 20 * time.Millisecond

// shownFailures bounds how many failed calls a test tells of.
const shownFailures = 5

// Load is callers who ask again and again until Stop. What they see is told by phases.
type Load struct {
	t    testing.TB
	stop context.CancelFunc
	all  sync.WaitGroup

	mu       sync.Mutex
	phases   []*phase
	failures int
}

// phase is what was seen while the cluster was in one condition.
type phase struct {
	name   string
	took   []time.Duration
	failed int
	// calls counts each caller's that began and succeeded in this phase.
	calls []int
}

// StartLoad has that many callers make calls. A call that fails, fails the test.
func StartLoad(t testing.TB, callers int, call func(ctx context.Context, caller, count int) error) *Load {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	l := &Load{t: t, stop: stop, phases: []*phase{{name: "all well", calls: make([]int, callers)}}}
	for caller := range callers {
		l.all.Go(func() { l.run(ctx, caller, call) })
	}
	t.Cleanup(l.end)
	return l
}

func (l *Load) run(ctx context.Context, caller int, call func(ctx context.Context, caller, count int) error) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for count := 0; ctx.Err() == nil; count++ {
		begun := l.now()
		start := time.Now()
		err := call(context.WithoutCancel(ctx), caller, count)
		l.note(begun, caller, time.Since(start), err)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// now is the phase that goes on.
func (l *Load) now() *phase {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.phases[len(l.phases)-1]
}

func (l *Load) note(in *phase, caller int, took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	in.took = append(in.took, took)
	if err == nil {
		in.calls[caller]++
		return
	}
	in.failed++
	if l.failures++; l.failures <= shownFailures {
		l.t.Errorf("%s: a call failed after %s: %v", in.name, took.Round(time.Millisecond), err)
	}
}

// Phase begins another phase. A call belongs to the one in which it began.
func (l *Load) Phase(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phases = append(l.phases, &phase{name: name, calls: make([]int, len(l.phases[0].calls))})
}

// Await waits until each caller has made that many calls that began in this phase.
func (l *Load) Await(calls int) {
	l.t.Helper()
	Await(l.t, fmt.Sprintf("%d calls of each caller", calls), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.Min(l.phases[len(l.phases)-1].calls) >= calls
	})
}

// Stop ends the callers, and prints what they have seen in each phase.
func (l *Load) Stop() {
	l.t.Helper()
	l.end()
	for _, p := range l.phases {
		l.t.Logf("%-28s %s, %d failed", p.name, Spread(p.took), p.failed)
	}
}

func (l *Load) end() {
	l.stop()
	l.all.Wait()
}

// Spread tells how durations are distributed.
func Spread(took []time.Duration) string {
	if len(took) == 0 {
		return "nothing"
	}
	slices.Sort(took)
	at := func(q float64) time.Duration { return Quantile(took, q).Round(100 * time.Microsecond) }
	return fmt.Sprintf("%6d: p50 %s, p99 %s, max %s", len(took), at(0.5), at(0.99), at(1))
}

// Quantile gives the q-th of durations in order.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

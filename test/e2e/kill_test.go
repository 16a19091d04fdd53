//go:build unix

package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/test/e2e"
)

// full has the tests run as long as they do before a release.
var full = flag.Bool("full", false, "run all rounds of the tests that take minutes")

// rounds is how often the leader is killed.
func rounds() int {
	if *full {
		return 20
	}
	return 3
}

// How long writes may stop when the leader's process is killed, as the project promises.
const (
	outageP95 = 3 * time.Second
	outageMax = 6 * time.Second
)

// Writers go on all the while, and what they were promised is held against every node after each round.
func TestNothingIsLostWhenLeadersAreKilledUnderLoad(t *testing.T) {
	c := e2e.Start(t, 3)
	acknowledged := e2e.NewLedger()
	var outages []time.Duration
	for round := range rounds() {
		w := startWriters(t, c.Client(), acknowledged, round)
		w.awaitWrites()
		killed := c.Leader()
		at := time.Now()
		killed.Kill()
		w.awaitWrites()
		outages = append(outages, w.longestPause(at))
		killed.Start()
		killed.AwaitReady()
		w.awaitWrites()
		w.stop()
		acknowledged.Check(t, c.Nodes...)
	}
	t.Logf("writes stopped for %s", e2e.Spread(outages))
	if longest := slices.Max(outages); longest > outageMax {
		t.Errorf("writes stopped for %s, want %s at the most", longest, outageMax)
	}
	if p95 := e2e.Quantile(outages, 0.95); len(outages) >= 20 && p95 > outageP95 {
		t.Errorf("in one case of twenty writes stopped for %s, want %s at the most", p95, outageP95)
	}
}

const (
	writerCount = 8
	// shortLife is that of tokens that expire, and have keys rotated, while the rounds go on.
	shortLife = 5 * time.Second
)

// writers issue and revoke tokens, each for users of its own, until they are stopped. A failed call is no fault of
// theirs: what it leaves is known or open. Only some of them revoke, since that waits for the killed node until it cannot be
// fresh any more, which is no pause in the writing.
type writers struct {
	t    *testing.T
	api  *client.Client
	book *e2e.Ledger
	end  context.CancelFunc
	all  sync.WaitGroup
	done [writerCount]atomic.Int64 // successful writes of each

	mu   sync.Mutex
	acks []time.Time
}

func startWriters(t *testing.T, api *client.Client, book *e2e.Ledger, round int) *writers {
	ctx, end := context.WithCancel(t.Context())
	w := &writers{t: t, api: api, book: book, end: end}
	for i := range writerCount {
		w.all.Go(func() { w.run(ctx, i, round) })
	}
	t.Cleanup(w.stop)
	return w
}

func (w *writers) run(ctx context.Context, writer, round int) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for count := 0; ctx.Err() == nil; count++ {
		if w.write(fmt.Sprintf("user-%d-%d-%d", round, writer, count%20), count, revokes(writer)) == nil {
			w.mu.Lock()
			w.acks = append(w.acks, time.Now())
			w.mu.Unlock()
			w.done[writer].Add(1)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// revokes tells which of the writers do.
func revokes(writer int) bool { return writer%4 == 3 }

func (w *writers) write(subject string, count int, revoking bool) error {
	ctx := context.WithoutCancel(w.t.Context())
	switch {
	case revoking && count%4 == 3:
		return w.book.Revoke(ctx, w.api, subject)
	case count%5 == 4:
		return w.book.Issue(ctx, w.api, subject, shortLife)
	}
	return w.book.Issue(ctx, w.api, subject, time.Hour)
}

// awaitWrites waits until each writer that does not revoke has written some more.
func (w *writers) awaitWrites() {
	w.t.Helper()
	var before [writerCount]int64
	for i := range w.done {
		before[i] = w.done[i].Load()
	}
	e2e.Await(w.t, "each writer to write", func() bool {
		for i := range w.done {
			if !revokes(i) && w.done[i].Load() < before[i]+5 {
				return false
			}
		}
		return true
	})
}

// longestPause is the longest time since then in which nobody was told of a write.
func (w *writers) longestPause(since time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var longest time.Duration
	last := since
	for _, at := range w.acks {
		if at.After(since) {
			longest, last = max(longest, at.Sub(last)), at
		}
	}
	return longest
}

func (w *writers) stop() {
	w.end()
	w.all.Wait()
}

package clock_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/node/clock"
)

// world is a cluster's wall clocks as one node sees them, in virtual time.
type world struct {
	mu      sync.Mutex // guards all but start and self once the clock runs
	start   time.Time
	self    string
	voters  []string
	offset  map[string]time.Duration // of each wall clock from the true time
	trip    map[string]time.Duration // round trip; 2 ms unless set
	back    map[string]time.Duration // what the way back takes longer
	cut     map[string]bool          // who cannot be reached
	hanging map[string]bool          // whose answer never comes
	log     bytes.Buffer
}

func newWorld(self string, voters ...string) *world {
	return &world{
		start: time.Now(), self: self, voters: voters,
		offset: map[string]time.Duration{}, trip: map[string]time.Duration{},
		back: map[string]time.Duration{},
		cut:  map[string]bool{}, hanging: map[string]bool{},
	}
}

// set changes the world under a running clock.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) wallOf(id string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.offset[id])
}

func (w *world) votersNow() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.voters
}

func (w *world) path(id string) (there, back time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	half := cmp.Or(w.trip[id], 2*time.Millisecond) / 2
	return half, half + w.back[id]
}

func (w *world) state(id string) (cut, hanging bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[id], w.hanging[id]
}

// Write takes the log.
func (w *world) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(line)
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func (w *world) measure(ctx context.Context, id string) (time.Time, error) {
	there, back := w.path(id)
	cut, hanging := w.state(id)
	if cut {
		return time.Time{}, errors.New("unreachable")
	}
	if hanging {
		<-ctx.Done()
		return time.Time{}, ctx.Err()
	}
	time.Sleep(there)
	wall := w.wallOf(id)
	time.Sleep(back)
	return wall, nil
}

// run starts the clock of the world's own node and has it end with the test.
func (w *world) run(t *testing.T) *clock.Clock {
	t.Helper()
	c := clock.New(clock.Config{
		Self:    w.self,
		Wall:    func() time.Time { return w.wallOf(w.self) },
		Mono:    func() time.Duration { return time.Since(w.start) },
		Voters:  w.votersNow,
		Measure: w.measure,
		Logger:  slog.New(slog.NewTextHandler(w, nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
	return c
}

// pass lets virtual time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// knows checks that the clock knows the time, within a bound of the true one.
func knows(t *testing.T, c *clock.Clock, bound time.Duration) {
	t.Helper()
	now, known := c.Now()
	if !known {
		t.Fatal("the time is unknown")
	}
	if off := time.Until(now).Abs(); off > bound {
		t.Fatalf("the time is off by %v, more than %v", off, bound)
	}
}

func knowsNot(t *testing.T, c *clock.Clock) {
	t.Helper()
	if now, known := c.Now(); known {
		t.Fatalf("the time is known: %v", now)
	}
}

func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestASingleVoterKnowsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newWorld("a", "a").run(t)
		knows(t, c, 0)
		pass(time.Hour)
		knows(t, c, 0)
	})
}

func TestANodeInNoClusterKnowsNoTimeAndDoesNotComplain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("a")
		c := w.run(t)
		pass(time.Minute)
		knowsNot(t, c)
		if _, ever := c.Last(); ever {
			t.Error("Last says that the time was known once")
		}
		if w.logged() != "" {
			t.Errorf("logged: %s", w.logged())
		}
	})
}

func TestAFollowerKnowsWithinARoundTrip(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("a", "a", "b", "c")
		w.trip["b"], w.trip["c"] = 80*time.Millisecond, 200*time.Millisecond
		c := w.run(t)
		knowsNot(t, c)
		pass(80 * time.Millisecond)
		knows(t, c, 40*time.Millisecond)
	})
}

func TestANonVoterKnowsFromTheVoters(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("replica", "a", "b", "c")
		w.offset["replica"], w.offset["b"] = -year, year
		c := w.run(t)
		pass(2 * time.Millisecond)
		knows(t, c, time.Millisecond)
		if !c.Off() {
			t.Error("its own clock, a year behind, is not reported")
		}
	})
}

func TestTheLeadersClockAYearAhead(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("follower", "leader", "follower", "other")
		w.offset["leader"] = year
		c := w.run(t)
		for range 60 {
			pass(time.Second)
			knows(t, c, time.Millisecond)
		}
		if c.Off() {
			t.Error("its own clock is called off")
		}
		if off := c.Offsets()["leader"]; (off - year).Abs() > 2*time.Millisecond {
			t.Errorf("the leader's offset is %v, want a year", off)
		}
		if n := strings.Count(w.logged(), "voter=leader"); n != 1 {
			t.Errorf("reported %d times, want once:\n%s", n, w.logged())
		}
	})
}

func TestTheOwnClockAYearAhead(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("a", "a", "b", "c")
		w.offset["a"] = year
		c := w.run(t)
		pass(time.Second)
		knows(t, c, time.Millisecond)
		if !c.Off() {
			t.Fatal("Off is false")
		}
		if off, known := c.Offset(); !known || (off-year).Abs() > time.Millisecond {
			t.Errorf("Offset = %v, %v", off, known)
		}
		w.set(func() { w.offset["a"] = 0 }) // set right by hand
		if c.Off() {
			t.Error("Off stays true")
		}
		pass(time.Second)
		knows(t, c, time.Millisecond)
		if !strings.Contains(w.logged(), "this node's wall clock is off") ||
			!strings.Contains(w.logged(), "right again") {
			t.Errorf("not reported:\n%s", w.logged())
		}
	})
}

func TestAMajorityOutOfReach(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("a", "a", "b", "c")
		c := w.run(t)
		pass(20*time.Second + 500*time.Millisecond)
		w.set(func() { w.cut["b"], w.cut["c"] = true, true }) // last measured half a second ago
		if d := c.Doubt(); d != 0 {
			t.Errorf("Doubt is %v while measurements come in", d)
		}
		pass(9 * time.Second)
		knows(t, c, time.Millisecond)
		if d := c.Doubt(); d < time.Second || d > 1100*time.Millisecond {
			t.Errorf("Doubt is %v 9.5 s after the last measurement", d)
		}
		pass(time.Second)
		knowsNot(t, c)
		w.set(func() { w.offset["a"] = year }) // Last is carried on by the monotonic clock, not by the wall clock
		pass(time.Hour)
		last, ever := c.Last()
		if off := time.Until(last).Abs(); !ever || off > time.Millisecond {
			t.Errorf("Last: %v, off by %v", ever, off)
		}
		if c.Off() {
			t.Error("Off is true although the time is unknown")
		}
		w.set(func() { w.cut["b"] = false })
		w.set(func() { w.offset["a"] = 0 })
		pass(time.Second)
		knows(t, c, time.Millisecond)
		if n := strings.Count(w.logged(), "time is unknown"); n != 1 {
			t.Errorf("reported %d times, want once:\n%s", n, w.logged())
		}
	})
}

func TestAClusterThatDoesNotAgreeIsReportedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("a", "a", "b")
		w.offset["b"] = time.Second
		c := w.run(t)
		pass(9 * time.Second)
		if w.logged() != "" {
			t.Errorf("reported too early: %s", w.logged())
		}
		pass(time.Minute)
		knowsNot(t, c)
		if n := strings.Count(w.logged(), "time is unknown"); n != 1 {
			t.Errorf("reported %d times, want once:\n%s", n, w.logged())
		}
	})
}

func TestAVoterThatJumpsIsLeftOutAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("a", "a", "b", "c")
		c := w.run(t)
		pass(10*time.Second + 500*time.Millisecond)
		w.set(func() { w.offset["b"] = 10 * time.Second })
		w.set(func() { w.trip["b"] = 100 * time.Millisecond }) // a worse measurement than the ones before the jump
		pass(time.Second)
		knows(t, c, time.Millisecond)
		if off := c.Offsets()["b"]; (off - 10*time.Second).Abs() > 100*time.Millisecond {
			t.Errorf("the offset after the jump is %v", off)
		}
		w.set(func() { w.cut["c"] = true }) // so that a majority would need the clock from before the jump
		pass(10 * time.Second)
		knowsNot(t, c)
	})
}

func TestVotersThatPartTheirWaysMakeTheTimeUnknownAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("a", "a", "b", "c")
		c := w.run(t)
		pass(10*time.Second + 500*time.Millisecond)
		w.set(func() { w.offset["b"], w.offset["c"] = time.Minute, -time.Minute })
		pass(time.Second)
		knowsNot(t, c)
		if last, _ := c.Last(); time.Until(last).Abs() > time.Millisecond {
			t.Errorf("Last moved: %v", time.Until(last))
		}
	})
}

func TestAHangingVoterStallsNobody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("a", "a", "b", "c")
		w.hanging["b"] = true
		c := w.run(t)
		for range 60 {
			pass(time.Second)
			knows(t, c, time.Millisecond)
		}
		if _, measured := c.Offsets()["b"]; measured {
			t.Error("an offset without a measurement")
		}
	})
}

func TestASlowVoterIsTooVagueToCount(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("a", "a", "b")
		w.trip["b"] = 501 * time.Millisecond
		c := w.run(t)
		pass(5 * time.Second)
		knowsNot(t, c)
		w.set(func() { w.trip["b"] = 490 * time.Millisecond })
		pass(2 * time.Second)
		knows(t, c, clock.DefaultAgreement/2)
	})
}

// Long round trips after short ones do not make the time worse, but the short ones do not count for ever.
func TestShortRoundTripsArePreferredForAWhile(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("replica", "b")
		c := w.run(t)
		pass(500 * time.Millisecond)
		w.set(func() { w.back["b"] = 200 * time.Millisecond }) // it seems to be 100 ms behind now
		pass(4 * time.Second)
		knows(t, c, time.Millisecond)
		pass(2 * time.Second)
		if off := c.Offsets()["b"]; off != 0 {
			t.Errorf("the only voter is %v from the time", off)
		}
		now, _ := c.Now()
		if off := time.Until(now); off != -100*time.Millisecond {
			t.Errorf("the time is off by %v, want the newer samples' -100 ms", off)
		}
	})
}

func TestAWorseMeasurementBearsOutABetterOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("replica", "b")
		c := w.run(t)
		pass(500 * time.Millisecond)
		w.set(func() { w.back["b"] = 200 * time.Millisecond })
		pass(4 * time.Second)
		w.set(func() { w.cut["b"] = true }) // last measured 300 ms ago, best 4.5 s ago
		pass(9500 * time.Millisecond)
		knows(t, c, time.Millisecond)
		pass(time.Second)
		knowsNot(t, c)
	})
}

func TestNewVotersAreMeasuredOnKick(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("a", "a")
		c := w.run(t)
		knows(t, c, 0)
		w.set(func() { w.voters = []string{"a", "b"} })
		c.Kick()
		synctest.Wait()
		knows(t, c, 0) // what was known stands until b was heard
		pass(2 * time.Millisecond)
		knows(t, c, time.Millisecond)
		if _, measured := c.Offsets()["b"]; !measured {
			t.Error("b was not measured at once")
		}
	})
}

func TestANewVoterThatIsOutOfReachDoesNotCarryTheTimeOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("a", "a")
		c := w.run(t)
		w.set(func() { w.voters, w.hanging["b"] = []string{"a", "b"}, true })
		c.Kick()
		pass(clock.DefaultTimeout)
		knowsNot(t, c)
	})
}

func TestARemovedVoterCountsNoMore(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("a", "a", "b", "c")
		w.offset["c"] = year
		c := w.run(t)
		pass(500 * time.Millisecond)
		w.set(func() { w.voters = []string{"a", "c"} })
		c.Kick()
		synctest.Wait()
		knowsNot(t, c)
		if _, measured := c.Offsets()["b"]; measured {
			t.Error("it still has an offset")
		}
	})
}

func TestARoundTripIsTheShortestOfTheLatest(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld("a", "a", "b", "c", "d")
		w.trip["b"], w.trip["c"], w.hanging["d"] = 80*time.Millisecond, 700*time.Millisecond, true
		c := w.run(t)
		pass(5 * time.Second)
		trips := c.RoundTrips()
		if trips["b"] != 80*time.Millisecond || trips["c"] != 700*time.Millisecond || len(trips) != 2 {
			t.Errorf("round trips: %v, want 80 ms to b and 700 ms to c", trips)
		}
		w.set(func() { w.trip["b"], w.cut["c"] = 150*time.Millisecond, true })
		pass(5 * time.Second)
		if got := c.RoundTrips()["b"]; got != 80*time.Millisecond {
			t.Errorf("a round trip that was longer for a while: %v", got)
		}
		pass(7 * time.Second)
		if trips := c.RoundTrips(); trips["b"] != 150*time.Millisecond || len(trips) != 1 {
			t.Errorf("round trips of 12 s later: %v, want 150 ms to b alone", trips)
		}
	})
}

func BenchmarkNow(b *testing.B) {
	c := known(b)
	for b.Loop() {
		c.Now()
	}
}

func BenchmarkNowParallel(b *testing.B) {
	c := known(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Now()
		}
	})
}

func BenchmarkOff(b *testing.B) {
	c := known(b)
	for b.Loop() {
		c.Off()
	}
}

func BenchmarkAgree(b *testing.B) {
	voters := voterNames(5)
	var samples []clock.Sample
	for i, v := range voters {
		samples = append(samples, readAt(time.Hour, v, time.Duration(i)*time.Millisecond, time.Millisecond))
	}
	for b.Loop() {
		clock.Agree(samples, voters, time.Hour, rules)
	}
}

// known returns the clock of a single voter that ran once.
func known(b *testing.B) *clock.Clock {
	c := clock.New(clock.Config{
		Self: "a", Voters: func() []string { return []string{"a"} },
		Measure: func(context.Context, string) (time.Time, error) { return time.Time{}, errors.New("nobody") },
	})
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	if err := c.Run(ctx); err != nil {
		b.Fatal(err)
	}
	return c
}

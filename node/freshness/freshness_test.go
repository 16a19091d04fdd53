package freshness_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node/freshness"
)

func TestAStateIsAsOldAsTheClockSaysThatMovedFurther(t *testing.T) {
	for name, c := range map[string]struct {
		rate   float64
		change func(*machine)
		want   string // after two seconds of the timers
	}{
		"true clocks":                      {rate: 1, want: "2s"},
		"slow clocks":                      {rate: 0.9, want: "1.8s"},
		"fast clocks":                      {rate: 1.1, want: "2.2s"},
		"wall clock set forward":           {rate: 1, change: func(m *machine) { m.jump = time.Hour }, want: "1h0m2s"},
		"wall clock set back":              {rate: 1, change: func(m *machine) { m.jump = -time.Hour }, want: "2s"},
		"a machine that slept":             {rate: 1, change: func(m *machine) { m.asleep = time.Minute }, want: "1m2s"},
		"whose wall clock missed it":       {rate: 1, change: func(m *machine) { m.asleep, m.jump = time.Minute, -time.Minute }, want: "1m2s"},
		"whose other clock missed it":      {rate: 1, change: func(m *machine) { m.jump = time.Minute }, want: "1m2s"},
		"fast clocks, and one of them set": {rate: 1.1, change: func(m *machine) { m.jump = time.Second }, want: "3.2s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.machine.rate = c.rate
				r.run(t)
				synctest.Wait()
				r.answers(noLeader)
				r.wants(t, "0s")
				pass(2 * time.Second)
				if c.change != nil {
					r.machine.change(c.change) // no time goes by: what is read now counts
				}
				r.wants(t, c.want)
			})
		})
	}
}

func TestAStateIsFreshThroughTheMomentBeforeTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.answers(func(ctx context.Context, waited bool) (uint64, error) {
			time.Sleep(300 * time.Millisecond)
			r.fallBehind()
			return r.commit(ctx, waited)
		})
		r.run(t)
		pass(700 * time.Millisecond)
		r.wants(t, "unproved") // it has not applied the tick
		r.catchUp()
		synctest.Wait()
		r.wants(t, "700ms")
	})
}

func TestNothingIsProvedOfAStateWithoutARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.answers(noLeader)
		r.run(t)
		pass(time.Second)
		r.wants(t, "unproved")
		r.answers(r.commit)
		pass(time.Second)
		if r.age() == "unproved" {
			t.Error("a round proved nothing")
		}
		r.answers(noLeader)
		before := r.fsm.State()
		r.restore(r.length() - 1)
		r.wants(t, "unproved")
		if _, proved := r.Age(before); !proved {
			t.Error("the state of before lost its freshness")
		}
		r.answers(r.commit)
		pass(2 * time.Second)
		if r.age() == "unproved" {
			t.Error("the restored state never earns its freshness")
		}
	})
}

func TestARoundInFlightOverARestore(t *testing.T) {
	for name, c := range map[string]struct {
		to   func(length int) int
		want string
	}{
		"that goes back proves nothing": {to: func(int) int { return 1 }, want: "unproved"},
		"that goes on proves as much":   {to: func(n int) int { return n }, want: "200ms"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.fallBehind()
				r.run(t)
				pass(200 * time.Millisecond)
				r.wants(t, "unproved")
				r.answers(noLeader)
				r.restore(c.to(r.length()))
				synctest.Wait()
				r.wants(t, c.want)
				r.catchUp() // the tick's position is reached by another state
				synctest.Wait()
				r.wants(t, c.want)
			})
		})
	}
}

// A waiter that joined a round which had asked already would miss what was acknowledged in between.
func TestWaitersShareTheRoundThatAsksAfterTheyCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).run(t)
		synctest.Wait()
		turn := make(chan struct{})
		r.answers(func(ctx context.Context, waited bool) (uint64, error) {
			<-turn
			return r.commit(ctx, waited)
		})
		before := len(r.asked())
		first := r.round(t, true)
		late := []<-chan error{r.round(t, true), r.round(t, false), r.round(t, true)}
		turn <- struct{}{}
		succeeded(t, first)
		for _, l := range late {
			waits(t, l)
		}
		turn <- struct{}{}
		for _, l := range late {
			succeeded(t, l)
		}
		if asked := len(r.asked()) - before; asked != 2 {
			t.Errorf("%d questions, want 2", asked)
		}
	})
}

func TestRoundsForTokensFromTheFutureKeepAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).run(t)
		pass(time.Second / 2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				for r.Round(ctx, false) == nil {
				}
			})
		}
		all.Wait()
		asked := r.asked()
		for i := range asked[1:] {
			if gap := asked[i+1].at - asked[i].at; gap < freshness.Gap {
				t.Errorf("%v after %v", asked[i+1], asked[i])
			}
		}
		if n, most := len(asked), int(time.Second/freshness.Gap)+3; n > most || n < most-10 {
			t.Errorf("%d questions, want about %d", n, most)
		}
	})
}

func TestUrgentRoundsKeepNoGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).run(t)
		pass(time.Second / 2)
		start := time.Now()
		for range 5 {
			succeeded(t, r.round(t, true))
		}
		succeeded(t, r.round(t, true))
		forged := r.round(t, false)
		waits(t, forged)
		succeeded(t, r.round(t, true)) // it does not wait for the others' gap either
		succeeded(t, forged)
		if took := time.Since(start); took > 0 {
			t.Errorf("they took %v", took)
		}
	})
}

func TestARoundThatNobodyWaitsForMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.answers(func(ctx context.Context, waited bool) (uint64, error) {
			if !waited {
				return silence(ctx, waited)
			}
			return r.commit(ctx, waited)
		})
		r.run(t)
		pass(100 * time.Millisecond)
		r.wants(t, "unproved")
		succeeded(t, r.round(t, false)) // the gap is over
		r.wants(t, "0s")
		asked := r.asked()
		if n := len(asked); n != 2 || asked[0].waited || !asked[1].waited {
			t.Errorf("questions %v", asked)
		}
	})
}

// A failing leader is asked again soon, whether somebody waits or not.
func TestRoundsThatFailAreTriedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.answers(noLeader)
		r.run(t)
		pass(time.Second)
		if n := len(r.asked()); n < 15 || n > 25 {
			t.Errorf("%d questions in a second", n)
		}
		before := len(r.asked())
		waiter := r.round(t, true)
		pass(500 * time.Millisecond)
		waits(t, waiter)
		if n := len(r.asked()) - before; n < 20 || n > 30 {
			t.Errorf("%d questions in half a second, in which somebody waited", n)
		}
		r.answers(r.commit)
		pass(freshness.Gap)
		succeeded(t, waiter)
	})
}

func TestThePatienceOfWaitersEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, answer := range map[string]func(context.Context, bool) (uint64, error){"silent": silence, "failing": noLeader} {
			r := newRig(t)
			r.answers(answer)
			r.run(t)
			start := time.Now()
			err := r.Round(t.Context(), true)
			if !errors.Is(err, fault.ErrBehind) || time.Since(start) != bound/2 {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
			if name == "failing" && !errors.Is(err, fault.ErrNoLeader) {
				t.Errorf("it does not say why: %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			if err := r.Round(ctx, true); !errors.Is(err, fault.ErrBehind) || time.Since(start) != bound/2+10*time.Millisecond {
				t.Errorf("%s: one who has less: %v after %v", name, err, time.Since(start))
			}
			cancel()
			r.stop()
		}
	})
}

func TestTheEndReleasesAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.answers(silence)
		r.run(t)
		var all []<-chan error
		for range 3 {
			all = append(all, r.round(t, false), r.round(t, true)) // the first is in flight, the others wait for the next
		}
		r.stop()
		all = append(all, r.round(t, true))
		for i, waiter := range all {
			if err, ok := ended(waiter); !ok || !errors.Is(err, fault.ErrShuttingDown) {
				t.Errorf("waiter %d: ended %v, %v", i, ok, err)
			}
		}
	})
}

func TestANodeInNoClusterAsksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		none := fsm.New(fsm.Config{})
		f := freshness.New(freshness.Config{
			State: none.State, Wait: none.Wait, Tick: r.ask, Mono: r.machine.mono, Wall: r.machine.wall,
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := call(func() error { return f.Run(ctx) })
		pass(time.Minute)
		if asked := r.asked(); len(asked) > 0 {
			t.Errorf("it asked %v", asked)
		}
		cancel()
		succeeded(t, done)
	})
}

func TestAStateStaysFreshAlsoWhereARoundIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.answers(func(ctx context.Context, waited bool) (uint64, error) {
			if len(r.asked())%2 == 0 {
				return silence(ctx, waited)
			}
			return r.commit(ctx, waited)
		})
		r.run(t)
		synctest.Wait()
		for range 6000 {
			pass(10 * time.Millisecond)
			if age, proved := r.Age(r.fsm.State()); !proved || age > bound-bound/4 {
				t.Fatalf("age %v, proved %v", age, proved)
			}
		}
		r.answers(r.commit)
		pass(bound)
		before := len(r.asked())
		pass(10 * bound)
		if n := len(r.asked()) - before; n < 40 || n > 60 {
			t.Errorf("%d rounds in ten times the bound, want about 50", n)
		}
	})
}

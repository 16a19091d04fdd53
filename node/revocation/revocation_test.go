package revocation_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node/revocation"
)

const atOnce = -1 // for lasts

func TestARevocationReturnsAtOnceWhereAllHaveApplied(t *testing.T) {
	for name, zero := range map[string]time.Duration{"zero": 0, "a day": 24 * time.Hour, "a day before zero": -24 * time.Hour} {
		t.Run("by a clock that starts at "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.zero = zero
				r.lasts(t, atOnce, revocation.Finality{Applied: 3})
				if r.nudges != 1 || r.peers["a"].asked != 0 || r.peers["b"].asked != 1 || r.peers["c"].asked != 1 {
					t.Errorf("%d nudges; asked %+v, %+v, %+v", r.nudges, r.peers["a"], r.peers["b"], r.peers["c"])
				}
			})
		})
	}
}

func TestAMemberIsWaitedForUntilItHasApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.peers["b"].silent = true
		time.AfterFunc(3*time.Second, func() { close(r.peers["b"].heard) })
		r.lasts(t, 3*time.Second-1, revocation.Finality{Applied: 3})
	})
}

// Whatever the rate of the timers, the node's own clock decides.
func TestASilentMemberIsWaitedOut(t *testing.T) {
	for name, rate := range map[string]float64{"true": 1, "slow": 0.9, "fast": 1.1} {
		t.Run("by a "+name+" clock", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.rate, r.zero = rate, time.Hour
				r.peers["c"].silent = true
				r.lasts(t, window, revocation.Finality{Applied: 2, Expired: 1})
				if p := r.peers["c"]; p.inFlight != 0 {
					t.Errorf("the question is still under way")
				}
			})
		})
	}
}

// A member is waited out from when it was last heard; who has been away for longer costs no time, and no question.
func TestASilentMemberIsWaitedOutFromWhenItWasHeard(t *testing.T) {
	for name, c := range map[string]struct {
		ago  time.Duration // c was heard
		wait time.Duration
		asks int
	}{
		"just now":         {0, window, 1},
		"a while ago":      {4 * time.Second, window - 4*time.Second, 1},
		"the window ago":   {window, 0, 1},
		"longer ago":       {window + 1, atOnce, 0},
		"later than begun": {-time.Second, window, 1}, // it asks meanwhile, and gets a later tick
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.zero = time.Minute
				r.heard = map[string]time.Duration{"b": r.zero, "c": r.zero - c.ago}
				r.peers["c"].silent = true
				r.lasts(t, c.wait, revocation.Finality{Applied: 2, Expired: 1})
				if p := r.peers["c"]; p.asked != c.asks || p.inFlight != 0 {
					t.Errorf("asked %d times, %d under way", p.asked, p.inFlight)
				}
			})
		})
	}
}

func TestExactlyTheWindowIsNotEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.peers["b"].silent = true
		r.atMost = window
		var took time.Duration
		go func() {
			time.Sleep(window + 10*time.Millisecond)
			r.set(func() { r.atMost = 0 })
		}()
		if _, err := r.settle(t.Context()); err != nil {
			t.Error(err)
		}
		if took = time.Since(r.start); took < window+10*time.Millisecond {
			t.Errorf("it took %v, while the clock stood at the end of the window", took)
		}
	})
}

func TestFormerMembersCountFromWhenTheyWereFirstSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).run(t)
		pass(time.Minute)
		before := r.fsm.View()
		r.append(fsm.RemoveMember{ID: "c"})
		pass(500 * time.Millisecond) // it looks twice a second
		seen := time.Now()
		pass(2 * time.Second)
		r.lasts(t, window-2*time.Second, revocation.Finality{Applied: 2, Expired: 1})
		if took := time.Since(seen); took <= window {
			t.Errorf("it counted for %v", took)
		}
		r.lasts(t, atOnce, revocation.Finality{Applied: 2}) // it counts no more, and is not forgotten yet

		r.restart()
		r.lasts(t, window, revocation.Finality{Applied: 2, Expired: 1})
		r.lasts(t, atOnce, revocation.Finality{Applied: 2})

		after := r.fsm.View()
		r.restore(after) // as late a state: nothing is lost
		r.lasts(t, atOnce, revocation.Finality{Applied: 2})

		r.restore(before) // which goes back, and is made up for
		r.restore(after)
		r.lasts(t, window, revocation.Finality{Applied: 2, Expired: 1})
	})
}

func TestFormerMembersAreForgottenByALeaderAfterTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).run(t)
		r.append(fsm.RemoveMember{ID: "b"})
		pass(time.Minute)
		if got := r.forgotten(); len(got) != 0 {
			t.Fatalf("a follower had them forgotten at %v", got)
		}
		r.set(func() { r.leading = true })
		pass(time.Second)
		if got := r.forgotten(); len(got) != 1 || len(r.fsm.View().Holders().Former) != 0 {
			t.Fatalf("a leader that has counted already had them forgotten at %v", got)
		}
		r.append(fsm.RemoveMember{ID: "c"})
		removed := time.Since(r.start)
		pass(time.Minute)
		got := r.forgotten()
		if len(got) != 2 {
			t.Fatalf("they were forgotten at %v", got)
		}
		if after := got[1] - removed; after <= window || after > window+time.Second {
			t.Errorf("it was forgotten after %v", after)
		}
		r.lasts(t, atOnce, revocation.Finality{Applied: 1})
	})
}

// A node can stand still between any two steps. The clock that says when a removal was seen must be read after the removal.
func TestALeaderThatStoodStillDoesNotForgetEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.leading = true
		var removed time.Duration
		r.reading = func() { // as Run has read the clock for the first time
			time.Sleep(2 * window)
			r.append(fsm.RemoveMember{ID: "c"})
			removed = time.Since(r.start)
		}
		r.run(t)
		pass(time.Minute)
		got := r.forgotten()
		if len(got) != 1 || got[0]-removed <= window {
			t.Errorf("removed at %v, it was forgotten at %v", removed, got)
		}
	})
}

func TestManyRevocationsAskAMemberOneQuestionAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		b := r.peers["b"]
		b.silent = true
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if f, err := r.settle(t.Context()); err != nil || f != (revocation.Finality{Applied: 3}) {
					t.Errorf("%+v, %v", f, err)
				}
			})
		}
		pass(time.Second)
		if b.asked != 1 {
			t.Errorf("%d questions", b.asked)
		}
		close(b.heard)
		all.Wait()
		if c := r.peers["c"]; b.most != 1 || c.most != 1 || b.asked > 2 {
			t.Errorf("asked %+v, and %+v", b, c)
		}
		if took := time.Since(r.start); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAMemberThatFailsIsAskedAgainAndNotInAStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		b := r.peers["b"]
		b.failing = true
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if f, err := r.settle(t.Context()); err != nil || f != (revocation.Finality{Applied: 3}) {
					t.Errorf("%+v, %v", f, err)
				}
			})
		}
		pass(2 * time.Second)
		if b.most != 1 || b.asked < 20 || b.asked > 50 {
			t.Errorf("it was asked %d times in two seconds, %d at once", b.asked, b.most)
		}
		r.set(func() { b.failing = false })
		all.Wait()
		if took := time.Since(r.start); took > 2*time.Second+100*time.Millisecond {
			t.Errorf("it answers again, and was heard after %v", took)
		}
	})
}

func TestACallerWhoGivesUpIsToldThatTheOutcomeIsUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		silent bool // or former
	}{"a silent member": {silent: true}, "a former member": {}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				if c.silent {
					r.peers["b"].silent = true
				} else {
					r.append(fsm.RemoveMember{ID: "b"})
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := r.settle(ctx)
				if !errors.Is(err, fault.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) || time.Since(r.start) != time.Second {
					t.Errorf("%v after %v", err, time.Since(r.start))
				}
			})
		})
	}
}

// The one whose turn it is to ask may give up; the others must not wait for its question.
func TestAQuestionIsTakenOverFromACallerWhoGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.peers["b"].silent = true
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := r.settle(ctx); !errors.Is(err, fault.ErrOutcomeUnknown) {
				t.Errorf("the first: %v", err)
			}
		})
		synctest.Wait()
		all.Go(func() {
			if f, err := r.settle(t.Context()); err != nil || f.Applied != 3 {
				t.Errorf("the second: %+v, %v", f, err)
			}
		})
		pass(time.Second)
		cancel()
		pass(time.Second)
		close(r.peers["b"].heard)
		all.Wait()
		if took := time.Since(r.start); took != 2*time.Second || r.peers["b"].asked != 2 {
			t.Errorf("it took %v and %d questions", took, r.peers["b"].asked)
		}
	})
}

// What a member is known to have applied needs no question again.
func TestAMemberThatIsFurtherIsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		earlier, later := r.revoke(), r.revoke()
		for _, res := range []fsm.Result{later, earlier} {
			if f, err := r.Settle(t.Context(), res); err != nil || f.Applied != 3 {
				t.Errorf("%+v, %v", f, err)
			}
		}
		if asked := []int{r.peers["b"].asked, r.peers["c"].asked}; !slices.Equal(asked, []int{1, 1}) {
			t.Errorf("asked %v times", asked)
		}
	})
}

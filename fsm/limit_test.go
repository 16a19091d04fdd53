package fsm

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func maxRetiring(n int) func(*Settings) { return func(s *Settings) { s.MaxRetiring = n } }

// fill gives ada n retiring keys that last until 1000, 1001, ... and an active one without tokens.
func (r *rig) fill(n int) {
	r.t.Helper()
	for i := range n {
		r.issue(at(0), "ada", float64(1000+i))
		r.rotate(at(0), "ada")
	}
}

func TestRotateIsRefusedOnlyIfItLeavesOneTooManyBehind(t *testing.T) {
	r := newRig(t, maxRetiring(3))
	r.fill(3)
	r.rotate(at(1), "ada") // the active key has no tokens: nothing is left behind
	r.ok(at(1), UpdateSettings{MaxRetiring: new(4)})
	r.issue(at(1), "ada", 10)
	r.ok(at(1), UpdateSettings{MaxRetiring: new(3)})
	refusal := r.refused(at(2), Rotate{Subject: "ada", Candidate: *r.cand()}, CodeTooManyRetiring)
	if !refusal.RetryAt.Equal(at(1000)) {
		t.Fatalf("retry at %v", refusal.RetryAt)
	}
	r.refused(at(10.999), Rotate{Subject: "ada", Candidate: *r.cand()}, CodeTooManyRetiring)
	r.rotate(at(11), "ada") // its token has expired
	if got := len(r.keys("ada")); got != 4 {
		t.Fatalf("%d keys", got)
	}
}

func TestIssueIsRefusedOnlyIfTheRotationToComeLeavesOneTooManyBehind(t *testing.T) {
	r := newRig(t, maxRetiring(3))
	r.fill(3)
	r.issue(at(1), "ada", 10) // at 11 its only token has expired: nothing is left behind
	r.issue(at(1.5), "ada", 9.5)
	for _, ttl := range []time.Duration{5, 11, 2000} { // with another expiry the key would be left behind
		refusal := r.refused(at(1), Issue{Subject: "ada", TTL: ttl * time.Second}, CodeTooManyRetiring)
		if !refusal.RetryAt.Equal(at(1000)) {
			t.Fatalf("retry at %v", refusal.RetryAt)
		}
	}
	r.expire(at(11))
	r.issue(at(11), "ada", 994) // 1005: at that time none of the three lives
	r.issue(at(11), "ada", 1100)
	r.refused(at(11), Issue{Subject: "ada", TTL: 5 * time.Second}, CodeTooManyRetiring)
	r.refused(at(998), Issue{Subject: "ada", TTL: time.Second}, CodeTooManyRetiring)
	r.issue(at(999), "ada", 1) // at 1000 one is gone, so there is room
}

func TestStrictModeLeavesNothingBehind(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.Mode, s.MaxRetiring = Strict, 1 })
	for i := range 5 {
		r.issue(at(0), "ada", float64(10+i))
		r.issue(at(0), "ada", float64(100+i))
		r.rotate(at(0), "ada")
	}
	if got := len(r.keys("ada")); got != 1 {
		t.Fatalf("%d keys", got)
	}
}

func TestLoweredLimit(t *testing.T) {
	r := newRig(t, maxRetiring(10))
	r.fill(5)                 // until 1000 to 1004
	r.issue(at(0), "ada", 10) // the active key will be left behind at 10 ...
	r.issue(at(0), "ada", 20) // ... until 20
	r.ok(at(0), UpdateSettings{MaxRetiring: new(2)})

	r.issue(at(1), "ada", 15) // leaves no more behind than there would be without it
	r.issue(at(1), "ada", 29)
	refusal := r.refused(at(1), Rotate{Subject: "ada", Candidate: *r.cand()}, CodeTooManyRetiring)
	if !refusal.RetryAt.Equal(at(1003)) {
		t.Fatalf("retry at %v, when there is room for one", refusal.RetryAt)
	}
	if done := r.expire(at(10)); done.Rotated != 1 || len(r.keys("ada")) != 7 {
		t.Fatalf("done %+v with %d keys: an expiry is never refused", done, len(r.keys("ada")))
	}
	r.issue(at(11), "ada", 5) // a single expiry leaves nothing behind
	r.refused(at(11), Issue{Subject: "ada", TTL: 6 * time.Second}, CodeTooManyRetiring)
	r.issue(at(16), "ada", 5) // due: rotates it
	r.expire(at(1003))
	r.issue(at(1003), "ada", 5)
	r.rotate(at(1003), "ada")
	if got := len(r.keys("ada")); got != 3 {
		t.Fatalf("%d keys", got)
	}
}

// TestLimitHolds drives one user at random under a fixed limit: there are never more live retiring keys, no
// command is refused that would have left none behind, and what was refused succeeds when the refusal says.
func TestLimitHolds(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			limit := 1 + rnd.IntN(4)
			r := newRig(t, maxRetiring(limit))
			r.issue(at(0), "ada", 5)
			now, refusals := 0.0, 0
			for range 400 {
				now += float64(rnd.IntN(2500)) / 1000
				switch rnd.IntN(8) {
				case 0:
					r.expire(at(now))
				case 1:
					refusals += r.attempt(now, Rotate{Subject: "ada", Candidate: *r.cand()})
				default:
					ttl := time.Duration(1+rnd.IntN(40)) * time.Second
					refusals += r.attempt(now, Issue{Subject: "ada", TTL: ttl, Candidate: r.cand()})
				}
				if got := r.live(at(now)); got > limit {
					t.Fatalf("%d live retiring keys at %v, the limit is %d", got, now, limit)
				}
			}
			if refusals == 0 {
				t.Fatal("the limit was never reached")
			}
		})
	}
}

// attempt gives 1 if op is refused, after it has seen it succeed at the time that the refusal names.
func (r *rig) attempt(now float64, op Op) int {
	r.t.Helper()
	twin := r.twin()
	err := r.apply(at(now), op)[0].Err
	if err == nil {
		return 0
	}
	refusal := twin.refused(at(now), op, CodeTooManyRetiring)
	if !refusal.RetryAt.After(at(now)) {
		r.t.Fatalf("retry at %v, it is %v", refusal.RetryAt, at(now))
	}
	twin.expire(refusal.RetryAt)
	twin.ok(refusal.RetryAt, op)
	return 1
}

// twin gives a rig that goes its own way from here.
func (r *rig) twin() *rig {
	f := New(Config{})
	f.state.Store(newState(r.View()))
	return &rig{FSM: f, t: r.t, index: r.index, random: 1 << 32}
}

func (r *rig) live(now time.Time) int {
	u, _ := r.View().User("ada")
	n := 0
	for i := range u.Retiring {
		if u.Retiring[i].live(now.UnixMilli()) {
			n++
		}
	}
	return n
}

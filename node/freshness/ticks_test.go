package freshness_test

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
	"github.com/keyquorum/keyquorum/node/freshness"
)

var hold = bound / 50

// leader is Ticks over a log whose commits the test can hold up.
type leader struct {
	*freshness.Ticks
	*log
	start time.Time
	stop  func()

	mu sync.Mutex
	// proposed is when each tick was, since the start; inFlight how many are, and most how many were.
	proposed       []time.Duration
	inFlight, most int
	// held keeps ticks from being committed; failure has them fail.
	held    chan struct{}
	failure error
	// reading runs once the clock has been read, before the reader goes on; none if nil.
	reading func()
}

func newLeader(t *testing.T, members ...string) *leader {
	t.Helper()
	l := &leader{log: newLog(t, members...), start: time.Now()}
	l.Ticks = freshness.NewTicks(freshness.TicksConfig{Propose: l.propose, Mono: l.mono, View: l.fsm.View, Origin: fsm.Origin{Actor: "test"}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(l.stop)
	synctest.Wait()
	return l
}

func (l *leader) mono() time.Duration {
	now := time.Since(l.start)
	if l.reading != nil {
		l.reading()
	}
	return now
}

func (l *leader) propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	l.mu.Lock()
	l.proposed = append(l.proposed, time.Since(l.start))
	l.inFlight++
	l.most = max(l.most, l.inFlight)
	held, failure := l.held, l.failure
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.inFlight--
	}()
	if failure != nil {
		return fsm.Result{}, failure
	}
	res := l.append(cmd.Op)
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return fsm.Result{}, ctx.Err()
		}
	}
	return res, nil
}

func (l *leader) set(how func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	how()
}

func (l *leader) ticks() []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.proposed)
}

// asks has a node ask, and gives the tick's position once there is an answer.
func (l *leader) asks(t *testing.T, asker string, waited bool) (<-chan error, *uint64) {
	t.Helper()
	position := new(uint64)
	return call(func() (err error) {
		*position, err = l.Tick(t.Context(), asker, waited)
		return err
	}), position
}

func TestATickIsSharedByThoseWhoAskedBeforeItWasProposed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeader(t, "a", "b", "c")
		commit := make(chan struct{})
		l.set(func() { l.held = commit })
		first, p1 := l.asks(t, "a", false)
		second, p2 := l.asks(t, "b", true)
		late, p3 := l.asks(t, "c", true) // the tick is proposed by now
		pass(time.Second)
		if n := len(l.ticks()); n != 1 {
			t.Fatalf("%d ticks in flight", n)
		}
		commit <- struct{}{}
		succeeded(t, first)
		succeeded(t, second)
		waits(t, late)
		commit <- struct{}{}
		succeeded(t, late)
		if *p1 != *p2 || *p3 <= *p2 {
			t.Errorf("positions %d, %d and %d", *p1, *p2, *p3)
		}
		l.set(func() { l.held = nil })
		commit <- struct{}{} // the tick that tells of the last
		if l.most != 1 {
			t.Errorf("%d ticks were in flight at once", l.most)
		}
	})
}

func TestQuestionsThatNobodyWaitsForAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeader(t, "a", "b")
		var all []<-chan error
		for range 9 {
			for _, id := range []string{"a", "b"} {
				done, _ := l.asks(t, id, false)
				all = append(all, done)
			}
			pass(hold / 10)
		}
		for _, done := range all {
			waits(t, done)
		}
		pass(hold / 10)
		for _, done := range all {
			succeeded(t, done)
		}
		pass(time.Minute)
		if got := l.ticks(); !slices.Equal(got, []time.Duration{hold}) {
			t.Errorf("ticks at %v, want one at %v", got, hold)
		}
	})
}

// The tick after one that is waited for tells the followers at once that it is committed.
func TestAQuestionThatIsWaitedForEndsTheHoldAndIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeader(t, "a", "b")
		gathered, _ := l.asks(t, "a", false)
		pass(hold / 4)
		waits(t, gathered)
		waited, _ := l.asks(t, "b", true)
		succeeded(t, waited)
		succeeded(t, gathered)
		pass(time.Minute)
		if got := l.ticks(); !slices.Equal(got, []time.Duration{hold / 4, hold / 4}) {
			t.Errorf("ticks at %v, want two at %v", got, hold/4)
		}
	})
}

func TestANudgeIsOneTickAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeader(t, "a")
		pass(time.Second)
		l.Nudge()
		synctest.Wait()
		gathered, _ := l.asks(t, "a", false)
		pass(hold / 4)
		l.Nudge() // it ends a hold as well
		succeeded(t, gathered)
		pass(time.Minute)
		if got, want := l.ticks(), []time.Duration{time.Second, time.Second + hold/4}; !slices.Equal(got, want) {
			t.Errorf("ticks at %v, want %v", got, want)
		}
	})
}

// Only those who are members as of the tick are waited for when something is revoked.
func TestOnlyMembersAsOfTheTickAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeader(t, "a", "leaves", "removed")
		l.append(fsm.RemoveMember{ID: "removed"})
		commit := make(chan struct{})
		l.set(func() { l.held = commit })
		answers := make(map[string]<-chan error)
		for _, id := range []string{"a", "stranger", "removed", "joins", "leaves"} {
			answers[id], _ = l.asks(t, id, false)
		}
		pass(hold)
		l.join("joins") // after the tick, and before its answer
		l.append(fsm.RemoveMember{ID: "leaves"})
		commit <- struct{}{}
		succeeded(t, answers["a"])
		succeeded(t, answers["leaves"]) // a former member since, and counted as such
		for _, id := range []string{"stranger", "removed", "joins"} {
			if err, ok := ended(answers[id]); !ok || !errors.Is(err, fault.ErrNoSuchMember) {
				t.Errorf("%s: ended %v, %v", id, ok, err)
			}
		}
		l.set(func() { l.held = nil })
		for id, refused := range map[string]bool{"joins": false, "leaves": true} {
			done, _ := l.asks(t, id, true)
			if err, ok := ended(done); !ok || errors.Is(err, fault.ErrNoSuchMember) != refused {
				t.Errorf("%s, by the next tick: ended %v, %v", id, ok, err)
			}
		}
	})
}

func TestAskersHearWhatATickFailedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeader(t, "a", "b")
		l.set(func() { l.failure = fault.ErrNotLeader })
		gathered, _ := l.asks(t, "a", false)
		waited, _ := l.asks(t, "b", true)
		for _, done := range []<-chan error{gathered, waited} {
			if err, ok := ended(done); !ok || !errors.Is(err, fault.ErrNotLeader) {
				t.Errorf("ended %v, %v", ok, err)
			}
		}
		pass(time.Minute)
		if n := len(l.ticks()); n != 1 {
			t.Errorf("%d ticks: nothing is to follow one that failed", n)
		}
		l.set(func() { l.failure = nil })
		again, _ := l.asks(t, "a", true)
		succeeded(t, again)
	})
}

func TestAnAskerWhoGivesUpLeavesTheTickToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeader(t, "a", "b")
		ctx, cancel := context.WithCancel(t.Context())
		gone := call(func() error { _, err := l.Tick(ctx, "a", false); return err })
		stays, _ := l.asks(t, "b", false)
		cancel()
		if err, ok := ended(gone); !ok || !errors.Is(err, context.Canceled) {
			t.Errorf("ended %v, %v", ok, err)
		}
		pass(hold)
		succeeded(t, stays)
	})
}

// A tick that never ends must not hold up those that follow for ever.
func TestATickThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeader(t, "a", "b")
		l.set(func() { l.held = make(chan struct{}) })
		first, _ := l.asks(t, "a", true)
		l.set(func() { l.held = nil })
		second, _ := l.asks(t, "b", true)
		pass(bound)
		if err, ok := ended(first); !ok || err == nil {
			t.Errorf("ended %v, %v", ok, err)
		}
		succeeded(t, second)
	})
}

func TestTheEndOfTicksReleasesTheAskers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeader(t, "a")
		l.set(func() { l.held = make(chan struct{}) })
		inFlight, _ := l.asks(t, "a", true)
		waiting, _ := l.asks(t, "a", true)
		l.stop()
		late, _ := l.asks(t, "a", true)
		l.Nudge()
		for name, done := range map[string]<-chan error{"in flight": inFlight, "waiting": waiting, "late": late} {
			if err, ok := ended(done); !ok || err == nil {
				t.Errorf("%s: ended %v, %v", name, ok, err)
			}
		}
	})
}

// A question counts from when it came, before its tick: a change that finds none of a member is before the ticks that the
// member is still to get.
func TestAQuestionIsHeardBeforeItsTickIsProposed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeader(t, "a", "b")
		l.held = make(chan struct{})
		time.Sleep(time.Second)
		if at, ok := l.Heard("b"); ok {
			t.Errorf("b was heard at %v before it asked", at)
		}
		answered := make(chan error, 1)
		go func() {
			_, err := l.Tick(t.Context(), "b", false)
			answered <- err
		}()
		synctest.Wait()
		l.mu.Lock()
		proposed := len(l.proposed)
		l.mu.Unlock()
		if at, ok := l.Heard("b"); !ok || at != time.Second || proposed != 0 {
			t.Errorf("heard %t, at %v, with %d ticks proposed", ok, at, proposed)
		}
		time.Sleep(time.Second)
		close(l.held)
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
		if at, _ := l.Heard("b"); at != time.Second {
			t.Errorf("heard at %v", at)
		}
		if _, err := l.Tick(t.Context(), "stranger", false); !errors.Is(err, fault.ErrNoSuchMember) {
			t.Error(err)
		}
		if at, ok := l.Heard("stranger"); ok {
			t.Errorf("who is no member is noted, at %v", at)
		}
	})
}

// Several questions of a member can be at the leader at once, and one of before be noted last.
func TestALateNoteDoesNotTakeBackALaterQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeader(t, "a", "b")
		stuck, read := make(chan struct{}), make(chan struct{})
		first := true
		l.reading = func() {
			if first {
				first = false
				close(read)
				<-stuck
			}
		}
		go l.Tick(t.Context(), "b", false) // who asked is gone
		<-read
		time.Sleep(30 * time.Second)
		if _, err := l.Tick(t.Context(), "b", false); err != nil {
			t.Fatal(err)
		}
		close(stuck)
		synctest.Wait()
		if at, _ := l.Heard("b"); at < 30*time.Second {
			t.Errorf("heard at %v", at)
		}
	})
}

package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
)

// asked is a joiner whose questions are answered by the test.
type asked struct {
	candidates []string
	answers    map[string]error
	view       *fsm.View
	led        bool
	log        bytes.Buffer
	by         []string // who was asked, in order
}

var self = fsm.Member{ID: "me", Name: "me", Format: 1}

func (a *asked) run(t *testing.T, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	j := NewJoiner(JoinerConfig{
		Self: self, View: func() *fsm.View { return a.view }, Led: func() bool { return a.led },
		Candidates: func() []string { return a.candidates },
		Ask: func(_ context.Context, address string) error {
			a.by = append(a.by, address)
			return a.answers[address]
		},
		Logger: slog.New(slog.NewTextHandler(&a.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	return j.Run(ctx)
}

func emptyState() *fsm.View { return fsm.New(fsm.Config{}).View() }

func TestAJoinerAsksUntilOneAdmitsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &asked{view: emptyState(), candidates: []string{"a", "b"}, answers: map[string]error{"a": fault.ErrNotLeader}}
		if err := a.run(t, 1500*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		// Its record is not in the state (yet), so it asks again a second later.
		if got := strings.Join(a.by, " "); got != "a b a b" {
			t.Errorf("asked %s", got)
		}
	})
}

func TestAJoinerEndsWhereAskingCannotHelp(t *testing.T) {
	for _, final := range []error{fault.ErrRemoved, fault.ErrTwin, fault.ErrKeyring} {
		synctest.Test(t, func(t *testing.T) {
			a := &asked{view: emptyState(), candidates: []string{"a", "b"}, answers: map[string]error{"a": fmt.Errorf("says a: %w", final)}}
			if err := a.run(t, time.Minute); !errors.Is(err, final) {
				t.Errorf("ended with %v, want %v", err, final)
			}
			if len(a.by) != 1 {
				t.Errorf("asked %v", a.by)
			}
		})
	}
}

func TestWhatSomebodyHasToMendIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &asked{view: emptyState(), candidates: []string{"a"}, answers: map[string]error{
			"a": fmt.Errorf("%w: this is another cluster", ErrMendable),
		}}
		if err := a.run(t, time.Minute); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(a.log.String(), "another cluster"); got != 1 || len(a.by) < 50 {
			t.Errorf("told %d times of %d questions:\n%s", got, len(a.by), &a.log)
		}
	})
}

func TestAMemberThatIsRecordedAndLedAsksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &asked{view: stateWith(t, self), led: true, candidates: []string{"a"}}
		if err := a.run(t, time.Minute); err != nil || len(a.by) != 0 {
			t.Errorf("%v, asked %v", err, a.by)
		}
		a.led = false // it may have been removed
		if err := a.run(t, time.Minute); err != nil || len(a.by) == 0 {
			t.Errorf("without a leader: %v, asked %v", err, a.by)
		}
		moved := self
		moved.RaftAddress = "elsewhere:7401"
		a = &asked{view: stateWith(t, moved), led: true, candidates: []string{"a"}}
		if err := a.run(t, time.Minute); err != nil || len(a.by) == 0 {
			t.Errorf("with an old record: %v, asked %v", err, a.by)
		}
	})
}

// stateWith is the state of a cluster with one member.
func stateWith(t *testing.T, m fsm.Member) *fsm.View {
	t.Helper()
	f := fsm.New(fsm.Config{})
	entry, err := fsm.EncodeEntry(fsm.Entry{Commands: []fsm.Command{
		{Op: fsm.Found{ClusterID: "c", Settings: fsm.DefaultSettings(), KeyringCheck: []byte("k")}},
		{Op: fsm.PutMember{Member: m}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	f.Apply(&raft.Log{Index: 1, Type: raft.LogCommand, Data: entry})
	return f.View()
}

func TestANonVoterIsReadyOnceItHasKeptUpForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(2 * time.Second)
		step := func(keepsUp bool) bool {
			w.note("n", keepsUp)
			ready := w.ready("n")
			time.Sleep(time.Second)
			return ready
		}
		for i, s := range []struct{ keepsUp, ready bool }{
			{true, false}, {true, false}, {false, false}, {true, false}, {true, false}, {true, true}, {false, false},
		} {
			if got := step(s.keepsUp); got != s.ready {
				t.Errorf("second %d: ready %v", i, got)
			}
		}
	})
}

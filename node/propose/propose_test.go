package propose_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node/propose"
)

// log is a Raft whose entries end as the test says.
type log struct {
	mu      sync.Mutex
	entries []fsm.Entry
	// commit ends an entry: nil results for none yet.
	commit func(fsm.Entry) (any, error)
	hold   chan struct{} // entries wait for it where it is set
}

type future struct {
	raft.ApplyFuture
	wait     <-chan struct{}
	response any
	err      error
}

func (f *future) Error() error {
	if f.wait != nil {
		<-f.wait
	}
	return f.err
}
func (f *future) Response() any { return f.response }

func (l *log) Apply(data []byte, _ time.Duration) raft.ApplyFuture {
	entry, err := fsm.DecodeEntry(data)
	if err != nil {
		return &future{err: err}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, entry)
	response, err := l.commit(entry)
	return &future{wait: l.hold, response: response, err: err}
}

// applied answers each command with its place in the entry as the revision.
func applied(e fsm.Entry) (any, error) {
	results := make([]fsm.Result, len(e.Commands))
	for i := range results {
		results[i].Revision = uint64(i + 1)
	}
	return results, nil
}

func refuse(err error) func(fsm.Entry) (any, error) {
	return func(fsm.Entry) (any, error) { return nil, err }
}

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func know() (time.Time, bool)     { return noon, true }
func dontKnow() (time.Time, bool) { return time.Time{}, false }

func deletion(subject string) fsm.Command { return fsm.Command{Op: fsm.Delete{Subject: subject}} }

// start runs a proposer over l for the length of the test.
func start(t *testing.T, l *log, change func(*propose.Config)) *propose.Proposer {
	t.Helper()
	if l.commit == nil {
		l.commit = applied
	}
	cfg := propose.Config{Raft: l, Now: know, Format: func() int { return fsm.Format }}
	if change != nil {
		change(&cfg)
	}
	p := propose.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestCommandsThatComeTogetherShareEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{hold: make(chan struct{})}
		p := start(t, l, nil)
		const callers = 100
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				if _, err := p.Propose(t.Context(), deletion("ada")); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // two entries are held up; everybody else waits
		close(l.hold)
		all.Wait()
		commands := 0
		for _, e := range l.entries {
			commands += len(e.Commands)
			if !e.Time.Equal(noon) {
				t.Errorf("an entry is dated %v, not %v", e.Time, noon)
			}
		}
		if commands != callers || len(l.entries) > 4 {
			t.Errorf("%d commands in %d entries; want %d in at most 4", commands, len(l.entries), callers)
		}
	})
}

func TestEachCallerGetsItsOwnResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusal := &fsm.Refusal{Code: fsm.CodeUnknownSubject}
		l := &log{hold: make(chan struct{}), commit: func(e fsm.Entry) (any, error) {
			results := make([]fsm.Result, len(e.Commands))
			for i, c := range e.Commands {
				if c.Op.(fsm.Delete).Subject == "nobody" {
					results[i].Err = refusal
				}
			}
			return results, nil
		}}
		p := start(t, l, nil)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				subject, want := "ada", error(nil)
				if i%2 == 0 {
					subject, want = "nobody", refusal
				}
				if _, err := p.Propose(t.Context(), deletion(subject)); !errors.Is(err, want) {
					t.Errorf("delete %s: %v, want %v", subject, err, want)
				}
			})
		}
		synctest.Wait()
		close(l.hold)
		all.Wait()
	})
}

func TestDefiniteFailuresAreToldFromOpenOutcomes(t *testing.T) {
	for _, tc := range []struct {
		raft error
		want error
	}{
		{raft.ErrNotLeader, fault.ErrNotLeader},
		{raft.ErrLeadershipTransferInProgress, fault.ErrNotLeader},
		{raft.ErrEnqueueTimeout, fault.ErrOverloaded},
		{raft.ErrLeadershipLost, fault.ErrOutcomeUnknown},
		{raft.ErrAbortedByRestore, fault.ErrOutcomeUnknown},
		{raft.ErrRaftShutdown, fault.ErrOutcomeUnknown},
		{errors.New("disk on fire"), fault.ErrOutcomeUnknown},
	} {
		t.Run(tc.raft.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := start(t, &log{commit: refuse(tc.raft)}, nil)
				_, err := p.Propose(t.Context(), deletion("ada"))
				if !errors.Is(err, tc.want) {
					t.Errorf("got %v, want %v", err, tc.want)
				}
				if tc.want != fault.ErrOutcomeUnknown && errors.Is(err, fault.ErrOutcomeUnknown) {
					t.Errorf("%v is definite, yet reported as open", tc.raft)
				}
			})
		})
	}
}

func TestAHaltedStateMachineLeavesTheOutcomeOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, &log{commit: func(fsm.Entry) (any, error) {
			return []fsm.Result{{Err: fault.ErrHalted}}, nil
		}}, nil)
		if _, err := p.Propose(t.Context(), deletion("ada")); !errors.Is(err, fault.ErrOutcomeUnknown) {
			t.Errorf("got %v", err)
		}
	})
}

func TestACallerThatGivesUpBeforeTheEntryIsProposedChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{hold: make(chan struct{})}
		p := start(t, l, func(c *propose.Config) { c.MaxInFlight = 1 })
		go func() { _, _ = p.Propose(t.Context(), deletion("first")) }()
		synctest.Wait() // the only slot is taken
		go func() { _, _ = p.Propose(t.Context(), deletion("second")) }()
		synctest.Wait() // and the gatherer waits for it

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.Propose(ctx, deletion("given up"))
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, fault.ErrOutcomeUnknown) {
			t.Errorf("got %v, want a definite deadline", err)
		}
		close(l.hold)
		synctest.Wait()
		for _, e := range l.entries {
			for _, c := range e.Commands {
				if c.Op.(fsm.Delete).Subject == "given up" {
					t.Error("a command was proposed after its caller was told that it was not")
				}
			}
		}
	})
}

func TestACallerThatGivesUpAfterwardsLearnsThatTheOutcomeIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{hold: make(chan struct{})}
		p := start(t, l, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Propose(ctx, deletion("ada")); !errors.Is(err, fault.ErrOutcomeUnknown) {
			t.Errorf("got %v, want an open outcome", err)
		}
		close(l.hold)
	})
}

func TestWithoutTheTimeOnlyWhatNeedsItIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		p := start(t, l, func(c *propose.Config) { c.Now = dontKnow })
		if _, err := p.Propose(t.Context(), fsm.Command{Op: fsm.Issue{Subject: "ada"}}); !errors.Is(err, fault.ErrTimeUnknown) {
			t.Errorf("issue without the time: %v", err)
		}
		if _, err := p.Propose(t.Context(), deletion("ada")); err != nil {
			t.Errorf("delete without the time: %v", err)
		}
		if len(l.entries) != 1 || !l.entries[0].Time.IsZero() {
			t.Errorf("entries: %+v, want one without a time", l.entries)
		}
	})
}

func TestOnlyEntriesThatAllMembersReadAreProposed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		p := start(t, l, func(c *propose.Config) { c.Format = func() int { return 0 } })
		if _, err := p.Propose(t.Context(), deletion("ada")); !errors.Is(err, fault.ErrFormat) {
			t.Errorf("got %v, want %v", err, fault.ErrFormat)
		}
		if len(l.entries) != 0 {
			t.Error("an entry was proposed that a member cannot read")
		}
	})
}

func TestAFullQueueRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{hold: make(chan struct{})}
		p := start(t, l, func(c *propose.Config) { c.Queue, c.MaxInFlight = 1, 1 })
		for range 3 { // one under way, one with the gatherer, one in the queue
			go func() { _, _ = p.Propose(t.Context(), deletion("ada")) }()
			synctest.Wait()
		}
		if _, err := p.Propose(t.Context(), deletion("ada")); !errors.Is(err, fault.ErrOverloaded) {
			t.Errorf("got %v, want %v", err, fault.ErrOverloaded)
		}
		close(l.hold)
	})
}

func TestAtTheEndEverybodyGetsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{hold: make(chan struct{}), commit: applied}
		p := propose.New(propose.Config{Raft: l, Now: know, Format: func() int { return fsm.Format }, MaxInFlight: 1})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		answers := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := p.Propose(t.Context(), deletion("ada"))
				answers <- err
			}()
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		select {
		case <-done:
			t.Error("Run returned with an entry under way")
		default:
		}
		close(l.hold)
		<-done
		for range 3 {
			if err := <-answers; err != nil && !errors.Is(err, fault.ErrShuttingDown) {
				t.Errorf("got %v", err)
			}
		}
		if _, err := p.Propose(t.Context(), deletion("ada")); !errors.Is(err, fault.ErrShuttingDown) {
			t.Errorf("afterwards: %v, want %v", err, fault.ErrShuttingDown)
		}
	})
}

func TestACommandThatNoEntryCanCarrySpoilsNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{hold: make(chan struct{})}
		p := start(t, l, nil)
		huge := math.MaxInt
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, err := p.Propose(t.Context(), deletion("ada")); err != nil {
					t.Errorf("a good command: %v", err)
				}
			})
			all.Go(func() {
				_, err := p.Propose(t.Context(), fsm.Command{Op: fsm.UpdateSettings{WantedVoters: &huge}})
				if !errors.Is(err, &fsm.Refusal{Code: fsm.CodeInvalid}) {
					t.Errorf("a command with a number that no entry can carry: %v", err)
				}
			})
		}
		synctest.Wait()
		close(l.hold)
		all.Wait()
	})
}

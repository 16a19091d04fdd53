package rotation_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node/rotation"
)

// rig is a state machine whose log is a function call.
type rig struct {
	t     *testing.T
	fsm   *fsm.FSM
	index uint64
	// proposals counts what came through the log, refused what was turned away.
	proposals, refused atomic.Int64
	refuse             atomic.Bool
	unknown            atomic.Bool
	lag                []time.Duration
	rotated            int
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, fsm: fsm.New(fsm.Config{OnHalt: func(err error) { t.Error(err) }})}
	r.apply(fsm.Found{ClusterID: "c", Settings: fsm.DefaultSettings(), KeyringCheck: []byte("check")})
	return r
}

func (r *rig) apply(op fsm.Op) fsm.Result {
	r.t.Helper()
	data, err := fsm.EncodeEntry(fsm.Entry{Time: time.Now(), Commands: []fsm.Command{{Op: op}}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.index++
	return r.fsm.Apply(&raft.Log{Index: r.index, Type: raft.LogCommand, Data: data}).([]fsm.Result)[0]
}

func (r *rig) issue(subject string, ttl time.Duration) {
	r.t.Helper()
	random, sealed, _ := newKey(subject)
	res := r.apply(fsm.Issue{Subject: subject, TTL: ttl, Candidate: &fsm.Candidate{Random: random, Sealed: sealed}})
	if res.Err != nil {
		r.t.Fatal(res.Err)
	}
}

func (r *rig) propose(_ context.Context, cmd fsm.Command) (fsm.Result, error) {
	if r.refuse.Load() {
		r.refused.Add(1)
		return fsm.Result{}, fault.ErrOutcomeUnknown
	}
	r.proposals.Add(1)
	res := r.apply(cmd.Op)
	return res, res.Err
}

func (r *rig) now() (time.Time, bool) { return time.Now(), !r.unknown.Load() }

func newKey(string) (uint64, []byte, error) {
	b := make([]byte, 40)
	_, _ = rand.Read(b)
	return binary.BigEndian.Uint64(b), b[8:], nil
}

// run rotates for the length of the test.
func (r *rig) run(change func(*rotation.Config)) {
	cfg := rotation.Config{
		View: r.fsm.View, Now: r.now, Propose: r.propose, NewKey: newKey, Logger: slog.New(slog.DiscardHandler),
		Observe: func(e fsm.Expired) {
			r.rotated += e.Rotated
			r.lag = append(r.lag, e.Lag...)
		},
	}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rotation.New(cfg).Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		<-done
	})
}

func TestWhatFallsDueIsRotatedInBatchesWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		const users, batch = 1000, 100
		for i := range users {
			r.issue(fmt.Sprintf("user-%d", i), 5*time.Second)
		}
		r.run(func(c *rotation.Config) { c.Batch = batch })
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if r.proposals.Load() != 0 {
			t.Error("something was rotated before it was due")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r.rotated != users || r.proposals.Load() != users/batch {
			t.Errorf("%d users rotated in %d entries; want %d in %d", r.rotated, r.proposals.Load(), users, users/batch)
		}
		for _, lag := range r.lag {
			if lag > time.Second {
				t.Fatalf("a key was rotated %v late", lag)
			}
		}
	})
}

func TestWhatFailsIsTriedAgainWithoutHaste(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.issue("ada", time.Second)
		r.refuse.Store(true)
		r.run(nil)
		time.Sleep(12 * time.Second)
		if n := r.refused.Load(); n < 10 || n > 120 {
			t.Errorf("%d attempts in 10 s", n)
		}
		r.refuse.Store(false)
		time.Sleep(time.Second)
		synctest.Wait()
		if r.rotated != 1 {
			t.Error("not rotated once the log took entries again")
		}
	})
}

func TestNothingFallsDueWhileTheTimeIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.issue("ada", time.Second)
		r.unknown.Store(true)
		r.run(nil)
		time.Sleep(time.Minute)
		if r.proposals.Load() != 0 {
			t.Error("rotated by a time that is not known")
		}
		r.unknown.Store(false)
		time.Sleep(time.Second)
		synctest.Wait()
		if r.rotated != 1 {
			t.Error("not rotated once the time was known")
		}
	})
}

func TestAnEntryThatDoesNothingIsNotRepeatedInHaste(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.issue("ada", time.Second)
		var asked atomic.Int64
		r.run(func(c *rotation.Config) {
			c.Propose = func(context.Context, fsm.Command) (fsm.Result, error) {
				asked.Add(1)
				return fsm.Result{Expired: fsm.Expired{Skipped: 1}}, nil
			}
		})
		time.Sleep(12 * time.Second)
		if n := asked.Load(); n > 120 {
			t.Errorf("%d proposals in 10 s for a key that Apply finds not due", n)
		}
	})
}

package masterkey_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node/masterkey"
)

// rig is a duty over a state machine whose log is a function call.
type rig struct {
	t     *testing.T
	fsm   *fsm.FSM
	ring  *seal.Keyring
	index uint64
	log   bytes.Buffer

	mu sync.Mutex
	// commit is how long an entry takes, refuse what becomes of it if not nil.
	commit time.Duration
	refuse error
	// batches are the numbers of keys in each Rewrap, busy the time that was spent in the log.
	batches []int
	busy    time.Duration
	// holds is what members answer, by id; those that are missing do not answer.
	holds map[string][]uint32
	asked int
	think time.Duration
}

func newRig(t *testing.T, members ...string) *rig {
	ring, err := seal.NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ring: ring, commit: 4 * time.Millisecond, holds: make(map[string][]uint32)}
	r.fsm = fsm.New(fsm.Config{OnHalt: func(err error) { t.Error(err) }})
	check, err := r.check(ring.Primary())
	if err != nil {
		t.Fatal(err)
	}
	r.apply(fsm.Found{ClusterID: "c", Settings: fsm.DefaultSettings(), KeyringCheck: check})
	for _, id := range members {
		r.apply(fsm.PutMember{Member: fsm.Member{ID: id, Name: "node " + id, Format: 1}})
	}
	return r
}

func (r *rig) check(id uint32) ([]byte, error) { return r.ring.ProveUnder(id, "cluster", "c") }

func (r *rig) apply(op fsm.Op) fsm.Result {
	data, err := fsm.EncodeEntry(fsm.Entry{Time: time.Now(), Commands: []fsm.Command{{Op: op}}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.index++
	return r.fsm.Apply(&raft.Log{Index: r.index, Type: raft.LogCommand, Data: data}).([]fsm.Result)[0]
}

func (r *rig) propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	select {
	case <-time.After(r.commit):
	case <-ctx.Done():
		return fsm.Result{}, fault.ErrOutcomeUnknown
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != nil {
		return fsm.Result{}, r.refuse
	}
	if op, ok := cmd.Op.(fsm.Rewrap); ok {
		r.batches = append(r.batches, len(op.Items))
		r.busy += r.commit
	}
	res := r.apply(cmd.Op)
	return res, res.Err
}

func (r *rig) member(_ context.Context, m fsm.Member) ([]uint32, error) {
	time.Sleep(r.think)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	ids, ok := r.holds[m.ID]
	if !ok {
		return nil, errors.New("no answer")
	}
	return ids, nil
}

// users makes users, whose keys are sealed under the primary master key.
func (r *rig) users(n int) {
	for i := range n {
		random, sealed, err := r.ring.NewKeyUnder(r.fsm.View().PrimaryMasterKey(), fmt.Sprint("user ", i))
		if err != nil {
			r.t.Fatal(err)
		}
		r.apply(fsm.Issue{Subject: fmt.Sprint("user ", i), Candidate: &fsm.Candidate{Random: random, Sealed: sealed}})
	}
}

// add gives the leader a new master key, and all of the members.
func (r *rig) add(members ...string) (id uint32) {
	next, err := r.ring.WithNewKey()
	if err != nil {
		r.t.Fatal(err)
	}
	r.ring.Take(next)
	ids := next.IDs()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range members {
		r.holds[m] = ids
	}
	return ids[len(ids)-1]
}

// run has the duty done for a time.
func (r *rig) run(d time.Duration) {
	ctx, stop := context.WithTimeout(r.t.Context(), d)
	defer stop()
	if err := r.duty().Run(ctx); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) duty() *masterkey.Duty {
	return masterkey.New(masterkey.Config{
		View: r.fsm.View, Keyring: r.ring, Holds: r.member, Check: r.check, Propose: r.propose,
		Logger: slog.New(slog.NewTextHandler(&r.log, nil)),
	})
}

func (r *rig) said(what string) int { return strings.Count(r.log.String(), what) }

func TestKeysAreSealedAnewInBatchesWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a", "b")
		r.users(1000)
		id := r.add("a", "b")
		r.run(10 * time.Second)
		if r.fsm.View().PrimaryMasterKey() != id || r.fsm.View().SealedElsewhere() != 0 {
			t.Fatalf("%d keys are sealed elsewhere", r.fsm.View().SealedElsewhere())
		}
		if most := slices.Max(r.batches); most > 128 || len(r.batches) < 8 {
			t.Errorf("batches of %v", r.batches)
		}
		if r.said("sealed anew, under the primary") != 1 || r.said("keys=1000") < 1 || r.said(`left=0`) != 1 {
			t.Errorf("the log says\n%s", &r.log)
		}
		for i := range 1000 {
			u, _ := r.fsm.View().User(fmt.Sprint("user ", i))
			if _, err := r.ring.Open(u.Subject, u.Active.ID.Random, u.Active.Sealed); err != nil {
				t.Fatal(err)
			}
		}
		asked := r.asked
		r.run(time.Minute)
		if r.asked != asked {
			t.Errorf("with nothing to do, members were asked %d times", r.asked-asked)
		}
	})
}

// However long the log takes, others have half of it to themselves.
func TestHalfOfTheLogIsLeftToOthers(t *testing.T) {
	for _, commit := range []time.Duration{time.Millisecond, 40 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "a")
			r.commit = commit
			r.users(2000)
			r.add("a")
			begun := time.Now()
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = r.duty().Run(ctx)
			}()
			for r.fsm.View().PrimaryMasterKey() != r.ring.IDs()[1] || r.fsm.View().SealedElsewhere() > 0 {
				time.Sleep(time.Millisecond)
			}
			took := time.Since(begun)
			stop()
			<-done
			if r.busy > took/2+commit {
				t.Errorf("of %v, %v were spent in the log", took, r.busy)
			}
		})
	}
}

func TestMembersThatLackTheKeyAreNamedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a", "b", "c")
		before := r.fsm.View().PrimaryMasterKey()
		r.add("a")
		r.holds["b"] = []uint32{before}
		r.run(time.Minute)
		if r.fsm.View().PrimaryMasterKey() != before {
			t.Fatal("a key is used that members lack")
		}
		if r.said("node b lacks it, node c does not answer") != 1 {
			t.Errorf("the log says\n%s", &r.log)
		}
	})
}

// A member that joins while the others are asked, or while the entry is on its way, is not forgotten.
func TestMemberThatJoinsMeanwhileIsWaitedFor(t *testing.T) {
	for name, slow := range map[string]func(*rig){
		"while others are asked":        func(r *rig) { r.think = 500 * time.Millisecond },
		"while the entry is on its way": func(r *rig) { r.commit = 500 * time.Millisecond },
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "a")
			before := r.fsm.View().PrimaryMasterKey()
			r.add("a")
			slow(r)
			joined := time.AfterFunc(200*time.Millisecond, func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.apply(fsm.PutMember{Member: fsm.Member{ID: "d", Name: "late", Format: 1}})
			})
			defer joined.Stop()
			r.run(20 * time.Second)
			if r.fsm.View().PrimaryMasterKey() != before {
				t.Errorf("%s: a key is used that a member lacks", name)
			}
			r.holds["d"] = r.holds["a"]
			r.run(20 * time.Second)
			if r.fsm.View().PrimaryMasterKey() == before {
				t.Errorf("%s: the key is not used though all hold it", name)
			}
		})
	}
}

func TestKeyThatCannotBeOpenedDoesNotHoldTheOthersUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a")
		r.users(300)
		damaged := r.fsm.View().PrimaryMasterKey()
		sealed := append([]byte{1, byte(damaged >> 24), byte(damaged >> 16), byte(damaged >> 8), byte(damaged)}, "damaged"...)
		r.apply(fsm.Issue{Subject: "user 150x", Candidate: &fsm.Candidate{Random: 7, Sealed: sealed}})
		r.add("a")
		r.run(5 * time.Minute)
		if left := r.fsm.View().SealedElsewhere(); left != 1 {
			t.Errorf("%d keys are left", left)
		}
		if n := r.said("a key cannot be sealed anew"); n == 0 || n > 12 {
			t.Errorf("it was said %d times in five minutes", n)
		}
	})
}

func TestWhatFailsIsTriedAgainAndToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a")
		r.users(10)
		r.add("a")
		r.refuse = fault.ErrOverloaded
		r.run(time.Minute)
		if r.said("has to wait") != 1 {
			t.Errorf("the log says\n%s", &r.log)
		}
		r.refuse = fault.ErrNotLeader
		r.log.Reset()
		r.run(time.Minute)
		if r.log.Len() > 0 {
			t.Errorf("a deposed leader says\n%s", &r.log)
		}
		r.refuse = nil
		r.run(10 * time.Second)
		if r.fsm.View().SealedElsewhere() != 0 || len(r.batches) != 1 {
			t.Errorf("%d keys are left, after %v", r.fsm.View().SealedElsewhere(), r.batches)
		}
	})
}

package fsm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/fault"
)

// TestUndecodableEntryHalts: what came before it counts, nothing after it does.
func TestUndecodableEntryHalts(t *testing.T) {
	var told []error
	r := &rig{FSM: New(Config{OnHalt: func(err error) { told = append(told, err) }}), t: t}
	r.ok(at(0), Found{ClusterID: "c", Settings: DefaultSettings(), KeyringCheck: []byte("k")})
	before := snapshotOf(t, r.FSM)

	good := r.log(at(1), Issue{Subject: "ada", Candidate: r.cand()})
	bad := &raft.Log{Index: r.index + 1, Type: raft.LogCommand, Data: []byte("bad")}
	later := &raft.Log{Index: r.index + 2, Type: raft.LogCommand, Data: good.Data}
	conf := &raft.Log{Index: r.index + 3, Type: raft.LogConfiguration}
	out := r.ApplyBatch([]*raft.Log{good, bad, later, conf})

	if len(out) != 4 || out[3] != nil {
		t.Fatalf("responses %v", out)
	}
	if res := out[0].([]Result); len(res) != 1 || res[0].Err != nil {
		t.Fatalf("the entry before gave %v", res)
	}
	for _, resp := range out[1:3] {
		if res := resp.([]Result); len(res) != 1 || !errors.Is(res[0].Err, fault.ErrHalted) {
			t.Fatalf("gave %v", res)
		}
	}
	if v := r.View(); v.Position() != good.Index || v.UserCount() != 1 {
		t.Fatalf("position %d, %d users", v.Position(), v.UserCount())
	}
	r.wantHalted(&told)
	if err := restore(r.FSM, before); !errors.Is(err, fault.ErrHalted) {
		t.Fatalf("restored after halting: %v", err)
	}
	r.Apply(&raft.Log{Index: 100, Type: raft.LogCommand, Data: []byte("bad")})
	r.wantHalted(&told)
}

func (r *rig) wantHalted(told *[]error) {
	r.t.Helper()
	if len(*told) != 1 || !errors.Is((*told)[0], fault.ErrHalted) || !errors.Is(r.Err(), fault.ErrHalted) {
		r.t.Fatalf("told %v, Err() is %v", *told, r.Err())
	}
	if _, err := r.Snapshot(); !errors.Is(err, fault.ErrHalted) {
		r.t.Fatalf("a snapshot after halting: %v", err)
	}
	if _, err := r.Wait(context.Background(), func(*View) bool { return true }); !errors.Is(err, fault.ErrHalted) {
		r.t.Fatalf("waiting after halting: %v", err)
	}
}

func TestEntryAppliedTwiceHalts(t *testing.T) {
	r := newRig(t, nil)
	l := r.log(at(0), Issue{Subject: "ada", Candidate: r.cand()})
	r.Apply(l)
	if res := r.Apply(l).([]Result); !errors.Is(res[0].Err, fault.ErrHalted) {
		t.Fatalf("gave %v", res)
	}
	if !errors.Is(r.Err(), fault.ErrHalted) {
		t.Fatal("it goes on")
	}
}

func TestPositionIsOfTheLastCommandEntry(t *testing.T) {
	r := newRig(t, nil)
	r.index = 41
	l := r.log(at(0), Issue{Subject: "ada", Candidate: r.cand()})
	out := r.ApplyBatch([]*raft.Log{
		{Index: 41, Type: raft.LogConfiguration}, l, {Index: 43, Type: raft.LogConfiguration},
	})
	if out[0] != nil || out[1] == nil || out[2] != nil || r.View().Position() != 42 {
		t.Fatalf("responses %v, position %d", out, r.View().Position())
	}
	before := r.View()
	r.ApplyBatch([]*raft.Log{{Index: 44, Type: raft.LogConfiguration}})
	if r.View() != before {
		t.Fatal("a configuration made a new view")
	}
}

type badReader struct{ err error }

func (r badReader) Read([]byte) (int, error) { return 0, r.err }

func TestFailedRestoreLeavesTheStateAlone(t *testing.T) {
	r := newRig(t, nil)
	r.issue(at(0), "ada", 60)
	state, want := r.State(), snapshotOf(t, r.FSM)
	broken := errors.New("broken disk")
	for name, from := range map[string]io.Reader{
		"cut off":     bytes.NewReader(want[:len(want)-1]),
		"read error":  io.MultiReader(bytes.NewReader(want[:40]), badReader{broken}),
		"no snapshot": bytes.NewReader([]byte("hello, world: this is something else")),
		"empty":       bytes.NewReader(nil),
	} {
		err := r.Restore(io.NopCloser(from))
		if err == nil || name == "read error" && !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		if r.State() != state || r.Err() != nil || !bytes.Equal(snapshotOf(t, r.FSM), want) {
			t.Errorf("%s: the state changed", name)
		}
	}
	r.issue(at(1), "ada", 60) // it goes on
}

func TestARestoreThatGoesBackMakesAnotherState(t *testing.T) {
	r := newRig(t, nil)
	b := snapshotOf(t, r.FSM)
	r.issue(at(0), "ada", 60)
	old := r.State()
	if err := restore(r.FSM, b); err != nil {
		t.Fatal(err)
	}
	if r.State() == old || r.View().UserCount() != 0 || old.View().UserCount() != 1 {
		t.Fatal("a restore changed the state that readers hold")
	}
}

func TestARestoreThatGoesOnKeepsTheState(t *testing.T) {
	ahead, behind := newRig(t, nil), newRig(t, nil)
	ahead.issue(at(0), "ada", 60)
	old := behind.State()
	for range 2 { // the second time to where it is already
		if err := restore(behind.FSM, snapshotOf(t, ahead.FSM)); err != nil {
			t.Fatal(err)
		}
		if behind.State() != old || old.View().UserCount() != 1 {
			t.Fatal("a restore to a later position made another state, or none")
		}
	}
}

func TestWait(t *testing.T) {
	revision := func(n uint64) func(*View) bool { return func(v *View) bool { return v.Revision() >= n } }
	wait := func(r *rig, ctx context.Context, ok func(*View) bool) chan error {
		done := make(chan error, 1)
		go func() {
			v, err := r.Wait(ctx, ok)
			if err == nil && !ok(v) {
				err = errors.New("a view that is not ok")
			}
			done <- err
		}()
		synctest.Wait()
		return done
	}
	mustWait := func(t *testing.T, done chan error) {
		t.Helper()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("returned early: %v", err)
		default:
		}
	}
	for name, test := range map[string]func(*testing.T, *rig){
		"until applied": func(t *testing.T, r *rig) {
			done := wait(r, t.Context(), revision(2))
			r.issue(at(0), "ada", 60)
			mustWait(t, done)
			r.issue(at(0), "bob", 60)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		},
		"not at all": func(t *testing.T, r *rig) {
			if err := <-wait(r, t.Context(), revision(0)); err != nil {
				t.Fatal(err)
			}
		},
		"across a restore": func(t *testing.T, r *rig) {
			b := snapshotOf(t, r.FSM)
			ahead := restored(t, b)
			r2 := &rig{FSM: ahead, t: t, index: r.index}
			r2.issue(at(0), "ada", 60)
			snap := snapshotOf(t, ahead)
			done := wait(r, t.Context(), revision(1))
			other := wait(r, t.Context(), revision(2))
			if err := restore(r.FSM, snap); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			mustWait(t, other)
			r.index = r2.index
			r.issue(at(0), "bob", 60)
			if err := <-other; err != nil {
				t.Fatal(err)
			}
		},
		"until cancelled": func(t *testing.T, r *rig) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := <-wait(r, ctx, revision(1)); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		},
		"until halted": func(t *testing.T, r *rig) {
			done := wait(r, t.Context(), revision(1))
			r.Apply(&raft.Log{Index: 50, Type: raft.LogCommand})
			if err := <-done; !errors.Is(err, fault.ErrHalted) {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, newRig(t, nil)) })
		})
	}
}

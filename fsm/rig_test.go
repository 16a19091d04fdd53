package fsm

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// at is a moment of the tests: s seconds after a fixed one.
func at(s float64) time.Time {
	return time.UnixMilli(1_800_000_000_000 + int64(s*1000))
}

// tb is what tests, benchmarks and rapid have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Fatal(args ...any)
}

// rig is an FSM and the log that leads to its state.
type rig struct {
	*FSM
	t      tb
	index  uint64
	random uint64
}

// newRig makes a founded FSM, with what change makes of the default settings.
func newRig(t tb, change func(*Settings)) *rig {
	t.Helper()
	r := &rig{FSM: New(Config{}), t: t}
	s := DefaultSettings()
	if change != nil {
		change(&s)
	}
	r.ok(at(0), Found{ClusterID: "c1", Settings: s, KeyringCheck: []byte("check")})
	return r
}

func strict(s *Settings) { s.Mode = Strict }

// cand makes a candidate that is like no other of the rig.
func (r *rig) cand() *Candidate {
	r.random++
	return &Candidate{Random: r.random, Sealed: []byte{byte(r.random >> 8), byte(r.random), 's'}}
}

func commands(ops []Op) []Command {
	cmds := make([]Command, len(ops))
	for i, op := range ops {
		cmds[i] = Command{Origin: Origin{Actor: "tests", Source: "::1", Node: "n1"}, Op: op}
	}
	return cmds
}

func (r *rig) log(now time.Time, ops ...Op) *raft.Log {
	r.t.Helper()
	b, err := EncodeEntry(Entry{Time: now, Commands: commands(ops)})
	if err != nil {
		r.t.Fatalf("encode: %v", err)
	}
	r.index++
	return &raft.Log{Index: r.index, Type: raft.LogCommand, Data: b}
}

// apply applies one entry; a zero time is an unknown one.
func (r *rig) apply(now time.Time, ops ...Op) []Result {
	r.t.Helper()
	results := r.Apply(r.log(now, ops...)).([]Result)
	if len(results) != len(ops) {
		r.t.Fatalf("%d results for %d commands: %v", len(results), len(ops), results)
	}
	return results
}

// ok applies one command that must not be refused.
func (r *rig) ok(now time.Time, op Op) Result {
	r.t.Helper()
	res := r.apply(now, op)[0]
	if res.Err != nil {
		r.t.Fatalf("%#v was refused: %v", op, res.Err)
	}
	return res
}

// refused applies one command that must be refused, without effect.
func (r *rig) refused(now time.Time, op Op, code Code) *Refusal {
	r.t.Helper()
	before := r.View()
	res := r.apply(now, op)[0]
	var refusal *Refusal
	if !errors.As(res.Err, &refusal) {
		r.t.Fatalf("%#v was not refused: %v", op, res.Err)
	}
	if refusal.Code != code {
		r.t.Fatalf("%#v was refused with %d (%v), want %d", op, refusal.Code, refusal, code)
	}
	if !errors.Is(res.Err, &Refusal{Code: code}) {
		r.t.Fatalf("errors.Is does not know %v by its code", res.Err)
	}
	after := r.View()
	if res.Revision != before.Revision() || after.Revision() != before.Revision() {
		r.t.Fatalf("a refusal changed the revision from %d to %d", before.Revision(), after.Revision())
	}
	if !reflect.DeepEqual(before.Users("", 1000), after.Users("", 1000)) {
		r.t.Fatalf("a refusal changed a user")
	}
	return refusal
}

// issue issues a token for subject with ttl seconds, with a candidate at hand.
func (r *rig) issue(now time.Time, subject string, ttl float64) Result {
	r.t.Helper()
	return r.ok(now, Issue{Subject: subject, TTL: time.Duration(ttl * float64(time.Second)), Candidate: r.cand()})
}

func (r *rig) rotate(now time.Time, subject string) Result {
	r.t.Helper()
	return r.ok(now, Rotate{Subject: subject, Candidate: *r.cand()})
}

// expire does what is due at now, as a leader would.
func (r *rig) expire(now time.Time) Expired {
	r.t.Helper()
	var items []ExpireItem
	for _, d := range r.View().Due(now, 1000) {
		item := ExpireItem{Subject: d.Subject, Key: d.Key}
		if d.Active {
			item.Candidate = r.cand()
		}
		items = append(items, item)
	}
	return r.ok(now, Expire{Items: items}).Expired
}

// keys are the revisions of a user's keys, the active one first.
func (r *rig) keys(subject string) []uint64 {
	u, ok := r.View().User(subject)
	if !ok {
		return nil
	}
	revisions := []uint64{u.Active.ID.Revision}
	for _, k := range u.Retiring {
		revisions = append(revisions, k.ID.Revision)
	}
	return revisions
}

func (r *rig) wantKeys(subject string, want ...uint64) {
	r.t.Helper()
	if got := r.keys(subject); !slices.Equal(got, want) {
		r.t.Fatalf("%s has the keys %v, want %v", subject, got, want)
	}
}

func (r *rig) wantRevision(want uint64) {
	r.t.Helper()
	if got := r.View().Revision(); got != want {
		r.t.Fatalf("revision %d, want %d", got, want)
	}
}

func (r *rig) wantIdle(subject string, want time.Time) {
	r.t.Helper()
	u, ok := r.View().User(subject)
	if !ok || u.IdleFrom != want.UnixMilli() {
		r.t.Fatalf("%s is idle from %v, want %v", subject, u, want)
	}
}

// sink takes a snapshot in memory.
type sink struct {
	bytes.Buffer
	closed, cancelled bool
}

func (s *sink) ID() string    { return "test" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.cancelled = true; return nil }

func snapshotOf(t tb, f *FSM) []byte {
	t.Helper()
	snap, err := f.Snapshot()
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	defer snap.Release()
	var s sink
	if err := snap.Persist(&s); err != nil {
		t.Fatalf("persist: %v", err)
	}
	if !s.closed || s.cancelled {
		t.Fatalf("the sink was not closed, or was cancelled")
	}
	return s.Bytes()
}

func restore(f *FSM, b []byte) error { return f.Restore(io.NopCloser(bytes.NewReader(b))) }

func restored(t tb, b []byte) *FSM {
	t.Helper()
	f := New(Config{})
	if err := restore(f, b); err != nil {
		t.Fatalf("restore: %v", err)
	}
	return f
}

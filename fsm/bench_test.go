package fsm

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/audit"
)

const million = 1_000_000

// crowd is a founded FSM with n users, each with a key of the length that seal makes, and one live token.
func crowd(b *testing.B, n int) *rig {
	b.Helper()
	r := newRig(b, nil)
	for first := 0; first < n; first += 1000 {
		ops := make([]Op, min(1000, n-first))
		for i := range ops {
			ops[i] = Issue{Subject: name(first + i), TTL: time.Hour, Candidate: sealed(uint64(first + i + 1))}
		}
		r.apply(at(float64(first)/1e5), ops...)
	}
	if r.View().UserCount() != n {
		b.Fatalf("%d users", r.View().UserCount())
	}
	return r
}

// name scatters the users over the order of subjects.
func name(i int) string { return fmt.Sprintf("%08x@example.org", uint32(i)*2654435761) }

func sealed(random uint64) *Candidate { return &Candidate{Random: random, Sealed: make([]byte, 65)} }

// BenchmarkApplyIssue is the cost of one Issue, decoding included, by how many share an entry.
func BenchmarkApplyIssue(b *testing.B) {
	for _, users := range []int{1000, million} {
		r := crowd(b, users)
		for _, batch := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("users=%d/batch=%d", users, batch), func(b *testing.B) { r.applyIssues(b, users, batch) })
		}
	}
}

// BenchmarkApplyIssueAudited is the same with each token on record and without, 256 an entry.
func BenchmarkApplyIssueAudited(b *testing.B) {
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprintf("audited=%v", on), func(b *testing.B) {
			r := crowd(b, 1000)
			r.audit = forgetful{}
			r.ok(at(0), UpdateSettings{AuditIssued: &on})
			r.applyIssues(b, 1000, 256)
		})
	}
}

// forgetful is a sink that keeps nothing.
type forgetful struct{}

func (forgetful) Append(audit.Head, []audit.Entry) {}
func (forgetful) Restored(audit.Head)              {}
func (forgetful) Flush(audit.Head) error           { return nil }

func (r *rig) applyIssues(b *testing.B, users, batch int) {
	entries := make([][]byte, 64)
	for i := range entries {
		ops := make([]Op, batch)
		for j := range ops {
			ops[j] = Issue{Subject: name((i*7919 + j*104729) % users), TTL: time.Hour, Candidate: sealed(1), TokenID: "c29tZSByYW5kb20gYml0cw"}
		}
		entries[i] = r.log(at(20), ops...).Data
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n++; n%batch != 0 {
			continue // b.Loop counts commands
		}
		r.index++
		r.Apply(&raft.Log{Index: r.index, Data: entries[n/batch%len(entries)]})
	}
	if r.Err() != nil {
		b.Fatal(r.Err())
	}
}

// BenchmarkApplyRotate is the cost of one expiry with its rotation, 256 an entry.
func BenchmarkApplyRotate(b *testing.B) {
	const batch = 256
	r := crowd(b, 100_000)
	now := 3600.0
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n++; n%batch != 0 {
			continue
		}
		b.StopTimer()
		now += 3600
		issues, items := make([]Op, batch), make([]ExpireItem, batch)
		for i := range issues {
			issues[i] = Issue{Subject: name((n + i*31) % 100_000), TTL: time.Second, Candidate: sealed(uint64(n + i))}
		}
		for i, res := range r.apply(at(now), issues...) {
			items[i] = ExpireItem{Subject: issues[i].(Issue).Subject, Key: res.Key.ID, Candidate: sealed(uint64(n + i))}
		}
		l := r.log(at(now+1), Expire{Items: items})
		b.StartTimer()
		if done := r.Apply(l).([]Result)[0].Expired; done.Rotated != batch {
			b.Fatalf("done %+v", done)
		}
	}
}

func BenchmarkEncodeEntry(b *testing.B) {
	e := Entry{Time: at(0), Commands: make([]Command, 256)}
	for i := range e.Commands {
		e.Commands[i] = Command{
			Origin: Origin{Actor: "login", Source: "10.0.0.1", Node: "node-1"},
			Op:     Issue{Subject: name(i), TTL: time.Hour, Candidate: sealed(1)},
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := EncodeEntry(e); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKey is what each verification pays to find a key.
func BenchmarkKey(b *testing.B) {
	for _, users := range []int{1000, million} {
		b.Run(fmt.Sprintf("users=%d", users), func(b *testing.B) {
			r := crowd(b, users)
			type wanted struct {
				subject string
				id      KeyID
			}
			var all []wanted
			for i := range min(users, 1<<16) {
				subject := name(i * (users / min(users, 1<<16)))
				u, _ := r.View().User(subject)
				all = append(all, wanted{subject, u.Active.ID})
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				w := &all[n%len(all)]
				n++
				if _, ok := r.View().Key(w.subject, w.id); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
}

func BenchmarkDue(b *testing.B) {
	v := crowd(b, 100_000).View()
	b.ReportAllocs()
	for b.Loop() {
		if len(v.Due(at(1e6), 256)) != 256 {
			b.Fatal("nothing is due")
		}
	}
}

// BenchmarkSnapshot writes and reads a million users, and tells what they weigh.
func BenchmarkSnapshot(b *testing.B) {
	r := crowd(b, million)
	data := snapshotOf(b, r.FSM)
	b.Run("pin", func(b *testing.B) {
		for b.Loop() {
			if _, err := r.Snapshot(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("persist", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportMetric(float64(len(data))/million, "stored-B/user")
		for b.Loop() {
			if err := r.View().WriteSnapshot(discard{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	r = nil
	b.Run("restore", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		before := heap()
		var v *View
		for b.Loop() {
			var err error
			if v, err = ReadSnapshot(bytes.NewReader(data)); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(heap()-before)/million, "heap-B/user")
		runtime.KeepAlive(v)
	})
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

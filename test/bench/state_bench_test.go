package bench

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/seal"
)

// BenchmarkState makes a state of many users with one key and one live token each, as the log would lead to it, writes
// its snapshot to memory, and restores that. An operation is one of each, once over. Memory is what stays on the heap
// after a collection; what other benchmarks leave to be collected blurs it, so it is best run alone.
func BenchmarkState(b *testing.B) {
	for _, users := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("users=%d", users), func(b *testing.B) {
			for b.Loop() {
				benchState(b, users)
			}
		})
	}
}

func benchState(b *testing.B, users int) {
	per := func(bytes int64) float64 { return float64(bytes) / float64(users) }
	before := heap()
	f := fsm.New(fsm.Config{OnHalt: func(err error) { b.Error(err) }})
	apply := populate(b, f, users)
	b.ReportMetric(per(heap()-before), "applied-B/user")
	b.ReportMetric(float64(users)/apply.Seconds(), "applied-users/s")

	var snapshot bytes.Buffer
	snapshot.Grow(users * 256)
	start := time.Now()
	if err := f.View().WriteSnapshot(&snapshot); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(start).Seconds(), "write-s")
	b.ReportMetric(per(int64(snapshot.Len())), "snapshot-B/user")

	f = nil         //nolint:wastedassign // lets the collector have it
	before = heap() // without the first state
	restored := fsm.New(fsm.Config{OnHalt: func(err error) { b.Error(err) }})
	start = time.Now()
	if err := restored.Restore(io.NopCloser(bytes.NewReader(snapshot.Bytes()))); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(start).Seconds(), "restore-s")
	b.ReportMetric(per(heap()-before), "restored-B/user")
	runtime.KeepAlive(snapshot)
	if n := restored.View().UserCount(); n != users {
		b.Fatalf("%d users came back, of %d", n, users)
	}
}

// heap is what is reachable, in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first one only finalized
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// populate applies the founding and an Issue for each user, in no order of subject, 256 to an entry. It gives the time
// that applying took; sealing the keys is not counted.
func populate(b *testing.B, f *fsm.FSM, users int) time.Duration {
	b.Helper()
	keyring, err := seal.NewKeyring()
	if err != nil {
		b.Fatal(err)
	}
	var applying time.Duration
	index, now := uint64(0), time.Now()
	apply := func(commands []fsm.Command) {
		data, err := fsm.EncodeEntry(fsm.Entry{Time: now, Commands: commands})
		if err != nil {
			b.Fatal(err)
		}
		index++
		entry := &raft.Log{Index: index, Type: raft.LogCommand, Data: data}
		start := time.Now()
		for _, res := range f.Apply(entry).([]fsm.Result) {
			if res.Err != nil {
				b.Fatal(res.Err)
			}
		}
		applying += time.Since(start)
	}
	apply([]fsm.Command{{Op: fsm.Found{ClusterID: "bench", Settings: fsm.DefaultSettings(), KeyringCheck: []byte("check")}}})
	var batch []fsm.Command
	for i, u := range rand.New(rand.NewPCG(1, 2)).Perm(users) {
		random, sealed, err := keyring.NewKey(user(u))
		if err != nil {
			b.Fatal(err)
		}
		batch = append(batch, fsm.Command{Op: fsm.Issue{
			Subject: user(u), TTL: time.Hour, Candidate: &fsm.Candidate{Random: random, Sealed: sealed},
		}})
		if len(batch) == 256 || i == users-1 {
			apply(batch)
			batch = batch[:0]
		}
	}
	return applying
}

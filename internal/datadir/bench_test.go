package datadir_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/boltstore"
	"github.com/keyquorum/keyquorum/internal/datadir"
)

// BenchmarkAppendBesideSnapshot writes a snapshot of a million users' size while the log is appended to, and gives how
// long the slowest append took: what is written late goes to the disk in one piece, which the log's syncs wait for.
func BenchmarkAppendBesideSnapshot(b *testing.B) {
	const size, piece = 110 << 20, 32 << 10
	var slowest time.Duration
	for b.Loop() {
		b.StopTimer()
		dir, err := datadir.Open(b.TempDir(), datadir.Options{})
		must(b, err)
		logs, err := boltstore.Open(dir.RaftDB(), boltstore.Options{})
		must(b, err)
		snaps, err := dir.Snapshots(nil)
		must(b, err)
		_, transport := raft.NewInmemTransport("")
		sink, err := snaps.Create(raft.SnapshotVersionMax, 1, 1, raft.Configuration{}, 1, transport)
		must(b, err)
		b.StartTimer()
		var written atomic.Bool
		appended := make(chan time.Duration)
		go func() { appended <- appendUntil(logs, &written) }()
		for range size / piece {
			_, err := sink.Write(make([]byte, piece))
			must(b, err)
		}
		must(b, sink.Close())
		written.Store(true)
		slowest = max(slowest, <-appended)
		b.StopTimer()
		must(b, logs.Close())
		must(b, dir.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(slowest)/float64(time.Millisecond), "slowest-append-ms")
}

// appendUntil appends entries one after another, and gives how long the slowest took.
func appendUntil(logs *boltstore.Store, enough *atomic.Bool) (slowest time.Duration) {
	for i := uint64(1); !enough.Load(); i++ {
		start := time.Now()
		if logs.StoreLog(&raft.Log{Index: i, Term: 1, Data: make([]byte, 6000)}) != nil {
			return 0
		}
		slowest = max(slowest, time.Since(start))
	}
	return slowest
}

package boltstore

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// An entry of one command has about 300 bytes.
const benchSize = 300

func batch(next *uint64, n int) []*raft.Log {
	logs := make([]*raft.Log, n)
	for i := range logs {
		logs[i] = &raft.Log{Index: *next, Term: 1, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(i)}, benchSize)}
		*next++
	}
	return logs
}

func BenchmarkStoreLogs(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) { benchStore(b, open(b, filepath.Join(b.TempDir(), "raft.db"), Options{}), n) })
		b.Run(fmt.Sprintf("entries=%d/plain-raft-boltdb", n), func(b *testing.B) {
			s, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(b.TempDir(), "raft.db"), BoltOptions: boltOptions()})
			must(b, err)
			defer s.Close()
			benchStore(b, s, n)
		})
	}
}

func benchStore(b *testing.B, s raft.LogStore, n int) {
	next := uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		must(b, s.StoreLogs(batch(&next, n)))
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// The disk's own rate, to hold the others against: bbolt syncs twice in a commit.
func BenchmarkFsync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	must(b, err)
	defer f.Close()
	page := make([]byte, pageSize)
	for b.Loop() {
		_, err := f.WriteAt(page, 0)
		must(b, err)
		must(b, f.Sync())
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "fsyncs/s")
}

func BenchmarkGetLog(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "raft.db"), Options{})
	next := uint64(1)
	must(b, s.StoreLogs(batch(&next, 1000)))
	b.ReportAllocs()
	var l raft.Log
	for i := uint64(0); b.Loop(); i++ {
		must(b, s.GetLog(1+i%1000, &l))
	}
}

// Opening surveys the whole file: here one with 10,000 entries, what raft keeps behind a snapshot.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "raft.db")
	s := open(b, path, Options{})
	for next := uint64(1); next < 10_000; {
		must(b, s.StoreLogs(batch(&next, 100)))
	}
	must(b, s.Close())
	for b.Loop() {
		s, err := Open(path, Options{})
		must(b, err)
		must(b, s.Close())
	}
}

func BenchmarkEnvelope(b *testing.B) {
	next := uint64(1)
	l := batch(&next, 1)[0]
	b.ReportAllocs()
	for b.Loop() {
		e, err := encodeEntry(l)
		must(b, err)
		must(b, decodeEntry(e, 1, new(raft.Log)))
	}
}

package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"
)

func TestEntriesComeBackAsTheyWere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, Options{})
	want := []*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{
			Servers: []raft.Server{{ID: "a", Address: "localhost:1"}},
		}), AppendedAt: time.Unix(1_800_000_000, 123_456_789)},
		{Index: 2, Term: 1, Type: raft.LogNoop},
		{Index: 3, Term: 2, Type: raft.LogBarrier, AppendedAt: time.Unix(-1, 5)},
		{Index: 4, Term: 1<<64 - 1, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("ext")},
		{Index: 5, Term: 3, Type: raft.LogCommand, Data: bytes.Repeat([]byte{0xfe}, 100_000)},
		{Index: 6, Term: 3, Type: raft.LogType(200), Extensions: []byte{0}},
	}
	must(t, s.StoreLogs(want[:2]))
	must(t, s.StoreLog(want[2]))
	must(t, s.StoreLogs(want[3:]))
	for _, reopened := range []bool{false, true} {
		if reopened {
			must(t, s.Close())
			s = open(t, path, Options{MustExist: true})
		}
		expectBounds(t, s, 1, 6)
		for _, w := range want {
			var got raft.Log
			must(t, s.GetLog(w.Index, &got))
			if !reflect.DeepEqual(&got, w) {
				t.Errorf("reopened %t: entry %d is %+v, want %+v", reopened, w.Index, got, w)
			}
		}
	}
}

func TestUnknownIndexesAreNotFound(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "raft.db"), Options{})
	expectBounds(t, s, 0, 0)
	must(t, s.StoreLogs(entries(5, 9, 1)))
	for _, i := range []uint64{0, 4, 10, tailIndex} {
		// raft compares with ==.
		if err := s.GetLog(i, new(raft.Log)); err != raft.ErrLogNotFound {
			t.Errorf("entry %d: %v", i, err)
		}
	}
	for _, i := range []uint64{0, tailIndex} {
		if err := s.StoreLog(&raft.Log{Index: i}); err == nil {
			t.Errorf("an entry with the index %d was stored", i)
		}
	}
	expectBounds(t, s, 5, 9)
}

// What raft does to its log: append, compact, take a conflicting end back, go on after a gap that a snapshot left.
func TestDeletedRangesStayDeleted(t *testing.T) {
	for _, test := range []struct {
		name        string
		lo, hi      uint64
		first, last uint64
		left        int
	}{
		{"compaction", 1, 600, 601, 2000, 900},
		{"conflict", 1999, 2000, 1, 1998, 1498},
		{"conflict over the gap", 900, 2000, 1, 899, 899},
		{"the whole upper part", 1501, 2000, 1, 1000, 1000},
		{"within", 500, 1600, 1, 2000, 899},
		{"all", 1, 2000, 0, 0, 0},
		{"beyond both ends", 0, tailIndex, 0, 0, 0},
		{"only what is not there", 1001, 1500, 1, 2000, 1500},
		{"nothing", 10, 9, 1, 2000, 1500},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "raft.db")
			s := open(t, path, Options{})
			must(t, s.StoreLogs(entries(1, 1000, 1)))
			must(t, s.StoreLogs(entries(1501, 2000, 1)))
			must(t, s.DeleteRange(test.lo, test.hi))
			for range 2 {
				expectBounds(t, s, test.first, test.last)
				if n := countLogs(t, s, 2001); n != test.left {
					t.Errorf("%d entries are left, want %d", n, test.left)
				}
				must(t, s.Close())
				s = open(t, path, Options{})
			}
			must(t, s.StoreLogs(entries(test.last+1, test.last+3, 7)))
			expectBounds(t, s, max(test.first, 1), test.last+3)
		})
	}
}

// A crash after the tail was taken back and before the entries went.
func TestDeletionCutShortIsFinished(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, Options{})
	must(t, s.StoreLogs(entries(1, 100, 1)))
	must(t, s.checked.append(nil, spans{{1, 40}}))
	must(t, s.Close())

	s = open(t, path, Options{})
	expectBounds(t, s, 1, 40)
	must(t, s.StoreLogs(entries(90, 91, 2))) // a gap, as after a snapshot
	must(t, s.Close())

	s = open(t, path, Options{})
	if n := countLogs(t, s, 100); n != 42 {
		t.Errorf("%d entries, want 42: deleted ones are back", n)
	}
}

func TestStableValues(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, Options{})
	// raft knows an unset key by this text.
	if _, err := s.Get([]byte("CurrentTerm")); err == nil || err.Error() != "not found" {
		t.Errorf("an unset key: %v", err)
	}
	if _, err := s.GetUint64([]byte("CurrentTerm")); err == nil || err.Error() != "not found" {
		t.Errorf("an unset number: %v", err)
	}
	must(t, s.SetUint64([]byte("CurrentTerm"), 1<<63+7))
	must(t, s.Set([]byte("LastVoteCand"), []byte("me")))
	must(t, s.Set([]byte("LastVoteCand"), []byte("you")))
	must(t, s.Set([]byte("empty"), nil))
	if _, err := s.GetUint64([]byte("LastVoteCand")); err == nil {
		t.Error("a text was read as a number")
	}
	must(t, s.Close())

	s = open(t, path, Options{})
	if n, err := s.GetUint64([]byte("CurrentTerm")); n != 1<<63+7 || err != nil {
		t.Errorf("term: %d, %v", n, err)
	}
	if v, err := s.Get([]byte("LastVoteCand")); string(v) != "you" || err != nil {
		t.Errorf("vote: %q, %v", v, err)
	}
	if v, err := s.Get([]byte("empty")); len(v) != 0 || v == nil || err != nil {
		t.Errorf("empty: %v, %v", v, err)
	}
}

func TestInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, Options{})
	_, err := Open(path, Options{})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("opened twice: %v", err)
	}
	must(t, s.Close())
	must(t, s.Close())
	open(t, path, Options{})
}

func TestFileIsForItsOwnerAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	open(t, path, Options{})
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestMissingStoreIsNotMadeAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	_, err := Open(path, Options{MustExist: true})
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "join anew") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it was made all the same")
	}
}

func TestStartCutShortIsDoneAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	must(t, os.WriteFile(path+".new", []byte("half a file"), 0o600))
	s := open(t, path, Options{})
	must(t, s.StoreLogs(entries(1, 3, 1)))
	if _, err := os.Stat(path + ".new"); err == nil {
		t.Error("the leftover is still there")
	}
}

// Each of these is refused, with nothing changed.
func TestForeignFilesAreLeftAlone(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(t *testing.T, path string)
		want error
	}{
		{"empty", func(t *testing.T, path string) { must(t, os.WriteFile(path, nil, 0o600)) }, ErrDamaged},
		{"text", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, bytes.Repeat([]byte("no store"), 4096), 0o600))
		}, ErrDamaged},
		{"plain raft-boltdb", func(t *testing.T, path string) {
			b, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
			must(t, err)
			must(t, b.StoreLogs(entries(1, 3, 1)))
			must(t, b.Close())
		}, ErrDamaged},
		{"newer format", func(t *testing.T, path string) {
			must(t, create(path))
			newer := stable{"CurrentTerm": make([]byte, 8)}.encode()
			newer[len(stableMagic)+1] = storeFormat + 1
			update(t, path, func(tx *bbolt.Tx) error {
				return tx.Bucket([]byte("conf")).Put([]byte(stableKey), seal(newer[:len(newer)-checksumSize]))
			})
		}, ErrFormat},
		{"a bucket more", func(t *testing.T, path string) {
			must(t, create(path))
			update(t, path, func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("more")); return err })
		}, ErrDamaged},
		{"stable record gone", func(t *testing.T, path string) {
			must(t, create(path))
			update(t, path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("conf")).Delete([]byte(stableKey)) })
		}, ErrDamaged},
		{"an entry gone", func(t *testing.T, path string) {
			s := open(t, path, Options{})
			must(t, s.StoreLogs(entries(1, 3, 1)))
			must(t, s.Close())
			update(t, path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("logs")).Delete([]byte{7: 3}) })
		}, ErrDamaged},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "raft.db")
			test.make(t, path)
			before := read(t, path)
			_, err := Open(path, Options{})
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, want %v", err, test.want)
			}
			if !bytes.Equal(before, read(t, path)) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestClosedStore(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "raft.db"), Options{OnHang: func(err error) { t.Errorf("alarm: %v", err) }})
	must(t, s.StoreLogs(entries(1, 3, 1)))
	must(t, s.Close())
	_, getErr := s.Get([]byte("k"))
	_, lastErr := s.LastIndex()
	for name, err := range map[string]error{
		"GetLog": s.GetLog(1, new(raft.Log)), "StoreLogs": s.StoreLogs(entries(4, 4, 1)), "Set": s.Set([]byte("k"), nil),
		"DeleteRange": s.DeleteRange(1, 1), "Get": getErr, "LastIndex": lastErr,
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// raft reads from several goroutines while it appends and compacts.
func TestConcurrentUse(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "raft.db"), Options{OnHang: func(err error) { t.Errorf("alarm: %v", err) }})
	must(t, s.StoreLogs(entries(1, 10, 1)))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				first, _ := s.FirstIndex()
				last, _ := s.LastIndex()
				for i := first; i <= last; i++ {
					var l raft.Log
					if err := s.GetLog(i, &l); err != nil && !errors.Is(err, raft.ErrLogNotFound) || err == nil && l.Index != i {
						t.Errorf("entry %d: %v", i, err)
					}
				}
			}
		})
	}
	for i := uint64(11); i < 300; i += 10 {
		must(t, s.StoreLogs(entries(i, i+9, 1)))
		must(t, s.DeleteRange(1, i-5))
		must(t, s.SetUint64([]byte("CurrentTerm"), i))
	}
	close(stop)
	wg.Wait()
}

func TestMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, Options{Registerer: r})
	must(t, s.StoreLogs(entries(1, 3, 1)))
	must(t, s.SetUint64([]byte("CurrentTerm"), 1))
	must(t, s.DeleteRange(1, 1))
	families, err := r.Gather()
	must(t, err)
	if len(families) != 1 || families[0].GetName() != "keyquorum_store_write_seconds" {
		t.Fatalf("metrics: %v", families)
	}
	for _, m := range families[0].GetMetric() {
		if m.GetHistogram().GetSampleCount() != 1 {
			t.Errorf("%v", m)
		}
	}
	must(t, s.Close())
	open(t, path, Options{Registerer: r})
}

func open(t testing.TB, path string, o Options) *Store {
	t.Helper()
	s, err := Open(path, o)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// update changes a file behind the store's back.
func update(t *testing.T, path string, f func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, boltOptions())
	must(t, err)
	must(t, db.Update(f))
	must(t, db.Close())
}

func entries(lo, hi, term uint64) []*raft.Log {
	var logs []*raft.Log
	for i := lo; i <= hi; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "entry %d of term %d", i, term)})
	}
	return logs
}

func expectBounds(t *testing.T, s *Store, first, last uint64) {
	t.Helper()
	f, err := s.FirstIndex()
	must(t, err)
	l, err := s.LastIndex()
	must(t, err)
	if f != first || l != last {
		t.Errorf("the log goes from %d to %d, want %d to %d", f, l, first, last)
	}
}

// countLogs counts the entries below end, which must all be right.
func countLogs(t *testing.T, s *Store, end uint64) (n int) {
	t.Helper()
	for i := uint64(1); i < end; i++ {
		var l raft.Log
		err := s.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) {
			continue
		}
		must(t, err)
		if want := fmt.Sprintf("entry %d of term %d", i, l.Term); string(l.Data) != want {
			t.Errorf("entry %d is %q", i, l.Data)
		}
		n++
	}
	return n
}

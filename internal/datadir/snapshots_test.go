package datadir_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/boltstore"
	"github.com/keyquorum/keyquorum/internal/datadir"
)

// member has the stores of one member, on real files.
type member struct {
	t     *testing.T
	dir   *datadir.Dir
	logs  *boltstore.Store
	snaps *datadir.Snapshots
}

func start(t *testing.T, path string) *member {
	t.Helper()
	m := &member{t: t, dir: open(t, path)}
	var err error
	m.logs, err = boltstore.Open(m.dir.RaftDB(), boltstore.Options{})
	must(t, err)
	t.Cleanup(func() { _ = m.logs.Close() })
	must(t, m.dir.StoreCreated())
	m.snaps, err = m.dir.Snapshots(nil)
	must(t, err)
	return m
}

func (m *member) stop() {
	m.t.Helper()
	must(m.t, m.logs.Close())
	must(m.t, m.dir.Close())
}

func (m *member) store(lo, hi uint64) {
	m.t.Helper()
	for i := lo; i <= hi; i++ {
		must(m.t, m.logs.StoreLog(&raft.Log{Index: i, Term: 1, Data: []byte("x")}))
	}
}

// snapshot takes one and gives its directory.
func (m *member) snapshot(index uint64) string {
	m.t.Helper()
	sink := m.sink(index)
	_, err := fmt.Fprintf(sink, "state at %d", index)
	must(m.t, err)
	must(m.t, sink.Close())
	must(m.t, sink.Close())
	return filepath.Join(m.dir.Path(), "snapshots", sink.ID())
}

func (m *member) sink(index uint64) raft.SnapshotSink {
	m.t.Helper()
	_, tr := raft.NewInmemTransport("")
	c := raft.Configuration{Servers: []raft.Server{{ID: "me", Address: tr.LocalAddr()}}}
	sink, err := m.snaps.Create(1, index, 1, c, 1, tr)
	must(m.t, err)
	return sink
}

// What is readable decides; each case starts the member anew.
func TestCheckJoinsSnapshotsAndLog(t *testing.T) {
	garbleState := func(t *testing.T, dir string) { write(t, filepath.Join(dir, "state.bin"), "stale at 60") }
	garbleMeta := func(t *testing.T, dir string) { write(t, filepath.Join(dir, "meta.json"), "{") }
	for name, test := range map[string]struct {
		lo, hi  uint64 // what the log has
		snaps   []uint64
		garble  func(t *testing.T, newest string)
		refused string
	}{
		"nothing at all":                       {},
		"a log alone":                          {lo: 1, hi: 20},
		"a log without its beginning":          {lo: 5, hi: 20, refused: "entry 1 is missing"},
		"a snapshot alone":                     {snaps: []uint64{60}},
		"a log that reaches the snapshot":      {lo: 30, hi: 60, snaps: []uint64{60}},
		"a log that goes on after it":          {lo: 61, hi: 70, snaps: []uint64{40, 60}},
		"a log that ends before it":            {lo: 1, hi: 50, snaps: []uint64{60}},
		"a gap after it":                       {lo: 62, hi: 70, snaps: []uint64{60}, refused: "entry 61 is missing"},
		"only damaged ones":                    {lo: 1, hi: 70, snaps: []uint64{60}, garble: garbleState, refused: "no snapshot can be read"},
		"newest damaged, the log bridges it":   {lo: 41, hi: 60, snaps: []uint64{40, 60}, garble: garbleState},
		"newest damaged, the log starts late":  {lo: 42, hi: 70, snaps: []uint64{40, 60}, garble: garbleState, refused: "entry 41 is missing"},
		"newest damaged, the log ends early":   {lo: 30, hi: 59, snaps: []uint64{40, 60}, garble: garbleState, refused: "ends at 59"},
		"newest damaged, no log":               {snaps: []uint64{40, 60}, garble: garbleState, refused: "ends at 0"},
		"newest one's list damaged, no log":    {snaps: []uint64{40, 60}, garble: garbleMeta, refused: "snapshot 60 cannot be read"},
		"newest one's list damaged, log whole": {lo: 41, hi: 60, snaps: []uint64{40, 60}, garble: garbleMeta},
		"only one, its list damaged":           {lo: 50, hi: 70, snaps: []uint64{60}, garble: garbleMeta, refused: "entry 1 is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			m := start(t, path)
			if test.hi > 0 {
				m.store(test.lo, test.hi)
			}
			var newest string
			for _, i := range test.snaps {
				newest = m.snapshot(i)
			}
			m.stop()
			if test.garble != nil {
				test.garble(t, newest)
			}

			m = start(t, path)
			err := datadir.Check(m.logs, m.snaps)
			switch {
			case test.refused == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.refused != "" && (!errors.Is(err, datadir.ErrDamaged) || !strings.Contains(err.Error(), test.refused) ||
				!strings.Contains(err.Error(), "join anew")):
				t.Errorf("%v, want one that says %q", err, test.refused)
			}
		})
	}
}

// Why Check is there: raft itself starts from an older state here, and says so in its log alone.
func TestRaftItselfGoesBackSilently(t *testing.T) {
	m := start(t, t.TempDir())
	m.snapshot(40)
	write(t, filepath.Join(m.snapshot(60), "state.bin"), "stale at 60")
	if err := datadir.Check(m.logs, m.snaps); !errors.Is(err, datadir.ErrDamaged) {
		t.Errorf("Check: %v", err)
	}
	_, tr := raft.NewInmemTransport("")
	conf := raft.DefaultConfig()
	conf.LocalID, conf.LogLevel = "me", "OFF"
	fsm := &lastState{}
	r, err := raft.NewRaft(conf, fsm, m.logs, m.logs, m.snaps, tr)
	if err != nil {
		t.Fatalf("raft refuses by itself, and Check may go: %v", err)
	}
	must(t, r.Shutdown().Error())
	if fsm.state != "state at 40" {
		t.Errorf("raft restored %q, and Check may go", fsm.state)
	}
}

type lastState struct{ state string }

func (*lastState) Apply(*raft.Log) any                 { return nil }
func (*lastState) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("none") }
func (s *lastState) Restore(r io.ReadCloser) (err error) {
	b, err := io.ReadAll(r)
	s.state = string(b)
	return err
}

func TestUnfinishedSnapshotsGo(t *testing.T) {
	path := t.TempDir()
	m := start(t, path)
	m.snapshot(10)
	_, err := m.sink(20).Write([]byte("half")) // and then the process dies
	must(t, err)
	m.stop()

	m = start(t, path)
	if left, _ := filepath.Glob(filepath.Join(path, "snapshots", "*.tmp")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	list, err := m.snaps.List()
	must(t, err)
	if len(list) != 1 || list[0].Index != 10 {
		t.Errorf("snapshots: %v", list)
	}
	must(t, datadir.Check(m.logs, m.snaps))
}

func TestCancelledSnapshotLeavesNothing(t *testing.T) {
	m := start(t, t.TempDir())
	sink := m.sink(20)
	must(t, sink.Cancel())
	must(t, sink.Close())
	if n, err := m.snaps.Newest(); n != 0 || err != nil {
		t.Errorf("newest %d, %v", n, err)
	}
}

func TestTwoSnapshotsAreKept(t *testing.T) {
	m := start(t, t.TempDir())
	for i := range uint64(5) {
		m.snapshot(i + 1)
	}
	list, err := m.snaps.List()
	must(t, err)
	if len(list) != 2 || list[0].Index != 5 || list[1].Index != 4 {
		t.Errorf("snapshots: %v", list)
	}
	dir := filepath.Join(m.dir.Path(), "snapshots")
	if entries, err := os.ReadDir(dir); len(entries) != 2 || err != nil {
		t.Errorf("%v, %v", entries, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

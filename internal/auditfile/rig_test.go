package auditfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/auditfile"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// chain makes a whole chain of n records.
func chain(n int) []audit.Entry {
	var head audit.Head
	var all []audit.Entry
	for i := range n {
		r := audit.Record{
			Sequence: uint64(i + 1), Time: 1_800_000_000_000 + int64(i), Position: uint64(i + 2), Kind: audit.TokenIssued,
			Subject: fmt.Sprintf("user-%d", i%7), KeyID: "AAAAAAAAAAEAAAAAAAAAAQ", Actor: "login", Source: "10.0.0.1", Node: "n1",
			TokenID: fmt.Sprint("jti-", i), Expires: 1_800_000_900,
		}
		head, _ = head.Next(&r, nil)
		all = append(all, audit.Entry{Record: r, Hash: head.Hash})
	}
	return all
}

// before is the head before the entry with the index.
func before(all []audit.Entry, i int) audit.Head {
	if i == 0 {
		return audit.Head{}
	}
	return all[i-1].Head()
}

// folder is a store's, and what its log said.
type folder struct {
	t    *testing.T
	path string
	o    auditfile.Options
	log  bytes.Buffer
	*auditfile.Store
}

func newFolder(t *testing.T, o auditfile.Options) *folder {
	t.Helper()
	f := &folder{t: t, path: filepath.Join(t.TempDir(), "audit"), o: o}
	f.o.Logger = slog.New(slog.NewTextHandler(&f.log, nil))
	f.open()
	return f
}

func (f *folder) open() {
	f.t.Helper()
	var err error
	f.Store, err = auditfile.Open(f.path, f.o)
	must(f.t, err)
}

func (f *folder) reopen() {
	f.t.Helper()
	must(f.t, f.Close())
	f.open()
}

func (f *folder) files() []string {
	f.t.Helper()
	paths, err := auditfile.Files(f.path)
	must(f.t, err)
	return paths
}

// wantRead reads all from each of some places on.
func (f *folder) wantRead(want []audit.Entry) {
	f.t.Helper()
	for from := uint64(1); from <= uint64(len(want)); from += 1 + from/3 {
		var got []audit.Entry
		for seq := from; seq <= uint64(len(want)); {
			head, page, err := f.Read(seq, 3000)
			must(f.t, err)
			if len(page) == 0 || head != before(want, int(seq-1)) {
				f.t.Fatalf("from %d: %d entries after %v", seq, len(page), head)
			}
			got, seq = append(got, page...), seq+uint64(len(page))
		}
		if !reflect.DeepEqual(got, want[from-1:]) {
			f.t.Fatalf("from %d on something else was read", from)
		}
	}
}

// disk is a file on a disk that can be full.
type disk struct {
	*os.File
	room *int
}

var errFull = errors.New("no space left on device")

func (d disk) WriteAt(b []byte, at int64) (int, error) {
	if *d.room < 0 {
		return d.File.WriteAt(b, at)
	}
	n := min(len(b), *d.room)
	*d.room -= n
	n, _ = d.File.WriteAt(b[:n], at)
	if n < len(b) {
		return n, errFull
	}
	return n, nil
}

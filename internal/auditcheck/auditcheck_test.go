package auditcheck_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/auditcheck"
	"github.com/keyquorum/keyquorum/internal/auditfile"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// chain makes a whole chain of n records in which every field is set in some.
func chain(n int) []audit.Entry {
	var all []audit.Entry
	for i := range n {
		r := audit.Record{
			Sequence: uint64(i + 1), Time: 1_800_000_000_000 + int64(i), Position: uint64(i + 2), Kind: audit.KeyRotated, Reason: audit.Expiry,
			Subject: fmt.Sprintf("user-%d", i), KeyID: fmt.Sprintf("key-%d", i), PreviousKeyID: fmt.Sprintf("key-%d", i-1),
			Actor: "login", Source: "10.0.0.1", Node: "n1", TokenID: fmt.Sprint("jti-", i), Expires: 1_800_000_900,
			Changes: []audit.Change{{Name: "mode", From: "overlap", To: "strict"}},
		}
		all = append(all, audit.Entry{Record: r})
	}
	rehash(all, 0)
	return all
}

// rehash makes the hashes from the index on follow.
func rehash(all []audit.Entry, from int) {
	for i := from; i < len(all); i++ {
		var head audit.Head
		if i > 0 {
			head = all[i-1].Head()
		}
		head, _ = head.Next(&all[i].Record, nil)
		all[i].Hash = head.Hash
	}
}

// write keeps a chain as a node does, in some files.
func write(t *testing.T, all []audit.Entry) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "audit")
	s, err := auditfile.Open(dir, auditfile.Options{MaxSize: 8000})
	must(t, err)
	var before audit.Head
	for part := range slices.Chunk(all, 10) {
		must(t, s.Append(before, part))
		before = part[len(part)-1].Head()
	}
	must(t, s.Close())
	return dir
}

// file is an audit file as lines.
type file struct {
	path  string
	lines [][]byte
}

func read(t *testing.T, dir string) (all []file) {
	t.Helper()
	paths, err := auditfile.Files(dir)
	must(t, err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		must(t, err)
		lines := bytes.SplitAfter(text, []byte("\n"))
		all = append(all, file{path, lines[:len(lines)-1]})
	}
	return all
}

// against checks files against the cluster's chain.
func against(t *testing.T, all []audit.Entry, files []file, partial bool) auditcheck.Result {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for _, f := range files {
		path := filepath.Join(dir, filepath.Base(f.path))
		must(t, os.WriteFile(path, bytes.Join(f.lines, nil), 0o600))
		paths = append(paths, path)
	}
	res, err := auditcheck.Check(t.Context(), paths, auditcheck.Options{
		Head: all[len(all)-1].Head(), Partial: partial,
		Truth: func(_ context.Context, sequence uint64) (audit.Hash, bool, error) {
			if sequence == 0 || sequence > uint64(len(all)) {
				return audit.Hash{}, false, nil
			}
			return all[sequence-1].Hash, true, nil
		},
	})
	must(t, err)
	return res
}

// line finds the line of a record.
func line(files []file, sequence uint64) (f *file, at int) {
	for i := range files {
		for j, text := range files[i].lines[min(1, len(files[i].lines)):] {
			if seq, _ := audit.SequenceOf(text); seq == sequence {
				return &files[i], j + 1
			}
		}
	}
	return nil, 0
}

// alteration changes files at a place, and tells which record is the first that is wrong, and how.
type alteration struct {
	name string
	do   func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault)
}

func somewhere(rng *rand.Rand, all []audit.Entry) uint64 { return 1 + rng.Uint64N(uint64(len(all))) }

// fields change one field each.
var fields = []func(*audit.Record){
	func(r *audit.Record) { r.Time++ },
	func(r *audit.Record) { r.Position++ },
	func(r *audit.Record) { r.Kind = audit.KeyMade },
	func(r *audit.Record) { r.Subject = "mallory" },
	func(r *audit.Record) { r.KeyID = "another" },
	func(r *audit.Record) { r.PreviousKeyID = "" },
	func(r *audit.Record) { r.Reason = audit.OnDemand },
	func(r *audit.Record) { r.Actor = "nobody" },
	func(r *audit.Record) { r.Source = "10.0.0.2" },
	func(r *audit.Record) { r.Node = "n2" },
	func(r *audit.Record) { r.TokenID += "x" },
	func(r *audit.Record) { r.Expires-- },
	func(r *audit.Record) { r.Changes = nil },
	func(r *audit.Record) { r.Changes = []audit.Change{{Name: "mode", From: "strict", To: "overlap"}} },
	func(r *audit.Record) { r.Sequence += 1000 },
}

func put(files []file, sequence uint64, e audit.Entry) {
	f, at := line(files, sequence)
	f.lines[at], _ = audit.AppendLine(nil, &e)
}

// reput writes the records from the index on anew.
func reput(files []file, all []audit.Entry, from int) {
	for i := from; i < len(all); i++ {
		put(files, all[i].Sequence, all[i])
	}
	for i := range files {
		if h, _ := audit.ParseHeader(files[i].lines[0]); h.First > 1 && h.First-1 <= uint64(len(all)) {
			h.Previous = all[h.First-2].Hash
			files[i].lines[0] = audit.AppendHeader(nil, h)
		}
	}
}

var alterations = []alteration{
	{"a field", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		n := somewhere(rng, all)
		e := all[n-1]
		fields[rng.IntN(len(fields))](&e.Record)
		put(files, n, e)
		return n, audit.Altered
	}},
	{"a field, and the record's hash", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		n := 1 + rng.Uint64N(uint64(len(all)-1)) // that of the last is a whole chain rewritten
		mine := slices.Clone(all[:n])
		fields[rng.IntN(len(fields)-1)](&mine[n-1].Record)
		rehash(mine, int(n-1))
		put(files, n, mine[n-1])
		return n, audit.Altered
	}},
	{"a hash", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		n := somewhere(rng, all)
		e := all[n-1]
		e.Hash[rng.IntN(32)] ^= 1 << rng.IntN(8)
		put(files, n, e)
		return n, audit.Altered
	}},
	{"a byte", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		n := somewhere(rng, all)
		f, at := line(files, n)
		f.lines[at] = bytes.Clone(f.lines[at])
		f.lines[at][len(`{"sequence":1234`)+rng.IntN(len(f.lines[at])-20)] ^= 0x81 // never a line feed, nor a number
		return n, audit.Altered
	}},
	{"a spelling", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		n := somewhere(rng, all)
		f, at := line(files, n)
		spelt := [][2]string{{`,"kind"`, `, "kind"`}, {`"actor":"l`, `"actor":"\u006c`}, {`.0`, `.00`}, {`}]`, `} ]`}}[rng.IntN(4)]
		text := strings.Replace(string(f.lines[at]), spelt[0], spelt[1], 1)
		f.lines[at] = []byte(text)
		return n, audit.Altered
	}},
	{"a removal", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		n := 1 + rng.Uint64N(uint64(len(all)-1))
		f, at := line(files, n)
		f.lines = slices.Delete(slices.Clone(f.lines), at, at+1)
		return n, audit.Missing
	}},
	{"a removal of many", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		n := 1 + rng.Uint64N(uint64(len(all)-20))
		for seq := n; seq < n+2+rng.Uint64N(17); seq++ {
			f, at := line(files, seq)
			f.lines = slices.Delete(slices.Clone(f.lines), at, at+1)
		}
		return n, audit.Missing
	}},
	{"a swap", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		a := 1 + rng.Uint64N(uint64(len(all)-1))
		b := a + 1 + rng.Uint64N(uint64(len(all))-a)
		f, i := line(files, a)
		g, j := line(files, b)
		f.lines[i], g.lines[j] = g.lines[j], f.lines[i]
		return a, audit.Swapped
	}},
	{"a truncation", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		n := 2 + rng.Uint64N(uint64(len(all)-1))
		for seq := n; seq <= uint64(len(all)); seq++ {
			f, at := line(files, seq)
			if f.lines = slices.Delete(slices.Clone(f.lines), at, at+1); len(f.lines) == 1 {
				f.lines = nil
			}
		}
		return n, audit.Truncated
	}},
	{"a truncation within a line", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		n := uint64(len(all))
		f, at := line(files, n)
		f.lines[at] = f.lines[at][:rng.IntN(len(f.lines[at]))]
		return n, audit.Truncated
	}},
	{"a chain rewritten from a record on", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		n := somewhere(rng, all)
		mine := slices.Clone(all)
		fields[rng.IntN(len(fields)-1)](&mine[n-1].Record)
		rehash(mine, int(n-1))
		reput(files, mine, int(n-1))
		return n, audit.Rewritten
	}},
	{"a chain rewritten for some records", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		n := 1 + rng.Uint64N(uint64(len(all)-20))
		mine := slices.Clone(all[:n+2+rng.Uint64N(17)])
		fields[rng.IntN(len(fields)-1)](&mine[n-1].Record)
		rehash(mine, int(n-1))
		reput(files, mine, int(n-1))
		return n, audit.Rewritten
	}},
	{"a chain rewritten without a record", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		n := 1 + rng.Uint64N(uint64(len(all)-1))
		mine := slices.Concat(all[:n-1], all[n:])
		for i := range mine {
			mine[i].Sequence = uint64(i + 1)
		}
		rehash(mine, int(n-1))
		reput(files, mine, int(n-1))
		f, at := line(files, uint64(len(all)))
		f.lines = slices.Delete(slices.Clone(f.lines), at, at+1)
		return n, audit.Rewritten
	}},
	{"a file gone", func(rng *rand.Rand, _ []audit.Entry, files []file) (uint64, audit.Fault) {
		at := rng.IntN(len(files) - 1)
		n, _ := audit.SequenceOf(files[at].lines[1])
		files[at].lines = nil
		return n, audit.Missing
	}},
	{"a header", func(rng *rand.Rand, _ []audit.Entry, files []file) (uint64, audit.Fault) {
		at := rng.IntN(len(files))
		h, _ := audit.ParseHeader(files[at].lines[0])
		n := h.First
		h.Previous[rng.IntN(32)] ^= 1
		files[at].lines[0] = audit.AppendHeader(nil, h)
		return n, audit.Altered
	}},
	{"records made up", func(rng *rand.Rand, all []audit.Entry, files []file) (uint64, audit.Fault) {
		n := uint64(len(all)) + 1
		head, last := all[len(all)-1].Head(), &files[len(files)-1]
		for i := range 1 + rng.Uint64N(5) {
			e := audit.Entry{Record: audit.Record{Sequence: n + i, Kind: audit.KeyMade, Subject: "mallory"}}
			head, _ = head.Next(&e.Record, nil)
			e.Hash = head.Hash
			text, _ := audit.AppendLine(nil, &e)
			last.lines = append(slices.Clone(last.lines), text)
		}
		return n, audit.Invented
	}},
}

// TestEachAlterationIsFoundAtItsRecord alters files at random places, in each way, some 1000 times.
func TestEachAlterationIsFoundAtItsRecord(t *testing.T) {
	all := chain(120)
	whole := read(t, write(t, all))
	if len(whole) < 5 {
		t.Fatalf("%d files", len(whole))
	}
	if res := against(t, all, whole, false); res.Fault != nil || res.First != 1 || res.Last != 120 {
		t.Fatalf("what is whole: %+v", res)
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range 1000 {
		a := alterations[i%len(alterations)]
		files := slices.Clone(whole)
		for j := range files {
			files[j].lines = slices.Clone(files[j].lines)
		}
		n, what := a.do(rng, all, files)
		files = slices.DeleteFunc(files, func(f file) bool { return len(f.lines) == 0 })
		res := against(t, all, files, false)
		if res.Fault == nil || res.Fault.Sequence != n || res.Fault.What != what {
			t.Errorf("seed %d, alteration %d: %s: found %+v, want record %d %s", seed, i, a.name, res.Fault, n, what)
		}
	}
}

// TestFilesWhoseOldestWent are good only where that is said.
func TestFilesWhoseOldestWent(t *testing.T) {
	all := chain(120)
	files := read(t, write(t, all))[2:]
	if res := against(t, all, files, true); res.Fault != nil || res.First < 10 {
		t.Fatalf("%+v", res)
	}
	if res := against(t, all, files, false); res.Fault == nil || res.Fault.Sequence != 1 || res.Fault.What != audit.Missing {
		t.Fatalf("%+v", res.Fault)
	}
}

// TestFilesThatAreAheadOfTheHead: a node goes on while it is asked.
func TestFilesThatAreAheadOfTheHead(t *testing.T) {
	all := chain(120)
	files := read(t, write(t, all))
	res, err := auditcheck.Check(t.Context(), paths(files), auditcheck.Options{Head: all[99].Head(), Truth: func(_ context.Context, sequence uint64) (audit.Hash, bool, error) {
		return all[sequence-1].Hash, true, nil
	}})
	if err != nil || res.Fault != nil || res.Last != 120 {
		t.Fatalf("%+v, %v", res, err)
	}
}

func paths(files []file) (all []string) {
	for _, f := range files {
		all = append(all, f.path)
	}
	return all
}

func TestNoFilesAtAll(t *testing.T) {
	all := chain(5)
	if res := against(t, all, nil, false); res.Fault == nil || res.Fault.Sequence != 1 {
		t.Fatalf("%+v", res)
	}
	if _, err := auditcheck.Check(t.Context(), []string{filepath.Join(t.TempDir(), "none")}, auditcheck.Options{}); err == nil || !strings.Contains(err.Error(), "none") {
		t.Fatal(err)
	}
}

package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// content is all that raft can read from a store.
type content struct {
	first, last uint64
	logs        map[uint64]raft.Log
	term, vote  string
}

// contentOf reads a store. An entry that cannot be read is left out, and counted.
func contentOf(t *testing.T, s *Store) (c content, unreadable int) {
	t.Helper()
	var err error
	c.first, err = s.FirstIndex()
	must(t, err)
	c.last, err = s.LastIndex()
	must(t, err)
	c.logs = map[uint64]raft.Log{}
	for i := c.first; i <= c.last && i > 0; i++ {
		var l raft.Log
		switch err := s.GetLog(i, &l); {
		case err == nil:
			c.logs[i] = l
		case errors.Is(err, ErrDamaged):
			unreadable++
		case errors.Is(err, raft.ErrLogNotFound): // the gap
		default:
			t.Fatalf("entry %d: %v", i, err)
		}
	}
	term, err := s.Get([]byte("CurrentTerm"))
	must(t, err)
	vote, err := s.Get([]byte("LastVoteCand"))
	must(t, err)
	c.term, c.vote = string(term), string(vote)
	return c, unreadable
}

// lived gives a store that has seen what a member's life brings: appends of all sizes, compaction, a conflict, a gap.
func lived(t *testing.T, path string) *Store {
	t.Helper()
	s := open(t, path, Options{})
	next := uint64(1)
	store := func(n int, size int) {
		var logs []*raft.Log
		for range n {
			logs = append(logs, &raft.Log{
				Index: next, Term: next / 100, Type: raft.LogCommand, AppendedAt: time.Unix(int64(next), 0),
				Data: bytes.Repeat(fmt.Appendf(nil, "<%d>", next), size),
			})
			next++
		}
		must(t, s.StoreLogs(logs))
	}
	must(t, s.Set([]byte("LastVoteCand"), []byte("somebody")))
	for i := range 30 {
		must(t, s.SetUint64([]byte("CurrentTerm"), uint64(i)))
		store(10, 40)
		store(1, 5)
	}
	store(2, 5000)
	must(t, s.DeleteRange(1, 100))
	must(t, s.DeleteRange(next-4, next-1))
	next += 10
	store(50, 20)
	return s
}

// Every byte of a store is garbled, one place at a time and many: what is read is right, or nothing is.
func TestGarbledFileIsNeverReadWrongly(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "raft.db")
	s := lived(t, path)
	want, _ := contentOf(t, s)
	must(t, s.Close())
	whole := read(t, path)

	r := rand.New(rand.NewPCG(1, 2))
	pages := len(whole) / pageSize
	garble := map[string]func(b []byte) []byte{
		"one bit": func(b []byte) []byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return b },
		"one bit of a page's head": func(b []byte) []byte {
			b[r.IntN(pages)*pageSize+r.IntN(200)] ^= 1 << r.IntN(8)
			return b
		},
		"a few bytes": func(b []byte) []byte {
			for i := r.IntN(len(b) - 8); i%8 != 7; i++ {
				b[i] = byte(r.Uint32())
			}
			return b
		},
		"a number set high": func(b []byte) []byte { copy(b[r.IntN(len(b)/4)*4:], "\xff\xff\xff\xff"); return b },
		"a sector of zeros": func(b []byte) []byte { clear(b[r.IntN(len(b)/512)*512:][:512]); return b },
		"a page of zeros":   func(b []byte) []byte { clear(b[r.IntN(pages)*pageSize:][:pageSize]); return b },
		"a page of noise": func(b []byte) []byte {
			for i, p := 0, b[r.IntN(pages)*pageSize:]; i < pageSize; i++ {
				p[i] = byte(r.Uint32())
			}
			return b
		},
		"a page in another's place": func(b []byte) []byte {
			copy(b[r.IntN(pages)*pageSize:][:pageSize], b[r.IntN(pages)*pageSize:][:pageSize])
			return b
		},
		"the same, with the right number": func(b []byte) []byte {
			i := r.IntN(pages)
			copy(b[i*pageSize:][:pageSize], b[r.IntN(pages)*pageSize:][:pageSize])
			native.PutUint64(b[i*pageSize:], uint64(i))
			return b
		},
		"cut off":              func(b []byte) []byte { return b[:r.IntN(len(b))] },
		"cut off at a page":    func(b []byte) []byte { return b[:r.IntN(pages)*pageSize] },
		"cut off and regrown":  func(b []byte) []byte { clear(b[r.IntN(len(b)):]); return b },
		"something at its end": func(b []byte) []byte { return append(b, bytes.Repeat([]byte{1}, r.IntN(9999))...) },
	}
	const trials = 12
	for name, f := range garble {
		t.Run(name, func(t *testing.T) {
			refused := 0
			for i := range trials {
				b := f(bytes.Clone(whole))
				copied := filepath.Join(dir, fmt.Sprintf("%d.db", i))
				must(t, os.WriteFile(copied, b, 0o600))
				if !readsRight(t, copied, want) {
					refused++
				}
				must(t, os.Remove(copied))
			}
			t.Logf("%d of %d refused", refused, trials)
		})
	}
}

// readsRight says whether the store opens; if it does, it must have the content want.
func readsRight(t *testing.T, path string, want content) bool {
	t.Helper()
	before := read(t, path)
	s, err := Open(path, Options{})
	if err != nil {
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) {
			t.Errorf("refused with %v", err)
		}
		if !bytes.Equal(read(t, path), before) {
			t.Errorf("refused, and changed all the same")
		}
		return false
	}
	got, unreadable := contentOf(t, s)
	if !reflect.DeepEqual(got, want) || unreadable > 0 {
		t.Errorf("opened with other content: %d to %d, %d unreadable", got.first, got.last, unreadable)
	}
	must(t, s.Close())
	return true
}

// A power loss in the middle of a commit leaves any part of its writes, sector by sector. bbolt waits for the data before it
// writes the meta page: without the latter, the state before the commit is what counts.
func TestTornCommitIsUndone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "raft.db")
	s := lived(t, path)
	before, _ := contentOf(t, s)
	old := read(t, path)
	_, last := before.first, before.last
	must(t, s.StoreLogs(entries(last+1, last+200, 77)))
	after, _ := contentOf(t, s)
	written := read(t, path)
	must(t, s.Close())
	if len(written) != len(old) {
		old = append(old, make([]byte, len(written)-len(old))...)
	}

	r := rand.New(rand.NewPCG(3, 4))
	torn := filepath.Join(dir, "torn.db")
	for i := range 25 {
		b := bytes.Clone(old)
		for at := 2 * pageSize; at < len(b); at += 512 {
			if r.IntN(100) < 4*i {
				copy(b[at:at+512], written[at:])
			}
		}
		must(t, os.WriteFile(torn, b, 0o600))
		if !readsRight(t, torn, before) {
			t.Errorf("%d %% of the commit written: refused", 4*i)
		}
		// The disk lied about the data: refused, or all of it happens to be there.
		copy(b[:2*pageSize], written)
		must(t, os.WriteFile(torn, b, 0o600))
		readsRight(t, torn, after)
	}
	copy(old, written)
	must(t, os.WriteFile(torn, old, 0o600))
	if !readsRight(t, torn, after) {
		t.Error("all of the commit written: refused")
	}
}

// The file is damaged under a running store.
func TestDamageWhileRunning(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"entries garbled": func(t *testing.T, path string) {
			b := bytes.ReplaceAll(read(t, path), []byte("entry"), []byte("enTry"))
			overwrite(t, path, 0, b)
		},
		"pages of noise": func(t *testing.T, path string) {
			b := make([]byte, len(read(t, path))-2*pageSize)
			for i := range b {
				b[i] = byte(rand.Uint32())
			}
			overwrite(t, path, 2*pageSize, b)
		},
		"pages of zeros": func(t *testing.T, path string) {
			overwrite(t, path, 2*pageSize, make([]byte, len(read(t, path))-2*pageSize))
		},
		"cut off":          func(t *testing.T, path string) { must(t, os.Truncate(path, 2*pageSize)) },
		"cut off entirely": func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) }, // bbolt faults under its locks
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "raft.db")
			var alarms []error
			s := open(t, path, Options{OnHang: func(err error) { alarms = append(alarms, err) }})
			must(t, s.StoreLogs(entries(1, 500, 1)))
			must(t, s.SetUint64([]byte("CurrentTerm"), 3))
			damage(t, path)

			for i := range uint64(500) {
				err := s.GetLog(i+1, new(raft.Log))
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), fmt.Sprintf("log entry %d ", i+1)) ||
					!strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "join anew") {
					t.Fatalf("entry %d: %v", i+1, err)
				}
			}
			if len(alarms) != 1 || !errors.Is(alarms[0], ErrDamaged) {
				t.Errorf("alarms: %v", alarms)
			}
			if n, err := s.GetUint64([]byte("CurrentTerm")); n != 3 || err != nil {
				t.Errorf("term: %d, %v", n, err)
			}
			_ = s.StoreLogs(entries(501, 501, 1)) // must come back, that is all
			must(t, s.Close())
			if _, err := Open(path, Options{}); !errors.Is(err, ErrDamaged) {
				t.Errorf("opened anew: %v", err)
			}
		})
	}
}

// After a write that failed, nothing can be known about what is on the disk.
func TestNoWriteAfterOneThatFailed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	var alarms []error
	s := open(t, path, Options{OnHang: func(err error) { alarms = append(alarms, err) }})
	must(t, s.StoreLogs(entries(1, 5, 1)))
	must(t, s.checked.file.Close()) // every write to it fails from here on

	first := s.StoreLogs(entries(6, 6, 1))
	if first == nil || !strings.Contains(first.Error(), path) {
		t.Errorf("a failing write: %v", first)
	}
	if err := s.SetUint64([]byte("CurrentTerm"), 1); !errors.Is(err, first) {
		t.Errorf("the next one: %v", err)
	}
	if len(alarms) != 1 || !errors.Is(alarms[0], first) {
		t.Errorf("alarms: %v", alarms)
	}
	expectBounds(t, s, 1, 5)
	must(t, s.GetLog(5, new(raft.Log)))
}

// A meta page is damaged: where it is the last one, bbolt alone would go back to the one before, and lose a write that was
// acknowledged.
func TestDamagedMetaPageDoesNotTakeTheLastWriteBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, Options{})
	must(t, s.SetUint64([]byte("CurrentTerm"), 1))
	stale := read(t, path)
	must(t, s.SetUint64([]byte("CurrentTerm"), 2))
	must(t, s.SetUint64([]byte("CurrentTerm"), 3))
	must(t, s.SetUint64([]byte("CurrentTerm"), 4))
	must(t, s.Close())
	whole := read(t, path)
	for meta := range 2 {
		at := meta * pageSize
		for i := range metaSum + checksumSize {
			b := bytes.Clone(whole)
			b[at+pageHead+i] ^= 1
			refused(t, path, b, fmt.Sprintf("meta page %d", meta))
		}
		b := bytes.Clone(whole)
		copy(b[at:], stale[at:at+pageSize])
		refused(t, path, b, "do not follow each other")
	}
}

// Each of these is structure that bbolt trusts and that no checksum covers.
func TestDamagedStructureIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	must(t, lived(t, path).Close())
	whole := read(t, path)
	w := &walker{r: bytes.NewReader(whole), seen: map[uint64]bool{}}
	root, err := w.metas(int64(len(whole)))
	must(t, err)
	must(t, w.tree(root, nil, nil, func(e element) error { return w.bucket(e, &survey{}) }))

	damage := func(at uint64, word string, change func(p page)) {
		b := bytes.Clone(whole)
		change(page(b[at*pageSize:]))
		refused(t, path, b, word)
	}
	branches := 0
	for id := range w.seen {
		p := page(whole[id*pageSize:])
		if native.Uint64(p) != id {
			continue // it belongs to the one before
		}
		damage(id, "is another one", func(p page) { p[1] ^= 1 })
		damage(id, "is another one", func(p page) { p[14] = 1 })
		damage(id, "kind 3", func(p page) { p[8] = 3 })
		damage(id, "kind ", func(p page) { p[10], p[11] = 0xff, 0xff })
		damage(id, "points outside", func(p page) { p[pageHead+7] = 0x7f })
		if native.Uint16(p[10:]) < 2 {
			continue
		}
		damage(id, "out of order", func(p page) {
			first, _ := p.element(0)
			second, _ := p.element(1)
			copy(second.key, first.key)
		})
		if p.kind() == branchPage {
			branches++
			damage(id, "is used twice", func(p page) { copy(p[pageHead+elementSize+8:][:8], p[pageHead+8:]) })
			damage(id, "outside of the file", func(p page) { native.PutUint64(p[pageHead+8:], 1) })
			damage(id, "outside of the file", func(p page) { native.PutUint64(p[pageHead+8:], w.high) })
		}
	}
	if branches == 0 {
		t.Error("there was no branch page to damage")
	}
	refused(t, path, whole[:(w.high-1)*pageSize], "cut off")
}

// An entry in another's place has a checksum that matches.
func TestEntryInAnothersPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, Options{})
	must(t, s.StoreLogs(entries(1, 3, 1)))
	must(t, s.Close())
	update(t, path, func(tx *bbolt.Tx) error {
		logs := tx.Bucket([]byte("logs"))
		return logs.Put([]byte{7: 3}, bytes.Clone(logs.Get([]byte{7: 2})))
	})
	refused(t, path, read(t, path), "log entry 3: it says that it is entry 2")
}

// refused expects that a file with the content b is refused, with the given words.
func refused(t *testing.T, path string, b []byte, words string) {
	t.Helper()
	must(t, os.WriteFile(path, b, 0o600))
	s, err := Open(path, Options{})
	if err == nil {
		_ = s.Close()
	}
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), words) {
		t.Errorf("%v, want one that says %q", err, words)
	}
}

func overwrite(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(b, at)
	must(t, errors.Join(err, f.Close()))
}

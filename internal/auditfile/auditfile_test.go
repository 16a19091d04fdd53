package auditfile_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/auditfile"
)

func TestWhatIsAppendedIsThereAfterAReopening(t *testing.T) {
	f := newFolder(t, auditfile.Options{MaxSize: 20_000})
	all := chain(500)
	for i := 0; i < len(all); i += 7 {
		must(t, f.Append(before(all, i), all[i:min(i+7, len(all))]))
		if i%91 == 0 {
			f.reopen()
		}
	}
	f.reopen()
	if f.Head() != all[499].Head() || len(f.Gaps()) != 0 {
		t.Fatalf("head %v, gaps %v", f.Head(), f.Gaps())
	}
	if n := len(f.files()); n < 5 {
		t.Fatalf("%d files", n)
	}
	for _, path := range f.files() {
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode().Perm() != 0o600 || info.Size() > 24_000 {
			t.Errorf("%s: %v, %d bytes", path, info.Mode(), info.Size())
		}
	}
	f.wantRead(all)
	if info, err := os.Stat(f.path); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("the folder: %v, %v", info.Mode(), err)
	}
}

// TestEntriesThatAreThereArePassedOver: a start applies the log again.
func TestEntriesThatAreThereArePassedOver(t *testing.T) {
	f := newFolder(t, auditfile.Options{})
	all := chain(20)
	must(t, f.Append(audit.Head{}, all[:10]))
	must(t, f.Append(before(all, 3), all[3:9]))
	must(t, f.Append(before(all, 5), all[5:15]))
	must(t, f.Append(before(all, 15), all[15:]))
	f.reopen()
	f.wantRead(all)
}

func TestALineThatACrashCutShortIsDropped(t *testing.T) {
	all := chain(4)
	full := newFolder(t, auditfile.Options{})
	must(t, full.Append(audit.Head{}, all))
	text, err := os.ReadFile(full.files()[0])
	must(t, err)
	for cut := range text {
		f := newFolder(t, auditfile.Options{})
		must(t, os.WriteFile(filepath.Join(f.path, filepath.Base(full.files()[0])), text[:cut], 0o600))
		f.reopen()
		kept := f.Head().Sequence
		if whole := strings.Count(string(text[:cut]), "\n"); int(kept) != max(0, whole-1) {
			t.Fatalf("cut at %d: %d records, %d whole lines", cut, kept, whole)
		}
		must(t, f.Append(before(all, int(kept)), all[kept:])) // they come again
		f.wantRead(all)
	}
}

func TestAGapIsToldAndFilled(t *testing.T) {
	f := newFolder(t, auditfile.Options{})
	all := chain(100)
	must(t, f.Append(audit.Head{}, all[:10]))
	must(t, f.Append(before(all, 30), all[30:60]))
	must(t, f.Append(before(all, 90), all[90:]))
	want := []audit.Gap{{From: 61, To: 90, Last: all[89].Hash}, {From: 11, To: 30, Last: all[29].Hash}}
	for range 2 {
		if got := f.Gaps(); !reflect.DeepEqual(got, want) {
			t.Fatalf("gaps %v", got)
		}
		f.reopen()
	}
	if _, page, err := f.Read(15, 1<<20); err != nil || page[0].Sequence != 31 || len(page) != 30 {
		t.Fatalf("after the gap: %d entries (%v)", len(page), err)
	}
	must(t, f.Fill(before(all, 75), all[75:90]))
	must(t, f.Fill(before(all, 60), all[60:75]))
	must(t, f.Fill(before(all, 10), all[10:30]))
	if err := f.Fill(before(all, 10), all[10:30]); err == nil {
		t.Fatal("it was filled twice")
	}
	f.reopen()
	if len(f.Gaps()) != 0 {
		t.Fatalf("gaps %v", f.Gaps())
	}
	f.wantRead(all)
	if text, err := os.ReadFile(f.files()[2]); err != nil || !strings.Contains(string(text), `"missingFrom":11`) {
		t.Fatalf("the file does not say what was missing: %v", err)
	}
}

// TestFillingBehindTheLast: a snapshot leaves a gap at the end, and what comes after it goes on in the file that fills it.
func TestFillingBehindTheLast(t *testing.T) {
	f := newFolder(t, auditfile.Options{})
	all := chain(30)
	must(t, f.Append(audit.Head{}, all[:10]))
	must(t, f.Fill(before(all, 10), all[10:20]))
	must(t, f.Append(before(all, 20), all[20:]))
	f.reopen()
	if len(f.files()) != 2 {
		t.Fatalf("files %v", f.files())
	}
	f.wantRead(all)
}

func TestOldFilesGo(t *testing.T) {
	f := newFolder(t, auditfile.Options{MaxSize: 1000, Keep: 3})
	all := chain(100)
	for i := range all {
		must(t, f.Append(before(all, i), all[i:i+1]))
	}
	if n := len(f.files()); n != 3 {
		t.Fatalf("%d files", n)
	}
	if len(f.Gaps()) != 0 {
		t.Fatalf("what went for its age is missing: %v", f.Gaps())
	}
	_, page, err := f.Read(1, 1<<20)
	must(t, err)
	if page[0].Sequence < 80 || f.Head() != all[99].Head() {
		t.Fatalf("from %d to %v", page[0].Sequence, f.Head())
	}
}

// TestADiskThatIsFullForAWhile: what was not written is written later, and nothing of the attempt is left.
func TestADiskThatIsFullForAWhile(t *testing.T) {
	room := -1
	f := newFolder(t, auditfile.Options{MaxSize: 5000, Open: func(path string) (auditfile.File, error) {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		return disk{file, &room}, err
	}})
	all := chain(200)
	for i := range all {
		room = (i * 37) % 400
		if more := all[i:min(i+5, len(all))]; f.Append(before(all, i), more) == nil || f.Head() != before(all, i) {
			t.Fatalf("there was room for %d bytes, and the head is %v", room, f.Head())
		}
		for f.Append(before(all, i), all[i:i+1]) != nil {
			if f.Head() != before(all, i) {
				t.Fatalf("record %d failed, and the head is %v", i+1, f.Head())
			}
			if i%5 == 0 {
				f.reopen() // a crash instead of another attempt
			}
			room = -1
		}
	}
	room = -1
	f.reopen()
	f.wantRead(all)
}

// TestAFileThatWasChangedIsSetAside, and what it had is missing; so is one that has another chain than the state.
func TestAFileThatWasChangedIsSetAside(t *testing.T) {
	all := chain(50)
	for name, change := range map[string]func(string) string{
		"a field":  func(s string) string { return strings.Replace(s, `"user-3"`, `"user-4"`, 1) },
		"a space":  func(s string) string { return strings.Replace(s, `,"kind"`, `, "kind"`, 1) },
		"a header": func(s string) string { return strings.Replace(s, `"previousHash":"0`, `"previousHash":"1`, 1) },
		"a line": func(s string) string {
			return strings.Join(append(strings.SplitAfter(s, "\n")[:5], strings.SplitAfter(s, "\n")[6:]...), "")
		},
	} {
		f := newFolder(t, auditfile.Options{})
		must(t, f.Append(audit.Head{}, all[:40]))
		path := f.files()[0]
		text, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, []byte(change(string(text))), 0o600))
		f.reopen()
		if f.Head() != (audit.Head{}) || !strings.Contains(f.log.String(), "ERROR") {
			t.Errorf("%s: it was taken, up to %v", name, f.Head())
		}
		if _, err := os.Stat(path + ".bad"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		must(t, f.Append(before(all, 40), all[40:]))
		if gaps := f.Gaps(); len(gaps) != 1 || gaps[0].Len() != 40 {
			t.Errorf("%s: gaps %v", name, gaps)
		}
	}
	f := newFolder(t, auditfile.Options{})
	other := chain(60)
	for i := range other { // a chain of its own
		other[i].Actor = "mallory"
		head, _ := before(other, i).Next(&other[i].Record, nil)
		other[i].Hash = head.Hash
	}
	must(t, f.Append(audit.Head{}, other[:45]))
	must(t, f.Append(before(all, 30), all[30:50]))
	if f.Head() != all[49].Head() || len(f.Gaps()) != 1 || !strings.Contains(f.log.String(), "ERROR") {
		t.Fatalf("another chain was taken: %v, %v", f.Head(), f.Gaps())
	}
}

func TestAFileThatOthersCanReadIsClosedToThem(t *testing.T) {
	f := newFolder(t, auditfile.Options{})
	all := chain(3)
	must(t, f.Append(audit.Head{}, all))
	must(t, os.Chmod(f.files()[0], 0o644))
	f.reopen()
	info, err := os.Stat(f.files()[0])
	if err != nil || info.Mode() != 0o600 || !strings.Contains(f.log.String(), "WARN") {
		t.Fatalf("%v, %v: %s", info.Mode(), err, f.log.String())
	}
	f.wantRead(all)
}

//go:build unix

package plainfile_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyquorum/keyquorum/internal/plainfile"
)

func TestANewFileIsWholeAndHasItsModeWhateverTheUmask(t *testing.T) {
	for _, umask := range []int{0, 0o077} {
		before := syscall.Umask(umask)
		t.Cleanup(func() { syscall.Umask(before) })
		for _, mode := range []fs.FileMode{0o600, 0o644} {
			dir := t.TempDir()
			path := filepath.Join(dir, "file")
			must(t, plainfile.WriteNew(path, []byte("text"), mode))
			info, err := os.Stat(path)
			must(t, err)
			if info.Mode() != mode {
				t.Errorf("umask %03o: %v, want %v", umask, info.Mode(), mode)
			}
			if b, err := os.ReadFile(path); string(b) != "text" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
			alone(t, dir, "file")
		}
		syscall.Umask(before)
	}
}

func TestANewFileReplacesNothing(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"a file":        func(path string) error { return os.WriteFile(path, []byte("before"), 0o600) },
		"a folder":      func(path string) error { return os.Mkdir(path, 0o700) },
		"a link":        func(path string) error { return os.Symlink(os.DevNull, path) },
		"a broken link": func(path string) error { return os.Symlink("nowhere", path) },
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "file")
		must(t, plant(path))
		before, err := os.Lstat(path)
		must(t, err)
		if err := plainfile.WriteNew(path, []byte("text"), 0o600); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		after, err := os.Lstat(path)
		must(t, err)
		if !os.SameFile(before, after) || before.Size() != after.Size() {
			t.Errorf("%s was replaced", name)
		}
		alone(t, dir, "file")
	}
}

// alone wants nothing to have been left beside a file.
func alone(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("%v was left in the folder", entries)
	}
}

func TestReadHasABound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte("1234"), 0o600))
	for limit, want := range map[int]error{3: plainfile.ErrTooLong, 4: nil, 5: nil} {
		b, err := plainfile.Read(path, limit, nil)
		if !errors.Is(err, want) || err == nil && string(b) != "1234" {
			t.Errorf("at most %d: %q, %v", limit, b, err)
		}
	}
	if _, err := plainfile.Read(path+"s", 4, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestPrivateFilesAreTheirOwnersAlone(t *testing.T) {
	for _, c := range []struct {
		mode              fs.FileMode
		private, forGroup bool
	}{
		{0o600, true, true},
		{0o400, true, true},
		{0o640, false, true},
		{0o440, false, true},
		{0o660, false, false},
		{0o610, false, false},
		{0o604, false, false},
		{0o602, false, false},
		{0o644, false, false},
	} {
		path := filepath.Join(t.TempDir(), "file")
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Chmod(path, c.mode))
		for how, check := range map[string]struct {
			fault func(string, fs.FileInfo) error
			fine  bool
		}{"private": {plainfile.Private, c.private}, "to the group": {plainfile.PrivateToGroup, c.forGroup}} {
			_, err := plainfile.Read(path, 0, check.fault)
			if check.fine != (err == nil) || err != nil && (!errors.Is(err, plainfile.ErrOpen) || !strings.Contains(err.Error(), "chmod")) {
				t.Errorf("%s, %04o: %v", how, c.mode, err)
			}
		}
	}
}

func TestAStrangersFileIsNotPrivate(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Chown(path, 4242, -1))
	if _, err := plainfile.Read(path, 0, plainfile.Private); !errors.Is(err, plainfile.ErrOpen) || !strings.Contains(err.Error(), "belongs to user 4242") {
		t.Error(err)
	}
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := plainfile.Replace(path, []byte("b")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing was there: %v", err)
	}
	if err := plainfile.Replace(dir, []byte("b")); !errors.Is(err, plainfile.ErrNotRegular) {
		t.Errorf("a directory: %v", err)
	}
	if err := os.WriteFile(path, []byte("what was there before"), 0o640); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(path) // who reads the old one goes on reading it
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := plainfile.Replace(path, []byte("b")); err != nil {
		t.Fatal(err)
	}
	was, err := io.ReadAll(held)
	if err != nil || string(was) != "what was there before" {
		t.Errorf("the file was written over: %q, %v", was, err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "b" {
		t.Errorf("%q, %v", b, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%v were left behind", entries)
	}
}

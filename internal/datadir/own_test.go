//go:build unix

package datadir_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyquorum/keyquorum/internal/datadir"
)

// replaceBy puts something else in the place of a file in the directory.
var replaceBy = map[string]func(t *testing.T, path string){
	"a symbolic link": func(t *testing.T, path string) {
		elsewhere := filepath.Join(t.TempDir(), "elsewhere")
		if b, err := os.ReadFile(path); err == nil {
			write(t, elsewhere, string(b))
		}
		_ = os.Remove(path)
		must(t, os.Symlink(elsewhere, path))
	},
	"a named pipe": func(t *testing.T, path string) {
		_ = os.Remove(path)
		must(t, syscall.Mkfifo(path, 0o600))
	},
	"a directory": func(t *testing.T, path string) {
		_ = os.Remove(path)
		must(t, os.Mkdir(path, 0o700))
	},
}

// A link is not followed, not even to a file as good as the one that was here, and a pipe is not waited for.
func TestWhatIsNoFileIsRefused(t *testing.T) {
	for what, put := range replaceBy {
		for _, name := range []string{"lock", "node.json", "raft.db"} {
			t.Run(name+" is "+what, func(t *testing.T) {
				path := t.TempDir()
				must(t, used(t, path).Close())
				put(t, filepath.Join(path, name))
				_, err := datadir.Open(path, datadir.Options{})
				if !errors.Is(err, datadir.ErrDamaged) {
					t.Fatalf("%v, want ErrDamaged", err)
				}
				for _, word := range []string{filepath.Join(path, name), "not a regular file but " + what} {
					if !strings.Contains(err.Error(), word) {
						t.Errorf("%q says nothing of %q", err, word)
					}
				}
			})
		}
	}
}

// What a link points to is not written to: neither by the lock's process id nor by a new identity.
func TestNothingIsWrittenThroughALink(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	write(t, victim, "precious")

	path := t.TempDir()
	must(t, os.Symlink(victim, filepath.Join(path, "node.json.tmp")))
	must(t, open(t, path).Close())
	open(t, path)

	path = t.TempDir()
	must(t, os.Symlink(victim, filepath.Join(path, "lock")))
	if _, err := datadir.Open(path, datadir.Options{}); err == nil {
		t.Error("a lock behind a link was taken")
	}
	if got := string(read(t, victim)); got != "precious" {
		t.Errorf("the file behind the link has %q now", got)
	}
}

func TestSnapshotsBehindALinkAreRefused(t *testing.T) {
	d := open(t, t.TempDir())
	must(t, os.Symlink(t.TempDir(), filepath.Join(d.Path(), "snapshots")))
	if _, err := d.Snapshots(nil); !errors.Is(err, datadir.ErrDamaged) || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("%v", err)
	}
}

// Whoever else can write to one of them can make this member forget, or be another.
func TestFilesThatOthersCanWriteToAreRefused(t *testing.T) {
	for _, name := range []string{"lock", "node.json", "raft.db"} {
		for _, mode := range []fs.FileMode{0o660, 0o602} {
			path := t.TempDir()
			must(t, used(t, path).Close())
			must(t, os.Chmod(filepath.Join(path, name), mode))
			before := content(t, path)
			_, err := datadir.Open(path, datadir.Options{})
			if !errors.Is(err, datadir.ErrPermissions) || !strings.Contains(err.Error(), "chmod 0600 "+filepath.Join(path, name)) {
				t.Errorf("%s with mode %04o: %v", name, mode, err)
			}
			after := content(t, path)
			delete(before, "lock")
			delete(after, "lock")
			if !maps.Equal(before, after) {
				t.Errorf("%s with mode %04o: the directory was changed", name, mode)
			}
		}
	}
}

// Root running over a member's directory would leave files that the member can then no longer write to.
func TestAnotherUsersDirectoryIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	for _, name := range []string{".", "lock", "node.json", "raft.db"} {
		path := t.TempDir()
		must(t, used(t, path).Close())
		must(t, os.Chown(filepath.Join(path, name), 12345, -1))
		_, err := datadir.Open(path, datadir.Options{})
		if !errors.Is(err, datadir.ErrPermissions) {
			t.Fatalf("%s of another user: %v, want ErrPermissions", name, err)
		}
		for _, word := range []string{"belongs to user 12345", "run it as user 12345", "chown"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s of another user: %q says nothing of %q", name, err, word)
			}
		}
	}
}

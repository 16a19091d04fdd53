package datadir_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyquorum/keyquorum/internal/datadir"
	"github.com/keyquorum/keyquorum/internal/fault"
)

func TestIdentityStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	d := open(t, path)
	id := d.ID()
	if u, err := uuid.Parse(id); err != nil || u.Version() != 4 {
		t.Errorf("id %q: %v", id, err)
	}
	if !d.New() {
		t.Error("a new directory is not called new")
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
	must(t, d.Close())
	must(t, d.Close())

	d = open(t, path)
	if d.ID() != id || d.New() {
		t.Errorf("reopened: id %s, new %t, want %s", d.ID(), d.New(), id)
	}
}

func TestEmptiedDirectoryIsANewMember(t *testing.T) {
	path := t.TempDir()
	d := used(t, path)
	id := d.ID()
	must(t, d.Close())
	for name := range content(t, path) {
		must(t, os.RemoveAll(filepath.Join(path, name)))
	}
	if d = open(t, path); d.ID() == id || !d.New() {
		t.Errorf("the old member %s came back", d.ID())
	}
}

func TestOneProcessAtATime(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	_, err := datadir.Open(path, datadir.Options{})
	if !errors.Is(err, datadir.ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("opened twice: %v", err)
	}
	must(t, d.Close())
	open(t, path)
}

// TestMain also plays the other process of TestKilledProcessLetsGo.
func TestMain(m *testing.M) {
	if path := os.Getenv("DATADIR_TEST_HOLD"); path != "" {
		d, err := datadir.Open(path, datadir.Options{})
		fmt.Println(d != nil, err)
		select {}
	}
	os.Exit(m.Run())
}

func TestKilledProcessLetsGo(t *testing.T) {
	path := t.TempDir()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "DATADIR_TEST_HOLD="+path)
	out, err := other.StdoutPipe()
	must(t, err)
	must(t, other.Start())
	buf := make([]byte, 100)
	n, err := out.Read(buf)
	if string(buf[:n]) != "true <nil>\n" {
		t.Fatalf("the other process: %q, %v", buf[:n], err)
	}
	_, err = datadir.Open(path, datadir.Options{})
	if !errors.Is(err, datadir.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", other.Process.Pid)) {
		t.Errorf("held by process %d: %v", other.Process.Pid, err)
	}
	must(t, other.Process.Kill())
	_ = other.Wait()
	open(t, path)
}

// Each of these is refused with words that tell what to do, and nothing is changed.
func TestRefusedDirectories(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, path string)
		want  error
		words []string
	}{
		"a file in its place": {
			spoil: func(t *testing.T, path string) { must(t, os.RemoveAll(path)); write(t, path, "text") },
			words: []string{"not a directory"},
		},
		"no parent": {
			spoil: func(t *testing.T, path string) { must(t, os.RemoveAll(filepath.Dir(path))) },
			want:  fs.ErrNotExist,
			words: []string{"parent must exist"},
		},
		"writable for the group": {
			spoil: func(t *testing.T, path string) { must(t, os.Chmod(path, 0o770)) },
			want:  datadir.ErrPermissions,
			words: []string{"0770", "chmod 0700"},
		},
		"writable for all": {
			spoil: func(t *testing.T, path string) { must(t, os.Chmod(path, 0o702)) },
			want:  datadir.ErrPermissions,
			words: []string{"chmod 0700"},
		},
		"newer format": {
			spoil: func(t *testing.T, path string) {
				must(t, os.Remove(filepath.Join(path, "lock")))
				write(t, filepath.Join(path, "node.json"), `{"format": 2, "other": true}`)
			},
			want:  datadir.ErrFormat,
			words: []string{"2", "later one"},
		},
		"no format": {
			spoil: func(t *testing.T, path string) { write(t, filepath.Join(path, "node.json"), `{}`) },
			want:  datadir.ErrDamaged,
		},
		"identity empty": {
			spoil: func(t *testing.T, path string) { write(t, filepath.Join(path, "node.json"), "") },
			want:  datadir.ErrDamaged,
			words: []string{"node.json", "empty the directory"},
		},
		"identity with another id": {
			spoil: func(t *testing.T, path string) {
				b := read(t, filepath.Join(path, "node.json"))
				i := bytes.Index(b, []byte(`"id": "`)) + 7
				b[i] = "01"[b[i]&1^1]
				write(t, filepath.Join(path, "node.json"), string(b))
			},
			want:  datadir.ErrDamaged,
			words: []string{"node.json", "checksum"},
		},
		"identity gone": {
			spoil: func(t *testing.T, path string) { must(t, os.Remove(filepath.Join(path, "node.json"))) },
			want:  datadir.ErrDamaged,
			words: []string{"node.json is gone", "raft.db", "empty the directory"},
		},
		"store gone": {
			spoil: func(t *testing.T, path string) { must(t, os.Remove(filepath.Join(path, "raft.db"))) },
			want:  datadir.ErrDamaged,
			words: []string{"raft.db is gone", "empty the directory"},
		},
		"somebody else's": {
			spoil: func(t *testing.T, path string) {
				must(t, os.RemoveAll(path))
				must(t, os.Mkdir(path, 0o700))
				write(t, filepath.Join(path, "thesis.tex"), "years of work")
			},
			want:  datadir.ErrDamaged,
			words: []string{"thesis.tex", "name another directory"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "parent", "data")
			must(t, os.Mkdir(filepath.Dir(path), 0o700))
			must(t, used(t, path).Close())
			test.spoil(t, path)
			before := content(t, path)
			_, err := datadir.Open(path, datadir.Options{})
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Fatalf("%v, want %v", err, test.want)
			}
			for _, w := range append(test.words, path) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q says nothing of %q", err, w)
				}
			}
			after := content(t, path)
			if name != "newer format" { // which is not even locked
				delete(before, "lock")
				delete(after, "lock")
			}
			if !maps.Equal(before, after) {
				t.Errorf("changed: %v to %v", before, after)
			}
		})
	}
}

func TestUnwritableDirectory(t *testing.T) {
	path := t.TempDir()
	must(t, os.Chmod(path, 0o500))
	if os.Getuid() == 0 {
		path = "/proc/self/task" // where root cannot write either
		if _, err := os.Stat(path); err != nil {
			t.Skip("root may write everywhere")
		}
	}
	_, err := datadir.Open(path, datadir.Options{})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "cannot be written") {
		t.Errorf("%v", err)
	}
}

func TestReadableForOthersIsToldOnly(t *testing.T) {
	path := t.TempDir()
	must(t, os.Chmod(path, 0o755))
	var out bytes.Buffer
	d, err := datadir.Open(path, datadir.Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	must(t, err)
	must(t, d.Close())
	if !strings.Contains(out.String(), path) {
		t.Errorf("logged: %q", out.String())
	}
}

// A crash at any moment of the first start leaves a directory that starts.
func TestFirstStartCutShort(t *testing.T) {
	for _, left := range []string{"lock", "node.json.tmp", "lost+found"} {
		path := t.TempDir()
		write(t, filepath.Join(path, left), "{")
		must(t, open(t, path).Close())
		open(t, path)
	}
}

// The store was made, and a crash came before that was noted.
func TestStoreIsNotedAtTheNextStart(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	write(t, d.RaftDB(), "store")
	must(t, d.Close())
	d = open(t, path)
	must(t, os.Remove(d.RaftDB()))
	must(t, d.Close())
	if _, err := datadir.Open(path, datadir.Options{}); !errors.Is(err, datadir.ErrDamaged) {
		t.Errorf("%v", err)
	}
}

func TestWrongKeyringIsRefused(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	must(t, d.CheckKeyring(keyring("ours")))
	must(t, d.CheckKeyring(keyring("ours")))
	must(t, d.Close())

	d = open(t, path)
	before := content(t, path)
	err := d.CheckKeyring(keyring("theirs"))
	if !errors.Is(err, fault.ErrKeyring) || !strings.Contains(err.Error(), path) {
		t.Errorf("another keyring: %v", err)
	}
	if !maps.Equal(before, content(t, path)) {
		t.Error("the directory was changed")
	}
	must(t, d.CheckKeyring(keyring("ours")))
	must(t, d.Close())

	// A proof is for one directory: it shows nothing in another.
	other := t.TempDir()
	d = open(t, other)
	must(t, d.CheckKeyring(keyring("theirs")))
	must(t, d.Close())
	if d = open(t, other); d.CheckKeyring(keyring("ours")) == nil {
		t.Error("another keyring was taken")
	}
}

func TestKeyringThatCannotProve(t *testing.T) {
	d := open(t, t.TempDir())
	if err := d.CheckKeyring(keyring("")); err == nil {
		t.Error("an empty proof was taken")
	}
	must(t, d.CheckKeyring(keyring("ours")))
}

func TestCreatedIsDated(t *testing.T) {
	path := t.TempDir()
	d, err := datadir.Open(path, datadir.Options{Now: func() time.Time { return time.Unix(1_800_000_000, 5) }})
	must(t, err)
	must(t, d.Close())
	if b := read(t, filepath.Join(path, "node.json")); !bytes.Contains(b, []byte(`"created": "2027-01-15T08:00:00Z"`)) {
		t.Errorf("%s", b)
	}
}

// keyring is a keyring whose proofs anybody could make. It has a master key for each word.
type keyring string

func (k keyring) IDs() (ids []uint32) {
	for word := range strings.FieldsSeq(string(k)) {
		ids = append(ids, crc32.ChecksumIEEE([]byte(word)))
	}
	if k == "" {
		ids = []uint32{0}
	}
	return ids
}

func (k keyring) ProveUnder(id uint32, purpose, text string) ([]byte, error) {
	if k == "" {
		return nil, nil
	}
	return fmt.Append(nil, id, "|", purpose, "|", text), nil
}

func (k keyring) CheckProof(purpose, text string, proof []byte) error {
	for _, id := range k.IDs() {
		if want, _ := k.ProveUnder(id, purpose, text); bytes.Equal(proof, want) {
			return nil
		}
	}
	return fmt.Errorf("checking a proof: %w", fault.ErrKeyring)
}

// A master key is rotated: what the directory goes by follows, so that at the end the new one will do, and the old one
// will not.
func TestKeyringThatIsRotated(t *testing.T) {
	path := t.TempDir()
	d := used(t, path)
	must(t, d.NoteKeyring(keyring("ours next")))
	before := read(t, filepath.Join(path, "node.json"))
	must(t, d.NoteKeyring(keyring("next ours")))
	if !bytes.Equal(before, read(t, filepath.Join(path, "node.json"))) {
		t.Error("node.json was written anew for nothing")
	}
	must(t, d.Close())
	for _, one := range []keyring{"ours", "next"} { // until the others use the new one, and afterwards
		must(t, with(t, path, "ours next"))
		must(t, with(t, path, one))
	}
	must(t, with(t, path, "next"))
	if err := with(t, path, "ours"); !errors.Is(err, fault.ErrKeyring) {
		t.Errorf("a keyring without the key that is left: %v", err)
	}
}

// What an earlier version wrote has one proof, which is not told apart by a master key.
func TestProofOfAnEarlierVersion(t *testing.T) {
	path := t.TempDir()
	d := used(t, path)
	proof, _ := keyring("ours").ProveUnder(keyring("ours").IDs()[0], "datadir", d.ID())
	must(t, datadir.SaveOldProof(d, proof))
	must(t, d.Close())
	if err := with(t, path, "theirs"); !errors.Is(err, fault.ErrKeyring) {
		t.Errorf("another keyring: %v", err)
	}
	must(t, with(t, path, "ours"))
	if b := read(t, filepath.Join(path, "node.json")); bytes.Contains(b, []byte(`"keyringProof"`)) {
		t.Errorf("the old proof is still there: %s", b)
	}
}

// with starts on a directory with a keyring, and ends.
func with(t *testing.T, path string, k keyring) error {
	t.Helper()
	d := open(t, path)
	defer d.Close()
	return d.CheckKeyring(k)
}

func open(t *testing.T, path string) *datadir.Dir {
	t.Helper()
	d, err := datadir.Open(path, datadir.Options{})
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// used gives a directory that has had a store.
func used(t *testing.T, path string) *datadir.Dir {
	t.Helper()
	d := open(t, path)
	must(t, d.CheckKeyring(keyring("ours")))
	write(t, d.RaftDB(), "store")
	must(t, d.StoreCreated())
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// content gives the files right inside a directory.
func content(t *testing.T, path string) map[string]string {
	t.Helper()
	c := map[string]string{}
	entries, _ := os.ReadDir(path)
	for _, e := range entries {
		c[e.Name()] = ""
		if !e.IsDir() {
			c[e.Name()] = string(read(t, filepath.Join(path, e.Name())))
		}
	}
	return c
}

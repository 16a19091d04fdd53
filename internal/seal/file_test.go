//go:build unix

package seal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/keyquorum/keyquorum/internal/seal"
)

func initFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyring.json")
	if err := seal.Init(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, p seal.Provider) *seal.Keyring {
	t.Helper()
	k, err := p.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// assertRefused wants an error that holds all of the words and nothing of the file's content.
func assertRefused(t *testing.T, p seal.Provider, content string, words ...string) {
	t.Helper()
	_, err := p.Load(t.Context())
	if err == nil {
		t.Error("the keyring was accepted")
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
	for _, part := range strings.FieldsFunc(content, func(r rune) bool { return strings.ContainsRune("\" \n{},:", r) }) {
		if len(part) > 24 && strings.Contains(err.Error(), part) {
			t.Errorf("%q shows the content", err)
		}
	}
}

func TestInitMakesAKeyringForAllMembers(t *testing.T) {
	path := initFile(t)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode is %v, want 0600", info.Mode())
	}
	one, two := load(t, seal.File(path)), load(t, seal.File(path))
	random, sealed := newKey(t, one, "ada")
	if _, err := two.Open("ada", random, sealed); err != nil {
		t.Errorf("another member with the same file: %v", err)
	}
	if !bytes.Equal(one.GossipKey(), two.GossipKey()) {
		t.Error("two members with the same file have two gossip keys")
	}
	assertAlone(t, path)
}

func assertAlone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(path) {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestInitNeverOverwrites(t *testing.T) {
	path := initFile(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := seal.Init(t.Context(), path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second Init: %v, want one that wraps fs.ErrExist", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, before) {
		t.Error("the keyring changed")
	}
	assertAlone(t, path)

	dangling := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("nowhere", dangling); err != nil {
		t.Fatal(err)
	}
	if err := seal.Init(t.Context(), dangling); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Init at a dangling link: %v, want one that wraps fs.ErrExist", err)
	}
	if err := seal.Init(t.Context(), t.TempDir()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Init at a directory: %v, want one that wraps fs.ErrExist", err)
	}
	if err := seal.Init(t.Context(), filepath.Join(t.TempDir(), "no", "such")); err == nil {
		t.Error("Init in a directory that is not there succeeded")
	}
}

func TestOneOfManyInitsWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring")
	var wg sync.WaitGroup
	var made atomic.Int32
	for range 16 {
		wg.Go(func() {
			switch err := seal.Init(t.Context(), path); {
			case err == nil:
				made.Add(1)
			case !errors.Is(err, fs.ErrExist):
				t.Errorf("a later Init: %v, want one that wraps fs.ErrExist", err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("%d of the calls made the keyring", made.Load())
	}
	load(t, seal.File(path))
	assertAlone(t, path)
}

func TestFileOpenToOthersIsRefused(t *testing.T) {
	path := initFile(t)
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		assertRefused(t, seal.File(path), "", path, fmt.Sprintf("%04o", mode), "chmod 600 "+path)
	}
	for _, mode := range []fs.FileMode{0o600, 0o400, 0o700} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		load(t, seal.File(path))
	}
}

func TestFileBehindALink(t *testing.T) {
	path := initFile(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	load(t, seal.File(link))
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	assertRefused(t, seal.File(link), "", "0644", "chmod")
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	assertRefused(t, seal.File(filepath.Join(dir, "none")), "", "none", "keyring init")
	assertRefused(t, seal.File(dir), "", dir, "not a regular file")
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	assertRefused(t, seal.File(pipe), "", pipe, "not a regular file")
}

func TestFileOfAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	path := initFile(t)
	if err := os.Chown(path, 12345, -1); err != nil {
		t.Fatal(err)
	}
	assertRefused(t, seal.File(path), "", path, "belongs to user 12345", "chown")
}

func TestEnv(t *testing.T) {
	content, err := os.ReadFile(initFile(t))
	if err != nil {
		t.Fatal(err)
	}
	const name = "KEYQUORUM_TEST_KEYRING"
	assertRefused(t, seal.Env(name), "", name, "not set")
	t.Setenv(name, string(content))
	load(t, seal.Env(name))
	t.Setenv(name, string(content[:len(content)/2]))
	assertRefused(t, seal.Env(name), string(content), name, "damaged")
}

func TestLoadEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, p := range []seal.Provider{seal.File(initFile(t)), seal.Env("HOME")} {
		if _, err := p.Load(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%T: %v, want context.Canceled", p, err)
		}
	}
}

func TestDamagedFileIsRefusedWithoutItsContent(t *testing.T) {
	good, err := os.ReadFile(initFile(t))
	if err != nil {
		t.Fatal(err)
	}
	text := string(good)
	swap := func(old, with string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("a keyring file has no %q", old)
		}
		return strings.Replace(text, old, with, 1)
	}
	for name, c := range map[string]struct{ content, word string }{
		"empty":              {"", "damaged"},
		"no JSON":            {"hunter2-hunter2-hunter2-hunter2", "damaged"},
		"another JSON":       {"[1,2]", "damaged"},
		"null":               {"null", "damaged"},
		"newer format":       {swap(`"format": 1`, `"format": 2`), "newer keyquorum"},
		"newer, other shape": {`{"format": 7, "vault": {"a": 1}}`, "format 7"},
		"no format":          {swap(`"format": 1,`, ``), `"format"`},
		"format as text":     {swap(`"format": 1`, `"format": "1"`), `"format"`},
		"format zero":        {swap(`"format": 1`, `"format": 0`), `"format"`},
		"folded name":        {swap(`"format"`, `"Format"`), `"format"`},
		"unknown member":     {swap(`"format": 1`, `"format": 1, "extra": 1`), "member"},
		"folded extra":       {swap(`"format": 1`, `"format": 1, "GossipKey": ""`), "member"},
		"member twice":       {swap(`"format": 1`, `"format": 1, "format": 1`), "twice"},
		"unknown in keyset":  {swap(`"primaryKeyId"`, `"extra": 1, "primaryKeyId"`), "keyset"},
		"other primary":      {swap(`"primaryKeyId": `, `"primaryKeyId": 1`), "keyset"},
		"no keyset":          {swap(`"keyset"`, `"keyset": {}, "x"`), "member"},
		"empty keyset":       {`{"format":1,"keyset":{},"gossipKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`, "keyset"},
		"null keyset":        {`{"format":1,"keyset":null,"gossipKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`, "keyset"},
		"missing keyset":     {`{"format":1,"gossipKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`, "keyset"},
		"other key type":     {swap("PrfBasedDeriverKey", "AesSivKey"), "keyset"},
		"key without prefix": {swap(`"TINK"`, `"RAW"`), "keyset"},
		"disabled primary":   {swap(`"ENABLED"`, `"DISABLED"`), "keyset"},
		"short gossip key":   {swap(`"gossipKey": "`, `"gossipKey": "AAAA`), "gossipKey"},
		"gossip key absent":  {swap(`"gossipKey"`, `"gossipkey"`), "member"},
		"text behind":        {text + "{}", "damaged"},
		"cut":                {text[:len(text)-3], "damaged"},
		"huge":               {text + strings.Repeat(" ", 1<<20), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keyring")
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			assertRefused(t, seal.File(path), c.content, path, c.word)
		})
	}
}

// Whatever byte of a keyring file is lost, the file is refused or the keyring is another one: it never passes for
// the same.
func TestFileCutAnywhere(t *testing.T) {
	path := initFile(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	end := len(strings.TrimRight(string(good), "\n"))
	for n := range end {
		if err := os.WriteFile(path, good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		assertRefused(t, seal.File(path), string(good), path)
	}
}

//go:build unix

package seal_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/seal"
)

func rotate(t *testing.T, s *seal.Store) uint32 {
	t.Helper()
	id, err := s.Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func always(uint32) bool { return true }
func never(uint32) bool  { return false }

func TestRotateAddsAKeyThatSealsNothingYet(t *testing.T) {
	store := seal.File(initFile(t))
	before := load(t, store)
	added := rotate(t, store)
	after := load(t, store)
	if after.Primary() != before.Primary() || !slices.Equal(after.IDs(), []uint32{before.Primary(), added}) {
		t.Fatalf("the keys are %v with %d for the primary, want %d and then %d", after.IDs(), after.Primary(), before.Primary(), added)
	}
	random, sealed := newKey(t, after, "ada")
	if _, err := before.Open("ada", random, sealed); err != nil {
		t.Errorf("what is sealed by default after a rotation does not open with the keyring of before: %v", err)
	}
	if !bytes.Equal(before.GossipKey(), after.GossipKey()) {
		t.Error("the gossip key is another one")
	}
	again, err := after.Reseal(added, "ada", random, sealed)
	if err != nil {
		t.Fatal(err)
	}
	one, _ := after.Open("ada", random, sealed)
	two, err := after.Open("ada", random, again)
	if err != nil || !one.Equal(two) {
		t.Errorf("sealed anew, the key is another one: %v", err)
	}
	if _, err := before.Open("ada", random, again); !errors.Is(err, fault.ErrKeyring) {
		t.Errorf("a keyring without the new key opens it: %v", err)
	}
	if _, err := after.Open("bob", random, again); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("sealed anew, the key opens for another user: %v", err)
	}
}

func TestDropTakesAKeyOut(t *testing.T) {
	store := seal.File(initFile(t))
	first := load(t, store).Primary()
	second := rotate(t, store)
	if err := store.Drop(t.Context(), second+1, first); !errors.Is(err, seal.ErrNoSuchKey) {
		t.Errorf("dropping what is not there: %v", err)
	}
	if err := store.Drop(t.Context(), first, first); err == nil {
		t.Error("the primary key was dropped")
	}
	if err := store.Drop(t.Context(), first, second); err != nil {
		t.Fatal(err)
	}
	if k := load(t, store); k.Primary() != second || !slices.Equal(k.IDs(), []uint32{second}) {
		t.Errorf("left are %v with %d for the primary, want %d", k.IDs(), k.Primary(), second)
	}
}

func TestChangesKeepModeAndOwner(t *testing.T) {
	path := initFile(t)
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 0, 12345); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	rotate(t, seal.File(link))
	after, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	a, b := before.Sys().(*syscall.Stat_t), after.Sys().(*syscall.Stat_t)
	if before.Mode() != after.Mode() || a.Uid != b.Uid || a.Gid != b.Gid {
		t.Errorf("%v of %d:%d became %v of %d:%d", before.Mode(), a.Uid, a.Gid, after.Mode(), b.Uid, b.Gid)
	}
	if info, _ := os.Lstat(link); info.Mode()&fs.ModeSymlink == 0 {
		t.Error("the link became a file")
	}
	if len(load(t, seal.File(path)).IDs()) != 2 {
		t.Error("the link's target was not changed")
	}
	assertAlone(t, path)
}

func TestChangeThatFailsChangesNothing(t *testing.T) {
	path := initFile(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := seal.File(path).Rotate(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.File(path).Rotate(t.Context()); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a keyring that others can read was changed: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	var faults []error
	for range seal.MaxKeys {
		_, err := seal.File(path).Rotate(t.Context())
		faults = append(faults, err)
	}
	if err := errors.Join(faults[:seal.MaxKeys-1]...); err != nil {
		t.Fatal(err)
	}
	if err := faults[seal.MaxKeys-1]; err == nil || !strings.Contains(err.Error(), "can have 32") {
		t.Errorf("a key too many: %v", err)
	}
	if len(load(t, seal.File(path)).IDs()) != seal.MaxKeys {
		t.Error("a change that failed changed the file")
	}
	if err := os.WriteFile(path, before[:len(before)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.File(path).Rotate(t.Context()); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("half a keyring was changed: %v", err)
	}
	assertAlone(t, path)
}

// meddler is a source that somebody else changes once it has been read.
type meddler struct {
	seal.Source
	path string
	with []byte
}

func (m meddler) Read(ctx context.Context) ([]byte, error) {
	b, err := m.Source.Read(ctx)
	return b, errors.Join(err, os.WriteFile(m.path, m.with, 0o600))
}

func TestChangeOfSomebodyElseIsNotLost(t *testing.T) {
	path := initFile(t)
	other, err := os.ReadFile(initFile(t))
	if err != nil {
		t.Fatal(err)
	}
	store := seal.From(meddler{seal.SourceOf(seal.File(path)), path, other})
	if _, err := store.Rotate(t.Context()); err == nil || !strings.Contains(err.Error(), "by somebody else") {
		t.Errorf("%v, want a refusal", err)
	}
	if now, _ := os.ReadFile(path); !bytes.Equal(now, other) {
		t.Error("what somebody else wrote was overwritten")
	}
}

func TestEnvCannotBeChanged(t *testing.T) {
	const name = "KEYQUORUM_TEST_KEYRING"
	if err := seal.Env(name).Init(t.Context()); !errors.Is(err, seal.ErrReadOnly) {
		t.Errorf("init: %v", err)
	}
	content, err := os.ReadFile(initFile(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(name, string(content))
	if _, err := seal.Env(name).Rotate(t.Context()); !errors.Is(err, seal.ErrReadOnly) {
		t.Errorf("rotate: %v", err)
	}
	if err := seal.Env(name).Init(t.Context()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("init of what is there: %v", err)
	}
}

func TestCompareAndTake(t *testing.T) {
	path := initFile(t)
	store := seal.File(path)
	running := load(t, store)
	random, sealed := newKey(t, running, "ada")
	first := running.Primary()
	second := rotate(t, store)
	next := load(t, store)
	change, err := running.Compare(next, always)
	if err != nil || !slices.Equal(change.Added, []uint32{second}) || change.Dropped != nil {
		t.Fatalf("added one: %+v, %v", change, err)
	}
	clone := running.Clone()
	running.Take(next)
	if !running.Has(second) || clone.Has(second) {
		t.Error("the key was not taken, or by a clone too")
	}
	if _, err := running.Open("ada", random, sealed); err != nil {
		t.Error(err)
	}
	if err := store.Drop(t.Context(), first, second); err != nil {
		t.Fatal(err)
	}
	less := load(t, store)
	if _, err := running.Compare(less, always); !errors.Is(err, fault.ErrKeyring) || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("a key that is needed is gone: %v", err)
	}
	if change, err = running.Compare(less, never); err != nil || !slices.Equal(change.Dropped, []uint32{first}) {
		t.Fatalf("dropped one: %+v, %v", change, err)
	}
	running.Take(less)
	if _, err := running.Open("ada", random, sealed); !errors.Is(err, fault.ErrKeyring) {
		t.Errorf("a dropped key opens: %v", err)
	}
	if _, err := running.Compare(load(t, seal.File(initFile(t))), never); !errors.Is(err, fault.ErrKeyring) {
		t.Errorf("a stranger's keyring: %v", err)
	}
}

// Somebody can have given another key the id of one that is held.
func TestAnotherKeyUnderTheSameID(t *testing.T) {
	mine, other := newKeyring(t), newKeyring(t)
	if _, err := mine.Compare(seal.Disguised(mine, other), never); !errors.Is(err, fault.ErrKeyring) {
		t.Errorf("another key passes for the one with its id: %v", err)
	}
}

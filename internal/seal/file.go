package seal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyquorum/keyquorum/internal/plainfile"
)

// Init makes a new master keyring and gossip key, and writes them to a new file at path that only its owner can
// read. The file is there wholly or not at all, and is on disk when Init returns. A file, directory or link that
// is there already is left alone and gives an error that wraps fs.ErrExist.
func Init(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return existsError(path)
	}
	b, err := newText()
	if err != nil {
		return err
	}
	defer clear(b)
	return writeNew(path, b)
}

func existsError(path string) error {
	return fmt.Errorf("%s is there already and is not overwritten: the keys sealed under a keyring are lost with it: %w", path, fs.ErrExist)
}

// writeNew makes a complete file beside path and links it there, as a link, unlike a rename, never replaces.
func writeNew(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".keyring-*")
	if err != nil {
		return fmt.Errorf("writing the keyring: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	if err := errors.Join(fillFile(f, b), f.Close()); err != nil {
		return fmt.Errorf("writing the keyring: %w", err)
	}
	switch err := os.Link(f.Name(), path); {
	case errors.Is(err, fs.ErrExist):
		return existsError(path)
	case err != nil:
		return fmt.Errorf("writing the keyring (its file system must know hard links): %w", err)
	}
	return plainfile.Sync(dir)
}

func fillFile(f *os.File, b []byte) error {
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Sync()
}

// readPrivate reads a file that no one else can read or change.
func readPrivate(path string) ([]byte, error) {
	f, err := plainfile.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no keyring at %s: copy the cluster's there, or make the first with \"keyquorum keyring init\": %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the keyring: %w", err)
	}
	defer f.Close()
	if err := checkPrivate(path, f); err != nil {
		return nil, err
	}
	// One buffer that does not grow, as growing would leave copies behind.
	b := make([]byte, maxText+1)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(b)
		return nil, fmt.Errorf("reading the keyring: %w", err)
	}
	return b[:n], nil
}

// checkPrivate wants the open file to be of this process's user, or of root, as any other owner can change it at will;
// and open to nobody else.
func checkPrivate(path string, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("reading the keyring: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("keyring %s has mode %04o, open to others than its owner: run \"chmod 600 %s\", and treat the keyring as seen", path, perm, path)
	}
	self := os.Geteuid()
	if owner, told := plainfile.Owner(info); told && owner != self && owner != 0 {
		return fmt.Errorf("keyring %s belongs to user %d, not to this process's user %d or root: run \"chown %d %s\"", path, owner, self, self, path)
	}
	return nil
}

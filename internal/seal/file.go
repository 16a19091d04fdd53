package seal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

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
	if err := plainfile.WriteNew(path, b, 0o600); errors.Is(err, fs.ErrExist) {
		return existsError(path)
	} else if err != nil {
		return fmt.Errorf("the keyring: %w", err)
	}
	return nil
}

func existsError(path string) error {
	return fmt.Errorf("%s is there already and is not overwritten: the keys sealed under a keyring are lost with it: %w", path, fs.ErrExist)
}

// readPrivate reads a file that no one else can read or change.
func readPrivate(path string) ([]byte, error) {
	b, err := plainfile.Read(path, maxText, plainfile.Private)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no keyring at %s: copy the cluster's there, or make the first with \"keyquorum keyring init\": %w", path, err)
	case err != nil:
		return nil, fmt.Errorf("the keyring: %w", err)
	}
	return b, nil
}

package seal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/keyquorum/keyquorum/internal/plainfile"
)

// fileSource is the path of a file that only its owner can read.
type fileSource string

func (s fileSource) String() string { return "keyring " + string(s) }

func (s fileSource) Read(context.Context) ([]byte, error) {
	b, err := plainfile.Read(string(s), MaxText, plainfile.Private)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no keyring at %s: copy the cluster's there, or make the first with \"keyquorum keyring init\": %w", string(s), err)
	case err != nil:
		return nil, fmt.Errorf("the keyring: %w", err)
	}
	return b, nil
}

// Create makes the file. A file, directory or link that is there already is left alone.
func (s fileSource) Create(_ context.Context, b []byte) error {
	if _, err := os.Lstat(string(s)); err == nil {
		return s.exists()
	}
	if err := plainfile.WriteNew(string(s), b, 0o600); errors.Is(err, fs.ErrExist) {
		return s.exists()
	} else if err != nil {
		return fmt.Errorf("the keyring: %w", err)
	}
	return nil
}

func (s fileSource) exists() error {
	return fmt.Errorf("%s is there already and is not overwritten: the keys sealed under a keyring are lost with it: %w", string(s), fs.ErrExist)
}

// Replace keeps the file's mode and owner. After a crash it has all of b, or what it had before.
func (s fileSource) Replace(_ context.Context, b []byte) error {
	if err := plainfile.Replace(string(s), b); err != nil {
		return fmt.Errorf("the keyring: %w", err)
	}
	return nil
}

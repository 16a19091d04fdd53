package seal

import (
	"context"
	"fmt"
	"os"
)

// Provider is where a node gets the master keyring from: a file, the environment, or later a KMS.
type Provider interface {
	// Load gives the keyring as it is now. It may be called again, to see a changed one.
	Load(ctx context.Context) (*Keyring, error)
}

// File provides the keyring of the file at path, which Init made. The file must be a regular one, owned by this
// process's user or root, with no permissions for group and others; behind a symbolic link, that is asked of its
// target.
func File(path string) Provider { return fileProvider(path) }

// Env provides the keyring that the environment variable name holds, with the content of a keyring file.
func Env(name string) Provider { return envProvider(name) }

type fileProvider string

func (p fileProvider) Load(ctx context.Context) (*Keyring, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := readPrivate(string(p))
	if err != nil {
		return nil, err
	}
	defer clear(b)
	k, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("keyring %s %w", string(p), err)
	}
	return k, nil
}

type envProvider string

func (p envProvider) Load(ctx context.Context) (*Keyring, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	value := os.Getenv(string(p))
	if value == "" {
		return nil, fmt.Errorf(`environment variable %s is empty or not set: it must hold the content of a file made with "keyquorum keyring init"`, string(p))
	}
	b := []byte(value)
	defer clear(b)
	k, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("the keyring in environment variable %s %w", string(p), err)
	}
	return k, nil
}

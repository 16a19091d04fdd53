package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/tink-crypto/tink-go/v2/keyset"
)

// Provider is where a node gets the master keyring from.
type Provider interface {
	// Load gives the keyring as it is now. It may be called again, to see a changed one.
	Load(ctx context.Context) (*Keyring, error)
}

// Source keeps the stored form of a keyring: a file, the environment, a service that holds the key to a file. What it
// gives and gets is as secret as the keyring. Its errors are for people, and hold nothing of that.
type Source interface {
	// Read gives the stored form. The caller clears it.
	Read(ctx context.Context) ([]byte, error)
	// Create stores b where there is nothing yet; otherwise the error wraps fs.ErrExist.
	Create(ctx context.Context, b []byte) error
	// Replace stores b in the place of what there is, wholly, or fails and changes nothing.
	Replace(ctx context.Context, b []byte) error
	// String names the keyring in messages, as in "keyring /etc/keyring".
	String() string
}

// ErrUnavailable says that what keeps a keyring does not answer, and may do so later.
var ErrUnavailable = errors.New("the provider of the keyring is not available")

// ErrReadOnly says that a keyring cannot be changed through its source.
var ErrReadOnly = errors.New("this program cannot change it")

// Store is a keyring where it is kept.
type Store struct{ source Source }

var _ Provider = (*Store)(nil)

// From gives the keyring that source keeps.
func From(source Source) *Store { return &Store{source} }

// File is the keyring of the file at path. The file must be a regular one, owned by this process's user or root, with no
// permissions for group and others; behind a symbolic link, that is asked of its target.
func File(path string) *Store { return From(fileSource(path)) }

// Env is the keyring that the environment variable name holds, with the content of a keyring file. It cannot be changed.
func Env(name string) *Store { return From(envSource(name)) }

// String names the keyring in messages.
func (s *Store) String() string { return s.source.String() }

// Load implements Provider.
func (s *Store) Load(ctx context.Context) (*Keyring, error) {
	b, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	k, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("%s %w", s.source, err)
	}
	return k, nil
}

func (s *Store) read(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.source.Read(ctx)
}

// Init makes a new master keyring and gossip key, and stores them where there is nothing yet: there wholly, durably, or
// not at all. What is there already is left alone and gives an error that wraps fs.ErrExist.
func (s *Store) Init(ctx context.Context) error {
	b, err := newText()
	if err != nil {
		return err
	}
	defer clear(b)
	return s.source.Create(ctx, b)
}

// Rotate adds a master key, and gives its id. Nothing is sealed under it by that alone: it is the newest, and the primary
// one stays what it is.
func (s *Store) Rotate(ctx context.Context) (id uint32, err error) {
	template, err := masterKeyTemplate()
	if err != nil {
		return 0, fmt.Errorf("making a master key: %w", err)
	}
	err = s.change(ctx, func(m *keyset.Manager) error {
		id, err = m.Add(template)
		return err
	})
	return id, err
}

// ErrNoSuchKey says that a keyring has no master key with an id.
var ErrNoSuchKey = errors.New("there is no such master key in it")

// Drop takes the master key with the id out, for good. Primary is the one that the keyring names as such from then on.
func (s *Store) Drop(ctx context.Context, id, primary uint32) error {
	k, err := s.Load(ctx)
	if err != nil {
		return err
	}
	for _, must := range []uint32{id, primary} {
		if !slices.Contains(k.IDs(), must) {
			return fmt.Errorf("%s: %w: %d", s.source, ErrNoSuchKey, must)
		}
	}
	return s.change(ctx, func(m *keyset.Manager) error {
		if err := m.SetPrimary(primary); err != nil {
			return err
		}
		return m.Delete(id)
	})
}

func (s *Store) change(ctx context.Context, do func(*keyset.Manager) error) error {
	was, err := s.read(ctx)
	if err != nil {
		return err
	}
	defer clear(was)
	b, err := change(was, do)
	if err != nil {
		return fmt.Errorf("%s %w", s.source, err)
	}
	defer clear(b)
	if err := s.unchanged(ctx, was); err != nil {
		return err
	}
	return s.source.Replace(ctx, b)
}

// Init makes a new keyring in a file at path that only its owner can read, as Store.Init.
func Init(ctx context.Context, path string) error { return File(path).Init(ctx) }

type envSource string

func (s envSource) String() string { return "the keyring in environment variable " + string(s) }

func (s envSource) Read(context.Context) ([]byte, error) {
	value := os.Getenv(string(s))
	if value == "" {
		return nil, fmt.Errorf(`environment variable %s is empty or not set: it must hold the content of a file made with "keyquorum keyring init"`, string(s))
	}
	return []byte(value), nil
}

func (s envSource) Create(context.Context, []byte) error {
	if os.Getenv(string(s)) != "" {
		return fmt.Errorf("%s is there already: %w", s, fs.ErrExist)
	}
	return s.readOnly()
}

func (s envSource) Replace(context.Context, []byte) error { return s.readOnly() }

func (s envSource) readOnly() error {
	return fmt.Errorf("%s: %w: change it in a file, and set the variable to that file's content", s, ErrReadOnly)
}

// unchanged tells whether what is stored is still what was read.
func (s *Store) unchanged(ctx context.Context, was []byte) error {
	now, err := s.read(ctx)
	if err != nil {
		return err
	}
	defer clear(now)
	if !bytes.Equal(now, was) {
		return fmt.Errorf("%s was changed by somebody else at the same time, and was left as it is: run the command again", s.source)
	}
	return nil
}

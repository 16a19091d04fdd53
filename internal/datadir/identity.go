package datadir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/keyquorum/keyquorum/internal/plainfile"
)

// Format is the format of the directory that this build writes, and the highest that it reads.
const Format = 1

const tmpSuffix = ".tmp"

// maxIdentity bounds what is read of node.json.
const maxIdentity = 64 << 10

// identity is the content of node.json.
type identity struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// Store says that the store has been made.
	Store bool `json:"store"`
	// KeyringProof is what a keyring of one master key gave at the first start; KeyringProofs have taken its place.
	KeyringProof []byte `json:"keyringProof,omitempty"`
	// KeyringProofs has what the keyring gave, by the ids of its master keys; nil before the first start.
	KeyringProofs map[uint32][]byte `json:"keyringProofs,omitempty"`
	// Checksum is the CRC-64/ECMA, in hexadecimal, of the compact JSON of all else.
	Checksum string `json:"checksum"`
}

func (i identity) sum() (string, error) {
	i.Checksum = ""
	b, err := json.Marshal(i)
	return fmt.Sprintf("%016x", crc64.Checksum(b, crc64.MakeTable(crc64.ECMA))), err
}

// readIdentity reads and checks node.json. The error wraps fs.ErrNotExist where there is none.
func readIdentity(path string) (identity, error) {
	f, err := openOwn(path, os.O_RDONLY)
	if err != nil {
		return identity{}, fmt.Errorf("it cannot be read: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIdentity))
	if err != nil {
		return identity{}, fmt.Errorf("it cannot be read: %w", err)
	}
	id, err := parseIdentity(b)
	if err != nil && !errors.Is(err, ErrFormat) {
		return identity{}, fmt.Errorf("it is %w: %s: %w: put a good copy back, or empty the directory and let this member join "+
			"anew, as a new member", ErrDamaged, identityFile, err)
	}
	return id, err
}

// parseIdentity looks at the format before anything that a newer one may have changed.
func parseIdentity(b []byte) (identity, error) {
	var only struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &only); err != nil {
		return identity{}, err
	}
	if only.Format > Format {
		return identity{}, fmt.Errorf("it is %w: %d, and this version reads up to %d: start the version that wrote it, or a later one",
			ErrFormat, only.Format, Format)
	}
	var id identity
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&id); err != nil {
		return identity{}, err
	}
	return id, id.check()
}

func (i identity) check() error {
	sum, err := i.sum()
	switch {
	case err != nil:
		return err
	case sum != i.Checksum:
		return errors.New("its checksum does not match")
	case i.Format < 1:
		return fmt.Errorf("there is no format %d", i.Format)
	}
	_, err = uuid.Parse(i.ID)
	return err
}

// save replaces node.json, durably and whole.
func (d *Dir) save(id identity) error {
	var err error
	if id.Checksum, err = id.sum(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	if err := replace(d.file(identityFile), append(b, '\n')); err != nil {
		return fmt.Errorf("%s cannot be written: %w", identityFile, err)
	}
	d.id = id
	return nil
}

// replace puts b into the file at path: after a crash it has b or what it had before.
func replace(path string, b []byte) error {
	tmp := path + tmpSuffix
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) { // what a crash left
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return plainfile.Sync(filepath.Dir(path))
}

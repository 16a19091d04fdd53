// Package secret has the types that hold secrets in the open. They cannot be printed, logged, marshalled
// or compared in variable time by accident: every way that fmt, encoding and slog offer gives a fixed text or an error,
// and == does not compile.
package secret

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
)

// KeySize is the length of a user's signing key in bytes: the output of HMAC-SHA-256 (RFC 7518, 3.2).
const KeySize = 32

const redacted = "[secret]"

var errMarshal = errors.New("secret: key material cannot be marshalled")

// Key is one user's signing key in the open. Its owner calls Wipe when done with it; copies of a Key share the
// material. The zero Key has none. It is not safe for concurrent use with Wipe.
type Key struct {
	_ [0]func() // not to be compared with ==: use Equal
	// Two pointers away, as fmt follows one even where it can call no method, in an unexported field of another
	// struct with a verb that does not fit ("%s").
	m *material
}

type material struct{ b *[KeySize]byte }

// NewKey copies b, which must have KeySize bytes.
func NewKey(b []byte) (*Key, error) {
	return Own(append(make([]byte, 0, KeySize), b...))
}

// Own makes b itself, which must have KeySize bytes, the material of a key. The caller keeps no use of it.
func Own(b []byte) (*Key, error) {
	if len(b) != KeySize {
		return nil, fmt.Errorf("secret: a key has %d bytes, not %d", KeySize, len(b))
	}
	both := &struct {
		k Key
		m material
	}{m: material{(*[KeySize]byte)(b)}}
	both.k.m = &both.m
	return &both.k, nil
}

// Bytes gives the material itself, shared with the key: it is for cryptographic calls only, and not to be kept.
// It is nil for the zero Key.
func (k *Key) Bytes() []byte {
	if k == nil || k.m == nil {
		return nil
	}
	return k.m.b[:]
}

// Wipe overwrites the material.
func (k *Key) Wipe() { clear(k.Bytes()) }

// Equal compares in constant time.
func (k *Key) Equal(other *Key) bool {
	return subtle.ConstantTimeCompare(k.Bytes(), other.Bytes()) == 1
}

func (Key) String() string                 { return redacted }
func (Key) GoString() string               { return redacted }
func (Key) Format(s fmt.State, _ rune)     { _, _ = s.Write([]byte(redacted)) }
func (Key) LogValue() slog.Value           { return slog.StringValue(redacted) }
func (Key) MarshalText() ([]byte, error)   { return nil, errMarshal }
func (Key) MarshalJSON() ([]byte, error)   { return nil, errMarshal }
func (Key) MarshalBinary() ([]byte, error) { return nil, errMarshal }
func (Key) GobEncode() ([]byte, error)     { return nil, errMarshal }

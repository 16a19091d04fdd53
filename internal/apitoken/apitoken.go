// Package apitoken has the form of the API tokens by which callers without a certificate are known.
//
// A token is "kq_ID_SECRET": the id finds what the cluster keeps of it, and the secret, 256 random bits, proves it. The
// cluster keeps a hash alone. As the secret is not chosen by anybody, a plain SHA-256 cannot be searched for it.
package apitoken

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
)

const (
	prefix = "kq_"
	idLen  = 16 // in letters and digits, of 5 bits each
	// Len is the length of a token in bytes.
	Len = len(prefix) + idLen + 1 + 43
)

// Hash is what is kept of a token.
type Hash [sha256.Size]byte

// New makes a token. Its text is for the one who asked, once; nothing keeps it.
func New() (id, text string, hash Hash) {
	id = strings.ToLower(rand.Text()[:idLen])
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails: crypto/rand
	text = prefix + id + "_" + encoding.EncodeToString(random)
	clear(random)
	return id, text, hashOf(text)
}

var encoding = base64.RawURLEncoding.Strict()

// hashOf binds the id as well as the secret.
func hashOf(text string) Hash { return sha256.Sum256([]byte("keyquorum api token\x00" + text)) }

// Parse takes a token apart; ok is false for what cannot be one.
func Parse(text string) (id string, hash Hash, ok bool) {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok || len(text) != Len || rest[idLen] != '_' || !isID(rest[:idLen]) {
		return "", Hash{}, false
	}
	if _, err := encoding.DecodeString(rest[idLen+1:]); err != nil {
		return "", Hash{}, false
	}
	return rest[:idLen], hashOf(text), true
}

// Equal compares in constant time.
func (h Hash) Equal(kept []byte) bool { return subtle.ConstantTimeCompare(h[:], kept) == 1 }

func isID(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

// IsID tells whether s can be the id of a token.
func IsID(s string) bool { return len(s) == idLen && isID(s) }

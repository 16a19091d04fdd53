package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"time"

	"golang.org/x/crypto/argon2"
)

const (
	// atATime bounds the memory that checking passwords takes: 19 MiB each.
	atATime = 4
	// patience is how long a check waits for its turn.
	patience = 2 * time.Second
)

// users are who may log in. A real application has a user store, which keeps the hashes; here there are two users, whose
// passwords are new each time.
type users struct {
	hashes map[string]hash
	// nobody is what an unknown name is checked against, so that it takes as long as a known one.
	nobody hash
	turns  chan struct{}
}

// newUsers takes passwords by name. A name has no slash: what follows one in a subject is the device.
func newUsers(passwords map[string]string) *users {
	u := &users{hashes: make(map[string]hash), nobody: newHash(rand.Text()), turns: make(chan struct{}, atATime)}
	for name, password := range passwords {
		u.hashes[name] = newHash(password)
	}
	return u
}

// check tells whether that is the user's password. It fails where there is no turn for it.
func (u *users) check(ctx context.Context, name, password string) (bool, error) {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case u.turns <- struct{}{}:
		defer func() { <-u.turns }()
	case <-waiting.Done():
		return false, errors.New("too many passwords to check")
	}
	h, known := u.hashes[name]
	if !known {
		h = u.nobody
	}
	return h.matches(password) && known, nil
}

// hash is what is kept of a password.
type hash struct{ salt, sum []byte }

func newHash(password string) hash {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	return hash{salt, sumOf(password, salt)}
}

func (h hash) matches(password string) bool {
	return subtle.ConstantTimeCompare(sumOf(password, h.salt), h.sum) == 1
}

// sumOf is argon2id, with the least passes and memory that OWASP recommends.
func sumOf(password string, salt []byte) []byte {
	return argon2.IDKey([]byte(password), salt, 2, 19<<10, 1, 32)
}

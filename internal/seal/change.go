package seal

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"slices"

	"github.com/keyquorum/keyquorum/internal/fault"
)

// Change is what tells two keyrings of one cluster apart: the ids of master keys.
type Change struct{ Added, Dropped []uint32 }

// Empty tells whether nothing has changed.
func (c Change) Empty() bool { return len(c.Added)+len(c.Dropped) == 0 }

// Compare tells what would change if k took what next has, or why it must not: next has another gossip key, so it is no
// later version of k; it has another key under an id of k's; or it lacks a key that is needed still. The error wraps
// fault.ErrKeyring.
func (k *Keyring) Compare(next *Keyring, needed func(id uint32) bool) (Change, error) {
	if subtle.ConstantTimeCompare(k.c.gossip[:], next.c.gossip[:]) != 1 {
		return Change{}, fmt.Errorf("%w: its gossip key is another one, so it was not made from the one that this node started with", fault.ErrKeyring)
	}
	var c Change
	for _, id := range k.IDs() {
		switch {
		case next.Has(id):
			if err := k.sameKey(id, next); err != nil {
				return Change{}, err
			}
		case needed(id):
			return Change{}, fmt.Errorf("%w: master key %d is gone from it, and has not been retired", fault.ErrKeyring, id)
		default:
			c.Dropped = append(c.Dropped, id)
		}
	}
	for _, id := range next.IDs() {
		if !k.Has(id) {
			c.Added = append(c.Added, id)
		}
	}
	return c, nil
}

// sameKey wants the master key with the id to be the same in both.
func (k *Keyring) sameKey(id uint32, next *Keyring) error {
	proof, err := next.ProveUnder(id, "compare", "")
	if err != nil {
		return err
	}
	if err := k.CheckProof("compare", "", proof); err != nil {
		return fmt.Errorf("%w: its master key %d is another one than this node's", fault.ErrKeyring, id)
	}
	return nil
}

// Take has k hold the master keys of next, once Compare found no fault with that. Subkeys that were derived stay.
func (k *Keyring) Take(next *Keyring) {
	mine, theirs := k.c.masters.Load(), next.c.masters.Load()
	taken := &masters{primary: theirs.primary, keys: slices.Clone(theirs.keys)}
	for i := range taken.keys {
		if m := mine.find(taken.keys[i].id); m != nil {
			taken.keys[i] = *m
		}
	}
	k.c.masters.Store(taken)
}

// Clone gives a keyring that holds the same, and takes nothing when k does.
func (k *Keyring) Clone() *Keyring {
	gossip := [GossipKeySize]byte(bytes.Clone(k.c.gossip[:]))
	return withMasters(k.c.masters.Load(), &gossip)
}

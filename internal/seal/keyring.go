// Package seal keeps users' signing keys closed wherever they rest or travel: it makes them, seals them under the
// cluster's master keyring, and opens them for the moment of a signature. Whoever holds sealed keys without the
// keyring holds nothing; whoever loses the keyring has lost every key.
//
// Sealing is AES-256-GCM through Tink. What a key is for is authenticated with it, so that a sealed key moved to
// another user or another key id does not open. Nonces are random, so one AES-GCM key is good for 2^32 sealings (NIST
// SP 800-38D, 8.3), which a thousand new keys a second use up in 49 days. So a master key does not seal by itself:
// 4096 subkeys are derived from it, and a key's random id bits choose among them. That makes 2^44 sealings, 500 years.
package seal

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/keyderivation/prfbasedkeyderivation"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf/hkdfprf"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/secret"
)

// GossipKeySize is the length of the gossip key in bytes: AES-256.
const GossipKeySize = 32

// ErrDamaged says that sealed bytes name a master key that the keyring holds, and still do not open: they were
// changed, or they belong to another user or key id.
var ErrDamaged = errors.New("the sealed key is damaged or not of this user")

// Keyring is the cluster's master keyring: one or more master keys, of which each opens what it sealed, and the gossip
// key. Which of them seals is up to the caller, as all members have to agree; until they have, it is the primary of the
// stored form. It cannot be printed, marshalled or compared with ==. It is safe for concurrent use.
type Keyring struct {
	_ [0]func()
	// A pointer to what holds more pointers, for the reason that secret.Key has.
	c *contents
}

type contents struct {
	// masters is replaced, never changed.
	masters atomic.Pointer[masters]
	gossip  *[GossipKeySize]byte
}

// masters are the master keys, in the order of the stored form: the newest is the last.
type masters struct {
	primary uint32
	keys    []master
}

type master struct {
	id uint32
	*subkeys
}

// MaxKeys is how many master keys a keyring can have: each takes memory for the subkeys that were used.
const MaxKeys = 32

// NewKeyring makes a fresh keyring in memory only: what is sealed under it is lost with the process.
func NewKeyring() (*Keyring, error) {
	handle, err := newMasterKey()
	if err != nil {
		return nil, err
	}
	gossip := new([GossipKeySize]byte)
	fill(gossip[:])
	return newKeyring(handle, gossip)
}

// WithNewKey gives a keyring in memory that has one more master key than k, as Store.Rotate makes it. It is for tests, and
// for clusters in one process.
func (k *Keyring) WithNewKey() (*Keyring, error) {
	other, err := NewKeyring()
	if err != nil {
		return nil, err
	}
	mine, added := k.c.masters.Load(), other.c.masters.Load().keys[0]
	if mine.find(added.id) != nil {
		return k.WithNewKey() // one in four thousand million
	}
	return withMasters(&masters{primary: mine.primary, keys: append(slices.Clip(mine.keys), added)}, k.c.gossip), nil
}

// WithoutKey gives a keyring in memory that lacks a master key that k has, as Store.Drop makes it.
func (k *Keyring) WithoutKey(id uint32) *Keyring {
	next := &masters{primary: k.Primary()}
	for _, m := range k.c.masters.Load().keys {
		if m.id != id {
			next.keys = append(next.keys, m)
		}
	}
	if n := len(next.keys); n > 0 && next.primary == id {
		next.primary = next.keys[n-1].id
	}
	return withMasters(next, k.c.gossip)
}

func withMasters(m *masters, gossip *[GossipKeySize]byte) *Keyring {
	c := &contents{gossip: gossip}
	c.masters.Store(m)
	return &Keyring{c: c}
}

func newKeyring(handle *keyset.Handle, gossip *[GossipKeySize]byte) (*Keyring, error) {
	if handle.Len() > MaxKeys {
		return nil, fmt.Errorf("its keyset has %d keys, and can have %d", handle.Len(), MaxKeys)
	}
	primary, err := handle.Primary()
	if err != nil {
		return nil, errors.New("its keyset has no primary key")
	}
	m := &masters{primary: primary.KeyID()}
	for i := range handle.Len() {
		entry, err := handle.Entry(i)
		if err != nil {
			return nil, errors.New("its keyset is damaged")
		}
		if !derivesAES256GCM(entry) {
			return nil, errors.New("its keyset holds a key that is not one of HKDF-SHA-256 for AES-256-GCM with a Tink prefix: " +
				"what a keyquorum of before 0.1.0 made cannot be carried over")
		}
		if entry.KeyStatus() != keyset.Enabled {
			continue
		}
		subkeys, err := newSubkeys(entry)
		if err != nil {
			return nil, err
		}
		m.keys = append(m.keys, master{entry.KeyID(), subkeys})
	}
	return withMasters(m, gossip), nil
}

// find gives the master key with the id; nil if there is none. There are few.
func (m *masters) find(id uint32) *master {
	for i := range m.keys {
		if m.keys[i].id == id {
			return &m.keys[i]
		}
	}
	return nil
}

func derivesAES256GCM(entry *keyset.Entry) bool {
	params, ok := entry.Key().Parameters().(*prfbasedkeyderivation.Parameters)
	if !ok {
		return false
	}
	from, ok := params.PRFParameters().(*hkdfprf.Parameters)
	if !ok || from.HashType() != hkdfprf.SHA256 {
		return false
	}
	to, ok := params.DerivedKeyParameters().(*aesgcm.Parameters)
	return ok && to.KeySizeInBytes() == 32 && to.Variant() == aesgcm.VariantTink
}

// Primary gives the id of the master key that the stored form says to seal under.
func (k *Keyring) Primary() uint32 { return k.c.masters.Load().primary }

// IDs gives the ids of all master keys, the newest last. They are no secret.
func (k *Keyring) IDs() []uint32 {
	var ids []uint32
	for _, m := range k.c.masters.Load().keys {
		ids = append(ids, m.id)
	}
	return ids
}

// Has tells whether there is a master key with the id.
func (k *Keyring) Has(id uint32) bool { return k.c.masters.Load().find(id) != nil }

// NewKey makes a key for subject under the primary master key, as NewKeyUnder does.
func (k *Keyring) NewKey(subject string) (random uint64, sealed []byte, err error) {
	return k.NewKeyUnder(k.Primary(), subject)
}

// NewKeyUnder makes a key for subject: the random bits of its id and its material, already sealed under the master key
// with the id. Another call gives another key; nothing is kept.
func (k *Keyring) NewKeyUnder(id uint32, subject string) (random uint64, sealed []byte, err error) {
	var bits [8]byte
	fill(bits[:])
	random = binary.BigEndian.Uint64(bits[:])
	var material [secret.KeySize]byte
	defer clear(material[:])
	fill(material[:])
	sealed, err = k.seal(id, material[:], binding{kind: kindUserKey, name: subject, random: random})
	if err != nil {
		return 0, nil, fmt.Errorf("sealing a key: %w", err)
	}
	return random, sealed, nil
}

// Reseal gives the same key of subject's, sealed under the master key with the id. Its errors are those of Open.
func (k *Keyring) Reseal(id uint32, subject string, random uint64, sealed []byte) ([]byte, error) {
	key, err := k.Open(subject, random, sealed)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	again, err := k.seal(id, key.Bytes(), binding{kind: kindUserKey, name: subject, random: random})
	if err != nil {
		return nil, fmt.Errorf("sealing a key anew: %w", err)
	}
	return again, nil
}

// Open gives the material of a key that NewKey sealed for the same subject and random bits, under whichever of
// this keyring's master keys. The caller wipes it. An error wraps fault.ErrKeyring if the key was sealed under a
// master key that this keyring lacks, else ErrDamaged.
func (k *Keyring) Open(subject string, random uint64, sealed []byte) (*secret.Key, error) {
	material, err := k.open(sealed, binding{kind: kindUserKey, name: subject, random: random})
	if err != nil {
		return nil, fmt.Errorf("opening a sealed key: %w", err)
	}
	key, err := secret.Own(material)
	if err != nil {
		clear(material)
		return nil, fmt.Errorf("opening a sealed key: %w", ErrDamaged)
	}
	return key, nil
}

// proofText is what a proof seals. It is no secret; that it opens is the proof.
var proofText = []byte("keyquorum: the same keyring")

// Prove gives a proof that its maker holds this keyring, for one purpose and text; CheckProof checks it. A proof
// can be repeated by whoever sees it: where that matters, text holds the other side's fresh random bytes.
func (k *Keyring) Prove(purpose, text string) ([]byte, error) {
	return k.ProveUnder(k.Primary(), purpose, text)
}

// ProveUnder is Prove with the master key with the id, which whoever checks the proof then needs.
func (k *Keyring) ProveUnder(id uint32, purpose, text string) ([]byte, error) {
	proof, err := k.seal(id, proofText, binding{kind: kindProof, name: purpose, text: text})
	if err != nil {
		return nil, fmt.Errorf("proving the keyring: %w", err)
	}
	return proof, nil
}

// CheckProof tells whether proof was made with a key of this keyring for the same purpose and text. The error
// wraps fault.ErrKeyring and says what to do.
func (k *Keyring) CheckProof(purpose, text string, proof []byte) error {
	opened, err := k.open(proof, binding{kind: kindProof, name: purpose, text: text})
	if err == nil && subtle.ConstantTimeCompare(opened, proofText) == 1 {
		return nil
	}
	const advice = `give every member the same keyring, as it is now: "keyquorum keyring init" made it, and "keyquorum keyring rotate" adds to it`
	if errors.Is(err, fault.ErrKeyring) {
		return fmt.Errorf("%w; %s", err, advice)
	}
	return fmt.Errorf("%w: its proof of %q does not open; %s", fault.ErrKeyring, purpose, advice)
}

// GossipKey gives a copy of the 32 bytes that encrypt gossip.
func (k *Keyring) GossipKey() []byte { return bytes.Clone(k.c.gossip[:]) }

func (k *Keyring) seal(id uint32, plain []byte, b binding) ([]byte, error) {
	m := k.c.masters.Load().find(id)
	if m == nil {
		return nil, lacks(id)
	}
	sub, err := m.of(b)
	if err != nil {
		return nil, err
	}
	buf := bindings.Get().(*[]byte)
	defer bindings.Put(buf)
	*buf = b.appendTo((*buf)[:0])
	return sub.Encrypt(plain, *buf)
}

// open takes the master key that the sealed text names: one byte of 1, then the id, which is the prefix that Tink writes.
func (k *Keyring) open(sealed []byte, b binding) ([]byte, error) {
	if len(sealed) < 5 || sealed[0] != 1 {
		return nil, ErrDamaged
	}
	id := binary.BigEndian.Uint32(sealed[1:5])
	m := k.c.masters.Load().find(id)
	if m == nil {
		return nil, lacks(id)
	}
	sub, err := m.of(b)
	if err != nil {
		return nil, err
	}
	buf := bindings.Get().(*[]byte)
	defer bindings.Put(buf)
	*buf = b.appendTo((*buf)[:0])
	plain, err := sub.Decrypt(sealed, *buf)
	if err != nil {
		return nil, ErrDamaged
	}
	return plain, nil
}

func lacks(id uint32) error { return fmt.Errorf("%w: it lacks master key %d", fault.ErrKeyring, id) }

// fill never fails: crypto/rand ends the process instead.
func fill(b []byte) { _, _ = rand.Read(b) }

const redacted = "[keyring]"

var errMarshal = errors.New("seal: a keyring cannot be marshalled")

func (Keyring) String() string                 { return redacted }
func (Keyring) GoString() string               { return redacted }
func (Keyring) Format(s fmt.State, _ rune)     { _, _ = s.Write([]byte(redacted)) }
func (Keyring) LogValue() slog.Value           { return slog.StringValue(redacted) }
func (Keyring) MarshalText() ([]byte, error)   { return nil, errMarshal }
func (Keyring) MarshalJSON() ([]byte, error)   { return nil, errMarshal }
func (Keyring) MarshalBinary() ([]byte, error) { return nil, errMarshal }
func (Keyring) GobEncode() ([]byte, error)     { return nil, errMarshal }

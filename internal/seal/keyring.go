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

// Keyring is the cluster's master keyring: one primary key that seals, older ones that still open, and the gossip
// key. It cannot be printed or marshalled. It is safe for concurrent use.
type Keyring struct {
	// A pointer to what holds more pointers, for the reason that secret.Key has.
	c *contents
}

type contents struct {
	subkeys *subkeys
	ids     []uint32
	gossip  *[GossipKeySize]byte
}

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

func newKeyring(handle *keyset.Handle, gossip *[GossipKeySize]byte) (*Keyring, error) {
	ids, err := enabledIDs(handle)
	if err != nil {
		return nil, err
	}
	subkeys, err := newSubkeys(handle)
	if err != nil {
		return nil, err
	}
	return &Keyring{&contents{subkeys: subkeys, ids: ids, gossip: gossip}}, nil
}

// enabledIDs gives the ids of the keys that open, after making sure that all are of the one kind used here.
func enabledIDs(handle *keyset.Handle) ([]uint32, error) {
	var ids []uint32
	for i := range handle.Len() {
		entry, err := handle.Entry(i)
		if err != nil {
			return nil, errors.New("its keyset is damaged")
		}
		if !derivesAES256GCM(entry) {
			return nil, errors.New("its keyset holds a key that is not one of HKDF-SHA-256 for AES-256-GCM with a Tink prefix: " +
				"what a keyquorum of before 0.1.0 made cannot be carried over")
		}
		if entry.KeyStatus() == keyset.Enabled {
			ids = append(ids, entry.KeyID())
		}
	}
	return ids, nil
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

// NewKey makes a key for subject: the random bits of its id and its material, already sealed under the primary
// key. Another call gives another key; nothing is kept.
func (k *Keyring) NewKey(subject string) (random uint64, sealed []byte, err error) {
	var bits [8]byte
	fill(bits[:])
	random = binary.BigEndian.Uint64(bits[:])
	var material [secret.KeySize]byte
	defer clear(material[:])
	fill(material[:])
	sealed, err = k.seal(material[:], binding{kind: kindUserKey, name: subject, random: random})
	if err != nil {
		return 0, nil, fmt.Errorf("sealing a key: %w", err)
	}
	return random, sealed, nil
}

// Open gives the material of a key that NewKey sealed for the same subject and random bits, under this keyring's
// primary key or an older one. The caller wipes it. An error wraps fault.ErrKeyring if the key was sealed under a
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
	proof, err := k.seal(proofText, binding{kind: kindProof, name: purpose, text: text})
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
	const advice = `give every member the same keyring, the one made once with "keyquorum keyring init"`
	if errors.Is(err, fault.ErrKeyring) {
		return fmt.Errorf("%w; %s", err, advice)
	}
	return fmt.Errorf("%w: its proof of %q does not open; %s", fault.ErrKeyring, purpose, advice)
}

// GossipKey gives a copy of the 32 bytes that encrypt gossip.
func (k *Keyring) GossipKey() []byte { return bytes.Clone(k.c.gossip[:]) }

func (k *Keyring) seal(plain []byte, b binding) ([]byte, error) {
	sub, err := k.c.subkeys.of(b)
	if err != nil {
		return nil, err
	}
	buf := bindings.Get().(*[]byte)
	defer bindings.Put(buf)
	*buf = b.appendTo((*buf)[:0])
	return sub.Encrypt(plain, *buf)
}

func (k *Keyring) open(sealed []byte, b binding) ([]byte, error) {
	sub, err := k.c.subkeys.of(b)
	if err != nil {
		return nil, err
	}
	buf := bindings.Get().(*[]byte)
	defer bindings.Put(buf)
	*buf = b.appendTo((*buf)[:0])
	plain, err := sub.Decrypt(sealed, *buf)
	if err != nil {
		return nil, k.explain(sealed)
	}
	return plain, nil
}

// explain tells a keyring that lacks the key from bytes that are damaged, by the key id that Tink puts in front:
// one byte of 1, then the id.
func (k *Keyring) explain(sealed []byte) error {
	if len(sealed) < 5 || sealed[0] != 1 {
		return ErrDamaged
	}
	id := binary.BigEndian.Uint32(sealed[1:5])
	if slices.Contains(k.c.ids, id) {
		return ErrDamaged
	}
	return fmt.Errorf("%w: it lacks master key %d", fault.ErrKeyring, id)
}

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

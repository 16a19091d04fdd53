package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyderivation"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// subkeyBits is how many of a key id's random bits choose the subkey that seals the key. More would allow more
// sealings, and take more memory: a subkey in use takes 1.3 KiB for each master key.
const subkeyBits = 12

// subkeyContext begins what a subkey is derived for. It is a format: another one gives other subkeys.
const subkeyContext = "keyquorum seal 1"

// masterKeyTemplate is a key of HKDF-SHA-256 from which Tink derives AES-256-GCM keys with a Tink prefix.
func masterKeyTemplate() (*tinkpb.KeyTemplate, error) {
	return keyderivation.CreatePRFBasedKeyTemplate(prf.HKDFSHA256PRFKeyTemplate(), aead.AES256GCMKeyTemplate())
}

func newMasterKey() (*keyset.Handle, error) {
	template, err := masterKeyTemplate()
	if err != nil {
		return nil, fmt.Errorf("making a master key: %w", err)
	}
	handle, err := keyset.NewHandle(template)
	if err != nil {
		return nil, fmt.Errorf("making a master key: %w", err)
	}
	return handle, nil
}

// subkeys are the AES-256-GCM keys that seal under one master key, each derived from it when it is first asked for and
// then kept: those of users' keys, and one more for proofs, so that no number of proofs wears out what seals keys.
type subkeys struct {
	deriver keyderivation.KeysetDeriver
	made    [1<<subkeyBits + 1]atomic.Pointer[subkey]
}

type subkey struct{ tink.AEAD }

// newSubkeys makes those of one master key.
func newSubkeys(entry *keyset.Entry) (*subkeys, error) {
	alone := keyset.NewManager()
	id, err := alone.AddKey(entry.Key())
	if err == nil {
		err = alone.SetPrimary(id)
	}
	if err != nil {
		return nil, errors.New("its keyset is damaged")
	}
	handle, err := alone.Handle()
	if err != nil {
		return nil, errors.New("its keyset is damaged")
	}
	deriver, err := keyderivation.New(handle)
	if err != nil {
		return nil, errors.New("its keyset derives no keys")
	}
	s := &subkeys{deriver: deriver}
	// The first use shows whether the others will work.
	_, err = s.of(binding{kind: kindProof})
	return s, err
}

// of gives the subkey for what b describes.
func (s *subkeys) of(b binding) (*subkey, error) {
	slot := &s.made[b.subkey()]
	if k := slot.Load(); k != nil {
		return k, nil
	}
	k, err := s.derive(b.subkey())
	if err == nil {
		slot.Store(k)
	}
	return k, err
}

// derive makes the subkey of a number: subkeyContext and the number (2 bytes) are what Tink calls the salt, and HKDF
// the info.
func (s *subkeys) derive(number int) (*subkey, error) {
	handle, err := s.deriver.DeriveKeyset(binary.BigEndian.AppendUint16([]byte(subkeyContext), uint16(number)))
	if err != nil {
		return nil, errors.New("its keyset derives no keys")
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, errors.New("its keyset gives no AEAD")
	}
	return &subkey{primitive}, nil
}

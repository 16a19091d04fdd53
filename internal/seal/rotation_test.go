package seal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyderivation"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"

	"github.com/keyquorum/keyquorum/internal/fault"
)

// ringFile stores what manager holds as a keyring and loads it again.
func ringFile(t *testing.T, manager *keyset.Manager) *Keyring {
	t.Helper()
	handle, err := manager.Handle()
	if err != nil {
		t.Fatal(err)
	}
	b, err := encode(handle, make([]byte, GossipKeySize))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keyring")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	ring, err := File(path).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func addKey(t *testing.T, manager *keyset.Manager, primary bool) uint32 {
	t.Helper()
	template, err := masterKeyTemplate()
	if err != nil {
		t.Fatal(err)
	}
	id, err := manager.Add(template)
	if err != nil {
		t.Fatal(err)
	}
	if primary {
		if err := manager.SetPrimary(id); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

func TestOlderKeysOpenWhatTheySealed(t *testing.T) {
	manager := keyset.NewManager()
	first := addKey(t, manager, true)
	before := ringFile(t, manager)
	random, sealed, err := before.NewKey("ada")
	if err != nil {
		t.Fatal(err)
	}
	proof, err := before.Prove("join", "text")
	if err != nil {
		t.Fatal(err)
	}

	addKey(t, manager, false)
	addKey(t, manager, true)
	after := ringFile(t, manager)
	if _, err := after.Open("ada", random, sealed); err != nil {
		t.Errorf("sealed under a key that is no longer primary: %v", err)
	}
	if err := after.CheckProof("join", "text", proof); err != nil {
		t.Errorf("proof of a key that is no longer primary: %v", err)
	}
	newRandom, newSealed, err := after.NewKey("ada")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := before.Open("ada", newRandom, newSealed); !errors.Is(err, fault.ErrKeyring) {
		t.Errorf("a keyring without the new primary: %v, want one that wraps ErrKeyring", err)
	}

	if err := manager.Disable(first); err != nil {
		t.Fatal(err)
	}
	retired := ringFile(t, manager)
	if _, err := retired.Open("ada", random, sealed); !errors.Is(err, fault.ErrKeyring) {
		t.Errorf("sealed under a disabled key: %v, want one that wraps ErrKeyring", err)
	}
	if _, err := retired.Open("ada", newRandom, newSealed); err != nil {
		t.Errorf("sealed under the primary: %v", err)
	}
}

func TestOnlyDerivedAES256GCMIsAccepted(t *testing.T) {
	derived := func(from, to *tinkpb.KeyTemplate) *tinkpb.KeyTemplate {
		template, err := keyderivation.CreatePRFBasedKeyTemplate(from, to)
		if err != nil {
			t.Fatal(err)
		}
		return template
	}
	hkdf := prf.HKDFSHA256PRFKeyTemplate()
	for name, template := range map[string]*tinkpb.KeyTemplate{
		"a shorter key":              derived(hkdf, aead.AES128GCMKeyTemplate()),
		"another cipher":             derived(hkdf, aead.XChaCha20Poly1305KeyTemplate()),
		"no prefix":                  derived(hkdf, aead.AES256GCMNoPrefixKeyTemplate()),
		"a key that seals by itself": aead.AES256GCMKeyTemplate(),
	} {
		handle, err := keyset.NewHandle(template)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newKeyring(handle, new([GossipKeySize]byte)); err == nil || !strings.Contains(err.Error(), "AES-256-GCM with a Tink prefix") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What one subkey sealed no other opens, so each has a count of sealings of its own.
func TestEachSubkeyIsAnother(t *testing.T) {
	ring, err := NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	bindings := []binding{{kind: kindProof}}
	for number := range uint64(1 << subkeyBits) {
		bindings = append(bindings, binding{kind: kindUserKey, random: number<<(64-subkeyBits) | 1})
	}
	seen := map[*subkey]bool{}
	for _, b := range bindings {
		sub, err := ring.c.masters.Load().keys[0].of(b)
		if err != nil {
			t.Fatal(err)
		}
		seen[sub] = true
	}
	if len(seen) != 1<<subkeyBits+1 {
		t.Errorf("%d subkeys for %d kinds of sealings", len(seen), len(bindings))
	}
	sealed, err := ring.c.masters.Load().keys[0].made[0].Load().Encrypt([]byte("text"), nil)
	if err != nil {
		t.Fatal(err)
	}
	opened := 0
	for sub := range seen {
		if _, err := sub.Decrypt(sealed, nil); err == nil {
			opened++
		}
	}
	if opened != 1 {
		t.Errorf("%d subkeys open what one has sealed", opened)
	}
}

// New keys are spread over the subkeys, whoever they are for.
func TestNewKeysUseAllSubkeysAlike(t *testing.T) {
	ring, err := NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	const keys, groups = 1600, 16
	var count [groups]int
	for range keys {
		random, _, err := ring.NewKey("ada")
		if err != nil {
			t.Fatal(err)
		}
		count[binding{kind: kindUserKey, random: random}.subkey()*groups>>subkeyBits]++
	}
	for i, n := range count {
		if n < keys/groups/4 || n > keys/groups*2 { // seven standard deviations and more
			t.Errorf("sixteenth %d of the subkeys sealed %d of %d keys", i, n, keys)
		}
	}
}

// No two bindings may be written alike, wherever a separator could be shifted.
func TestBindingsAreUnambiguous(t *testing.T) {
	seen := make(map[string]binding)
	for _, kind := range []byte{kindUserKey, kindProof} {
		for _, name := range []string{"", "a", "ab", "a\x00", "\x00", "\x00\x00\x00\x01a"} {
			for _, random := range []uint64{0, 1, 1 << 56} {
				for _, text := range []string{"", "a", "b", "\x00", "\x00\x00\x00\x00"} {
					b := binding{kind: kind, name: name, random: random, text: text}
					written := string(b.appendTo(nil))
					if other, twice := seen[written]; twice {
						t.Errorf("%+v and %+v are written alike", b, other)
					}
					seen[written] = b
				}
			}
		}
	}
}

// The associated data is a format: what it was when a key was sealed, it must be for ever.
func TestBindingFormat(t *testing.T) {
	got := binding{kind: kindUserKey, name: "ada", random: 0x0102030405060708}.appendTo(nil)
	const want = "\x01\x01\x00\x00\x00\x03ada\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x00"
	if string(got) != want {
		t.Errorf("a user key's binding is %q, want %q", got, want)
	}
}

package seal_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/internal/secret"
)

func newKeyring(t testing.TB) *seal.Keyring {
	t.Helper()
	k, err := seal.NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newKey(t testing.TB, k *seal.Keyring, subject string) (uint64, []byte) {
	t.Helper()
	random, sealed, err := k.NewKey(subject)
	if err != nil {
		t.Fatal(err)
	}
	return random, sealed
}

func TestSealedKeyOpens(t *testing.T) {
	ring := newKeyring(t)
	random, sealed := newKey(t, ring, "ada")
	first, err := ring.Open("ada", random, sealed)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ring.Open("ada", random, sealed)
	if err != nil {
		t.Fatal(err)
	}
	if !first.Equal(again) {
		t.Error("the same sealed key opened to two keys")
	}
	if bytes.Contains(sealed, first.Bytes()) || bytes.Equal(first.Bytes(), make([]byte, secret.KeySize)) {
		t.Error("the key is not sealed, or was never made")
	}
	first.Wipe()
	if third, err := ring.Open("ada", random, sealed); err != nil || !third.Equal(again) {
		t.Error("wiping an opened key spoilt the sealed one")
	}
}

func TestKeysDiffer(t *testing.T) {
	ring := newKeyring(t)
	seen := make(map[string]bool)
	for range 100 {
		random, sealed := newKey(t, ring, "ada")
		key, err := ring.Open("ada", random, sealed)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{fmt.Sprint(random), string(key.Bytes()), string(sealed)} {
			if seen[part] {
				t.Fatal("random bits, a key or a sealing came twice")
			}
			seen[part] = true
		}
	}
}

func TestSealedKeyIsBoundToItsUserAndID(t *testing.T) {
	ring := newKeyring(t)
	random, sealed := newKey(t, ring, "ada")
	for _, c := range []struct {
		subject string
		random  uint64
	}{{"eve", random}, {"", random}, {"ada\x00", random}, {"Ada", random}, {"ada", random + 1}, {"ada", 0}} {
		if _, err := ring.Open(c.subject, c.random, sealed); !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("opened as %q %d: %v, want ErrDamaged", c.subject, c.random, err)
		}
	}
}

func TestSealedKeyWithAnyByteChanged(t *testing.T) {
	ring := newKeyring(t)
	random, sealed := newKey(t, ring, "ada")
	for i := range sealed {
		for _, flip := range []byte{1, 0x80, 0xff} {
			bad := bytes.Clone(sealed)
			bad[i] ^= flip
			if _, err := ring.Open("ada", random, bad); err == nil {
				t.Fatalf("opened with byte %d changed", i)
			}
		}
	}
	for n := range sealed {
		if _, err := ring.Open("ada", random, sealed[:n]); err == nil {
			t.Fatalf("opened when cut to %d bytes", n)
		}
	}
	if _, err := ring.Open("ada", random, append(bytes.Clone(sealed), 0)); err == nil {
		t.Fatal("opened with a byte more")
	}
}

func TestOtherKeyringSaysSo(t *testing.T) {
	random, sealed := newKey(t, newKeyring(t), "ada")
	_, err := newKeyring(t).Open("ada", random, sealed)
	if !errors.Is(err, fault.ErrKeyring) {
		t.Errorf("Open under another keyring: %v, want one that wraps ErrKeyring", err)
	}
}

func TestProof(t *testing.T) {
	ring, other := newKeyring(t), newKeyring(t)
	proof, err := ring.Prove("join", "nonce")
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.CheckProof("join", "nonce", proof); err != nil {
		t.Errorf("own proof: %v", err)
	}
	damaged := bytes.Clone(proof)
	damaged[len(damaged)-1] ^= 1
	_, key := newKey(t, ring, "join")
	for name, err := range map[string]error{
		"other keyring":   other.CheckProof("join", "nonce", proof),
		"other purpose":   ring.CheckProof("found", "nonce", proof),
		"other text":      ring.CheckProof("join", "nonces", proof),
		"shifted":         ring.CheckProof("joinn", "once", proof),
		"damaged":         ring.CheckProof("join", "nonce", damaged),
		"empty":           ring.CheckProof("join", "nonce", nil),
		"a key, no proof": ring.CheckProof("join", "", key),
	} {
		if !errors.Is(err, fault.ErrKeyring) {
			t.Errorf("%s: %v, want one that wraps ErrKeyring", name, err)
		} else if !strings.Contains(err.Error(), "keyring init") {
			t.Errorf("%s: %q does not say what to do", name, err)
		}
	}
}

func TestGossipKey(t *testing.T) {
	ring := newKeyring(t)
	key := ring.GossipKey()
	if len(key) != seal.GossipKeySize || bytes.Equal(key, make([]byte, seal.GossipKeySize)) {
		t.Fatalf("a gossip key of %d bytes, or of zeros", len(key))
	}
	if bytes.Equal(key, newKeyring(t).GossipKey()) {
		t.Error("two keyrings share a gossip key")
	}
	clear(key)
	if bytes.Equal(key, ring.GossipKey()) {
		t.Error("the caller changed the keyring's gossip key")
	}
}

func TestKeyringPrintsNowhere(t *testing.T) {
	ring := newKeyring(t)
	key := ring.GossipKey()
	traces := []string{
		string(key[:4]), hex.EncodeToString(key[:3]), base64.StdEncoding.EncodeToString(key[:6]),
		strings.Trim(fmt.Sprint(key[:4]), "[]"), fmt.Sprintf("%#x, %#x", key[0], key[1]),
	}
	for name, v := range map[string]any{
		"pointer": ring, "value": *ring,
		"unexported field":   struct{ k seal.Keyring }{*ring},
		"unexported pointer": struct{ k *seal.Keyring }{ring},
		"pointer to struct":  &struct{ k seal.Keyring }{*ring},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			assertSilent(t, name+" "+verb, fmt.Sprintf(verb, v), traces)
		}
		var b bytes.Buffer
		slog.New(slog.NewTextHandler(&b, nil)).Info("m", "ring", v)
		slog.New(slog.NewJSONHandler(&b, nil)).Info("m", "ring", v)
		assertSilent(t, name+" slog", b.String(), traces)
	}
	if _, err := json.Marshal(ring); err == nil {
		t.Error("json marshals a keyring")
	}
	if gob.NewEncoder(new(bytes.Buffer)).Encode(ring) == nil {
		t.Error("gob encodes a keyring")
	}
}

func assertSilent(t *testing.T, how, text string, traces []string) {
	t.Helper()
	for _, trace := range traces {
		if strings.Contains(strings.ToLower(text), strings.ToLower(trace)) {
			t.Errorf("%s shows the gossip key: %q", how, text)
		}
	}
}

func TestKeyringIsNotComparable(t *testing.T) {
	if reflect.TypeFor[seal.Keyring]().Comparable() {
		t.Error("keyrings can be compared with ==")
	}
}

func TestKeyringServesManyAtOnce(t *testing.T) {
	ring := newKeyring(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			subject := strings.Repeat("x", 1+100*i)
			for range 50 {
				random, sealed, err := ring.NewKey(subject)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := ring.Open(subject, random, sealed); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkOpen opens one key, and many by turns, whose subkeys do not all stay near the processor.
func BenchmarkOpen(b *testing.B) {
	for name, count := range map[string]int{"one key": 1, "many keys": 1 << 14} {
		b.Run(name, func(b *testing.B) {
			ring := newKeyring(b)
			randoms, sealed := make([]uint64, count), make([][]byte, count)
			for i := range randoms {
				randoms[i], sealed[i] = newKey(b, ring, "ada.lovelace@example.org")
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				key, err := ring.Open("ada.lovelace@example.org", randoms[i], sealed[i])
				if err != nil {
					b.Fatal(err)
				}
				key.Wipe()
				i = (i + 1) % count
			}
		})
	}
}

func BenchmarkNewKey(b *testing.B) {
	ring := newKeyring(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ring.NewKey("ada.lovelace@example.org"); err != nil {
			b.Fatal(err)
		}
	}
}

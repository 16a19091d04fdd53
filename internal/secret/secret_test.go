package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/internal/secret"
)

// material is easy to find again in a text, in each of the ways that Go prints bytes.
var material = bytes.Repeat([]byte{0xa7}, secret.KeySize)

func newKey(t *testing.T) *secret.Key {
	t.Helper()
	k, err := secret.NewKey(material)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func assertSilent(t *testing.T, how, text string) {
	t.Helper()
	lower := strings.ToLower(text)
	for _, trace := range []string{string(material[:4]), hex.EncodeToString(material[:2]), "167 167", "0xa7", "167, 167", "167,167", `\xa7`, "p6en"} {
		if strings.Contains(lower, trace) {
			t.Errorf("%s shows the key: %q", how, text)
		}
	}
}

func TestKeyPrintsNowhere(t *testing.T) {
	k := newKey(t)
	type nest struct{ inner struct{ k secret.Key } }
	holders := map[string]any{
		"pointer":           k,
		"value":             *k,
		"exported field":    struct{ K secret.Key }{*k},
		"unexported field":  struct{ k secret.Key }{*k},
		"unexported ptr":    struct{ k *secret.Key }{k},
		"pointer to struct": &struct{ k secret.Key }{*k},
		"nested":            nest{struct{ k secret.Key }{*k}},
		"slice":             []*secret.Key{k},
		"map":               map[string]secret.Key{"a": *k},
		"error":             fmt.Errorf("failed with %v", k),
	}
	for name, v := range holders {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%U"} {
			assertSilent(t, name+" "+verb, fmt.Sprintf(verb, v))
		}
		assertSilent(t, name+" Sprint", fmt.Sprint(v))
		assertSilent(t, name+" slog text", logged(v, func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) }))
		assertSilent(t, name+" slog JSON", logged(v, func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) }))
	}
}

func logged(v any, handler func(*bytes.Buffer) slog.Handler) string {
	var b bytes.Buffer
	slog.New(handler(&b)).Info("message", "key", v)
	return b.String()
}

func TestKeyMarshalsNowhere(t *testing.T) {
	k := newKey(t)
	var b bytes.Buffer
	for how, marshal := range map[string]func(any) error{
		"json":   func(v any) error { return json.NewEncoder(&b).Encode(v) },
		"xml":    func(v any) error { return xml.NewEncoder(&b).Encode(v) },
		"gob":    func(v any) error { return gob.NewEncoder(&b).Encode(v) },
		"text":   func(any) error { _, err := k.MarshalText(); return err },
		"binary": func(any) error { _, err := k.MarshalBinary(); return err },
	} {
		for name, v := range map[string]any{"pointer": k, "value": *k, "field": struct{ K *secret.Key }{k}} {
			if marshal(v) == nil {
				t.Errorf("%s of a %s succeeded", how, name)
			}
		}
	}
	assertSilent(t, "what was written before the errors", b.String())
}

func TestNewKeyWantsItsLength(t *testing.T) {
	for _, n := range []int{0, 1, 31, 33, 64} {
		if _, err := secret.NewKey(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes was accepted", n)
		}
		if _, err := secret.Own(make([]byte, n)); err == nil {
			t.Errorf("owned a key of %d bytes", n)
		}
	}
}

func TestNewKeyCopiesAndOwnDoesNot(t *testing.T) {
	from := bytes.Clone(material)
	copied, err := secret.NewKey(from)
	if err != nil {
		t.Fatal(err)
	}
	owned, err := secret.Own(from)
	if err != nil {
		t.Fatal(err)
	}
	owned.Wipe()
	if !bytes.Equal(from, make([]byte, secret.KeySize)) {
		t.Error("wiping the owner left the material")
	}
	if !bytes.Equal(copied.Bytes(), material) {
		t.Error("the copy changed with its source")
	}
}

func TestWipe(t *testing.T) {
	k := newKey(t)
	b := k.Bytes()
	k.Wipe()
	if !bytes.Equal(b, make([]byte, secret.KeySize)) {
		t.Error("the material is still there")
	}
}

func TestEqual(t *testing.T) {
	k, other := newKey(t), newKey(t)
	if !k.Equal(other) {
		t.Error("the same material is unequal")
	}
	other.Bytes()[secret.KeySize-1] ^= 1
	if k.Equal(other) || k.Equal(new(secret.Key)) {
		t.Error("other material is equal")
	}
}

func TestZeroKeyHasNoMaterial(t *testing.T) {
	var zero secret.Key
	var none *secret.Key
	if zero.Bytes() != nil || none.Bytes() != nil {
		t.Error("a key without material has bytes")
	}
	zero.Wipe()
	none.Wipe()
}

package token

import (
	"encoding/base64"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// assertDecodes holds decodeString against the standard library's strict decoder, which only lets line breaks pass.
func assertDecodes(t interface{ Errorf(string, ...any) }, s string) {
	want, err := base64.RawURLEncoding.Strict().DecodeString(s)
	wantOK := err == nil && !strings.ContainsAny(s, "\r\n")
	got, ok := decodeString(s)
	if ok != wantOK || ok && got != string(want) {
		t.Errorf("decodeString(%q) = %q, %v; want %q, %v", s, got, ok, want, wantOK)
	}
}

func TestDecodeAllShortTexts(t *testing.T) {
	assertDecodes(t, "")
	for a := range 256 {
		assertDecodes(t, string([]byte{byte(a)}))
		for b := range 256 {
			last := []byte{byte(a), byte(b)}
			assertDecodes(t, string(last))
			assertDecodes(t, "A"+string(last))
			assertDecodes(t, string(last)+"AA")
			assertDecodes(t, "AA"+string(last))
			assertDecodes(t, "AAAA"+string(last))
		}
	}
}

func TestDecodeLongTexts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "bytes")
		s := base64.RawURLEncoding.EncodeToString(b)
		assertDecodes(t, s)
		at := rapid.IntRange(0, len(s)).Draw(t, "at")
		assertDecodes(t, s[:at]+rapid.StringN(0, 2, -1).Draw(t, "spoilt")+s[at:])
		assertDecodes(t, s[:at])
	})
}

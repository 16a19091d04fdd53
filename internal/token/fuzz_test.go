package token_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/internal/secret"
	"github.com/keyquorum/keyquorum/internal/token"
)

// FuzzVerify reads any text as a token, and any payload as one that was signed with the right key. Nothing panics;
// what is valid carries the key's MAC, reads the same for encoding/json, and signs again to the same claims.
func FuzzVerify(f *testing.F) {
	key := newKey(f, 'k')
	s := spec()
	f.Add(sign(f, s, key), valid().json())
	s.Audience, s.Claims = []string{"a", "b"}, map[string]any{"x": []any{1.0, nil, map[string]any{"y": "é\u2028"}}}
	f.Add(sign(f, s, newKey(f, 'o')), valid().with("x", `{"y":[1e3,-0.5,"\ud83d\ude00\/"]}`).json())
	f.Add("..", valid().with("aud", `["a","a"]`).json())
	f.Add(raw(f, head, valid().with("EXP", "1").json(), key), ` {"x" : tru , "sub":"\u0000"}`)
	f.Fuzz(func(t *testing.T, text, payload string) {
		for _, asked := range []string{"", "a"} {
			fuzzOne(t, text, asked, key)
			fuzzOne(t, raw(t, head, payload, key), asked, key)
		}
	})
}

func fuzzOne(t *testing.T, text, asked string, key *secret.Key) {
	var found bool
	c := check(key)
	c.Audience = asked
	c.Key = func(string, string) (*secret.Key, error) { found = true; return key, nil }
	v, reason, err := token.Verify(text, c)
	if err != nil {
		t.Fatal(err)
	}
	if reason == token.AudienceMismatch || reason == token.IssuerMismatch || reason == token.NotYetValid {
		assertMAC(t, text, key)
	}
	if reason != token.None {
		if !found && reason > token.KeyNotFound {
			t.Errorf("%v without a look at the key", reason)
		}
		return
	}
	assertMAC(t, text, key)
	assertSameForJSON(t, text, v)
	assertSignsAgain(t, v, v.Claims().AsMap(), c, key)
}

func assertMAC(t *testing.T, text string, key *secret.Key) {
	t.Helper()
	dot := strings.LastIndexByte(text, '.')
	mac := hmac.New(sha256.New, key.Bytes())
	mac.Write([]byte(text[:dot]))
	if text[dot+1:] != b64.EncodeToString(mac.Sum(nil)) {
		t.Fatal("accepted without the key's MAC")
	}
}

func assertSameForJSON(t *testing.T, text string, v token.Verified) {
	t.Helper()
	b, err := b64.DecodeString(strings.Split(text, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var read struct {
		Iss, Sub, Jti string
		Exp, Iat, Nbf int64
	}
	if err := json.Unmarshal(b, &read); err != nil {
		t.Fatalf("accepted what encoding/json does not read: %v", err)
	}
	if read.Iss != v.Issuer || read.Sub != v.Subject || read.Jti != v.ID || read.Exp != v.ExpiresAt.Unix() ||
		read.Iat != v.IssuedAt.Unix() || read.Nbf != v.NotBefore.Unix() {
		t.Errorf("encoding/json reads %+v, Verify %+v", read, v)
	}
	var claims map[string]any
	if err := json.Unmarshal(b, &claims); err != nil || !reflect.DeepEqual(claims, v.Claims().AsMap()) {
		t.Errorf("encoding/json reads %v (%v), Claims %v", claims, err, v.Claims())
	}
}

// assertSignsAgain makes a token of what one said. Where Sign has a limit that Verify need not have (the caller's own
// claims, the year of exp, iat other than nbf), it may refuse.
func assertSignsAgain(t *testing.T, v token.Verified, claims map[string]any, c token.Check, key *secret.Key) {
	t.Helper()
	own := make(map[string]any)
	maps.Copy(own, claims)
	for _, name := range []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"} {
		delete(own, name)
	}
	text, err := token.Sign(token.Spec{
		Issuer: v.Issuer, Subject: v.Subject, Audience: v.Audience, IssuedAt: v.IssuedAt,
		ExpiresAt: v.ExpiresAt, ID: v.ID, KeyID: v.KeyID, Claims: own,
	}, key)
	if err != nil {
		return
	}
	again, reason, err := token.Verify(text, c)
	if err != nil || reason != token.None {
		t.Fatalf("signed again: %v, %v", reason, err)
	}
	got := again.Claims().AsMap()
	got["nbf"], claims["nbf"] = nil, nil
	if list, ok := claims["aud"].([]any); ok && len(list) == 1 {
		claims["aud"] = list[0]
	}
	if !reflect.DeepEqual(got, claims) {
		t.Errorf("signed again says %v, was %v", got, claims)
	}
}

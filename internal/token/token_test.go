package token_test

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyquorum/keyquorum/internal/secret"
	"github.com/keyquorum/keyquorum/internal/token"
)

const (
	issuer = "keyquorum"
	user   = "ada@example.org"
	keyID  = "AAAAAAAAACoBAgMEBQYHCA"
	// head is the one header of tokens under keyID.
	head = `{"alg":"HS256","kid":"` + keyID + `","typ":"JWT"}`
)

var (
	b64    = base64.RawURLEncoding
	issued = time.Unix(1_800_000_000, 0)
	during = issued.Add(time.Minute)
)

func newKey(t testing.TB, fill byte) *secret.Key {
	t.Helper()
	key, err := secret.NewKey([]byte(strings.Repeat(string(rune(fill)), secret.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func spec() token.Spec {
	return token.Spec{
		Issuer: issuer, Subject: user, IssuedAt: issued, ExpiresAt: issued.Add(15 * time.Minute),
		ID: "c29tZSByYW5kb20gYml0cw", KeyID: keyID,
	}
}

func sign(t testing.TB, s token.Spec, key *secret.Key) string {
	t.Helper()
	raw, err := token.Sign(s, key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// check accepts what spec says, under key.
func check(key *secret.Key) token.Check {
	return token.Check{Now: during, Issuer: issuer, Key: only(key)}
}

// only knows one key.
func only(key *secret.Key) func(subject, id string) (*secret.Key, error) {
	return func(subject, id string) (*secret.Key, error) {
		if subject != user || id != keyID {
			return nil, nil
		}
		return key, nil
	}
}

// raw puts a token together from a header and a payload as they are, signed with key.
func raw(t testing.TB, header, payload string, key *secret.Key) string {
	t.Helper()
	signed := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(payload))
	mac, err := jwt.SigningMethodHS256.Sign(signed, key.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + b64.EncodeToString(mac)
}

// claims are the payload's members as JSON; with changes one, or drops it where the JSON is empty.
type claims map[string]string

func valid() claims {
	return claims{
		"iss": `"keyquorum"`, "sub": `"ada@example.org"`, "jti": `"id"`,
		"iat": "1800000000", "nbf": "1800000000", "exp": "1800000900",
	}
}

func (c claims) with(name, value string) claims {
	c = maps.Clone(c)
	if c[name] = value; value == "" {
		delete(c, name)
	}
	return c
}

func (c claims) json() string {
	var members []string
	for _, name := range slices.Sorted(maps.Keys(c)) {
		members = append(members, `"`+name+`":`+c[name])
	}
	return "{" + strings.Join(members, ",") + "}"
}

func verdict(t testing.TB, raw string, c token.Check) token.Reason {
	t.Helper()
	v, reason, err := token.Verify(raw, c)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	if reason != token.None && (v.Subject != "" || v.KeyID != "" || v.ID != "" || v.Audience != nil || !v.ExpiresAt.IsZero()) {
		t.Errorf("an invalid token's claims were returned: %+v", v)
	}
	return reason
}

func TestReasonNames(t *testing.T) {
	want := []string{
		"NONE", "MALFORMED", "EXPIRED", "KEY_NOT_FOUND", "SIGNATURE_INVALID", "NOT_YET_VALID",
		"ISSUER_MISMATCH", "AUDIENCE_MISMATCH", "UNKNOWN",
	}
	for i, name := range want {
		if got := token.Reason(i).String(); got != name {
			t.Errorf("reason %d is %q, want %q", i, got, name)
		}
	}
}

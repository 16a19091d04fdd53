package token_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/token"
)

// decodePart gives the JSON of a token's part.
func decodePart(t *testing.T, text string, part int) string {
	t.Helper()
	b, err := b64.DecodeString(strings.Split(text, ".")[part])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The form of a token is a promise to its readers.
func TestSignedText(t *testing.T) {
	key := newKey(t, 'k')
	s := spec()
	s.Claims = map[string]any{"zone": "<b&w>", "active": true, "Name": "ünï \u2028 \"q\""}
	for _, c := range []struct {
		audience []string
		aud      string
	}{{nil, ``}, {[]string{}, ``}, {[]string{"api"}, `"aud":"api",`}, {[]string{"web", "api"}, `"aud":["web","api"],`}} {
		s.Audience = c.audience
		text := sign(t, s, key)
		if got := decodePart(t, text, 0); got != head {
			t.Errorf("header is %s, want %s", got, head)
		}
		want := `{"Name":"ünï \u2028 \"q\"","active":true,` + c.aud + `"exp":1800000900,"iat":1800000000,"iss":"keyquorum",` +
			`"jti":"c29tZSByYW5kb20gYml0cw","nbf":1800000000,"sub":"ada@example.org","zone":"<b&w>"}`
		if got := decodePart(t, text, 1); got != want {
			t.Errorf("payload is\n%s, want\n%s", got, want)
		}
		if again := sign(t, s, key); again != text {
			t.Error("the same Spec gave another token")
		}
	}
}

func TestSignatureIsHMACSHA256(t *testing.T) {
	key := newKey(t, 'k')
	text := sign(t, spec(), key)
	dot := strings.LastIndexByte(text, '.')
	mac := hmac.New(sha256.New, key.Bytes())
	mac.Write([]byte(text[:dot]))
	if want := b64.EncodeToString(mac.Sum(nil)); text[dot+1:] != want {
		t.Errorf("signature is %s, want %s", text[dot+1:], want)
	}
}

// The example of RFC 7515, A.1, is one for the MAC that is used, and itself no token of Keyquorum's form.
func TestRFC7515Example(t *testing.T) {
	const signed = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	const signature = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	key, err := b64.DecodeString("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
	if err != nil {
		t.Fatal(err)
	}
	mac, err := jwt.SigningMethodHS256.Sign(signed, key)
	if err != nil || b64.EncodeToString(mac) != signature {
		t.Errorf("the MAC is %s, %v, want %s", b64.EncodeToString(mac), err, signature)
	}
	if got := verdict(t, signed+"."+signature, check(newKey(t, 'k'))); got != token.Malformed {
		t.Errorf("the RFC's token is %v, want MALFORMED", got)
	}
}

// Other JWT libraries read these tokens.
func TestLibraryReadsOurTokens(t *testing.T) {
	key := newKey(t, 'k')
	s := spec()
	s.Audience = []string{"api", "web"}
	s.Claims = map[string]any{"role": "admin"}
	p := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer(issuer), jwt.WithAudience("api"), jwt.WithSubject(user),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding(), jwt.WithTimeFunc(func() time.Time { return during }))
	find := func(t *jwt.Token) (any, error) {
		if t.Header["kid"] != keyID || t.Header["typ"] != "JWT" {
			return nil, errors.New("unexpected header")
		}
		return key.Bytes(), nil
	}
	claims := jwt.MapClaims{}
	if _, err := p.ParseWithClaims(sign(t, s, key), claims, find); err != nil {
		t.Fatal(err)
	}
	if claims["role"] != "admin" || claims["jti"] != s.ID {
		t.Errorf("it reads %v", claims)
	}
	if _, err := p.ParseWithClaims(sign(t, s, key), new(jwt.RegisteredClaims), find); err != nil {
		t.Error(err)
	}
}

// A token of the library that says the same is read, too: its header has the same spelling.
func TestTokenOfTheLibraryIsRead(t *testing.T) {
	key := newKey(t, 'k')
	made := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": issuer, "sub": user, "jti": "x",
		"iat": issued.Unix(), "nbf": issued.Unix(), "exp": issued.Unix() + 900,
	})
	made.Header["kid"] = keyID
	text, err := made.SignedString(key.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got := verdict(t, text, check(key)); got != token.None {
		t.Errorf("%v, want valid", got)
	}
}

func TestExpRoundsUpAndIatDown(t *testing.T) {
	key := newKey(t, 'k')
	s := spec()
	s.IssuedAt, s.ExpiresAt = issued.Add(999*time.Millisecond), issued.Add(time.Second+time.Nanosecond)
	c := check(key)
	c.Now = s.IssuedAt
	v, reason, err := token.Verify(sign(t, s, key), c)
	if err != nil || reason != token.None {
		t.Fatal(reason, err)
	}
	if !v.IssuedAt.Equal(issued) || !v.ExpiresAt.Equal(issued.Add(2*time.Second)) {
		t.Errorf("iat %v, exp %v", v.IssuedAt, v.ExpiresAt)
	}
}

func TestSignRefusesWhatVerifyWould(t *testing.T) {
	key := newKey(t, 'k')
	for name, spoil := range map[string]func(*token.Spec){
		"no issuer":         func(s *token.Spec) { s.Issuer = "" },
		"long issuer":       func(s *token.Spec) { s.Issuer = strings.Repeat("i", 257) },
		"no subject":        func(s *token.Spec) { s.Subject = "" },
		"no id":             func(s *token.Spec) { s.ID = "" },
		"bad UTF-8 in id":   func(s *token.Spec) { s.ID = "\xff" },
		"no key id":         func(s *token.Spec) { s.KeyID = "" },
		"stray bits":        func(s *token.Spec) { s.KeyID = keyID[:21] + "B" },
		"zero key id":       func(s *token.Spec) { s.KeyID = strings.Repeat("A", 22) },
		"quote in key id":   func(s *token.Spec) { s.KeyID = `"` + keyID[1:] },
		"no times":          func(s *token.Spec) { s.IssuedAt, s.ExpiresAt = time.Time{}, time.Time{} },
		"expires as issued": func(s *token.Spec) { s.ExpiresAt = s.IssuedAt },
		"before 1970":       func(s *token.Spec) { s.IssuedAt = time.Unix(-1, 0) },
		"after 9999":        func(s *token.Spec) { s.ExpiresAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"empty audience":    func(s *token.Spec) { s.Audience = []string{""} },
		"reserved claim":    func(s *token.Spec) { s.Claims = map[string]any{"sub": "eve"} },
		"NUL issuer":        func(s *token.Spec) { s.Issuer = "a\x00" },
	} {
		s := spec()
		spoil(&s)
		if text, err := token.Sign(s, key); err == nil {
			t.Errorf("%s: signed, and Verify says %v", name, verdict(t, text, check(key)))
		}
	}
}

func TestTokenLength(t *testing.T) {
	key := newKey(t, 'k')
	s := spec()
	s.Claims = map[string]any{"x": strings.Repeat("c", token.MaxClaims-len(`{"x":""}`))}
	longest := 0
	for n := 1; ; n++ {
		s.Audience = nil
		for left := n; left > 0; left -= 256 {
			s.Audience = append(s.Audience, strings.Repeat("a", min(left, 256)))
		}
		text, err := token.Sign(s, key)
		fits := token.CheckSize(s.Issuer, s.Subject, s.Audience, s.Claims)
		if (err == nil) != (fits == nil) {
			t.Fatalf("Sign: %v, but CheckSize: %v", err, fits)
		}
		if err != nil {
			assertInvalid(t, err, "claims", "8192")
			assertInvalid(t, fits, "claims", "8192")
			break
		}
		longest = len(text)
	}
	if longest < token.MaxLen-2 || longest > token.MaxLen {
		t.Errorf("the longest token has %d bytes, want nearly %d", longest, token.MaxLen)
	}
}

func TestAudienceAloneCanBeTooLong(t *testing.T) {
	var audience []string
	for range 16 {
		audience = append(audience, strings.Repeat(`"`, 256))
	}
	assertInvalid(t, token.CheckSize(issuer, user, audience, nil), "audience", "8192")
}

func TestCheckSizeChecksTheFields(t *testing.T) {
	if err := token.CheckSize(issuer, user, []string{"api"}, map[string]any{"a": 1.0}); err != nil {
		t.Errorf("ordinary fields: %v", err)
	}
	assertInvalid(t, token.CheckSize(issuer, "", nil, nil), "subject", "empty")
	assertInvalid(t, token.CheckSize(issuer, user, []string{"a", ""}, nil), "audience[1]", "empty")
	assertInvalid(t, token.CheckSize(issuer, user, nil, map[string]any{"exp": 1.0}), "claims.exp", "exp")
}

func TestNewID(t *testing.T) {
	a, b := token.NewID(), token.NewID()
	if len(a) != 22 || a == b {
		t.Errorf("ids %q and %q", a, b)
	}
	s := spec()
	s.ID = a
	sign(t, s, newKey(t, 'k'))
}

// assertInvalid wants a *fault.InvalidError that names field and says word.
func assertInvalid(t *testing.T, err error, field, word string) {
	t.Helper()
	var invalid *fault.InvalidError
	if !errors.As(err, &invalid) {
		t.Errorf("%v, want an invalid %s", err, field)
		return
	}
	if invalid.Field != field || !strings.Contains(invalid.Reason, word) {
		t.Errorf("%q at fault, %q; want %q, with %q", invalid.Field, invalid.Reason, field, word)
	}
}

package token_test

import (
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyquorum/keyquorum/internal/token"
)

func benchSpec() token.Spec {
	s := spec()
	s.Audience = []string{"api"}
	s.Claims = map[string]any{"role": "admin", "tenant": "blue", "level": 7.0}
	return s
}

func BenchmarkVerify(b *testing.B) {
	key := newKey(b, 'k')
	text := sign(b, benchSpec(), key)
	c := check(key)
	c.Audience = "api"
	b.ReportAllocs()
	for b.Loop() {
		if _, reason, err := token.Verify(text, c); reason != token.None || err != nil {
			b.Fatal(reason, err)
		}
	}
}

func BenchmarkVerifyWithClaims(b *testing.B) {
	key := newKey(b, 'k')
	text := sign(b, benchSpec(), key)
	c := check(key)
	c.Audience = "api"
	b.ReportAllocs()
	for b.Loop() {
		v, _, _ := token.Verify(text, c)
		if v.Claims() == nil {
			b.Fatal("no claims")
		}
	}
}

func BenchmarkVerifyForged(b *testing.B) {
	key := newKey(b, 'k')
	text := sign(b, benchSpec(), newKey(b, 'o'))
	b.ReportAllocs()
	for b.Loop() {
		if _, reason, _ := token.Verify(text, check(key)); reason != token.SignatureInvalid {
			b.Fatal(reason)
		}
	}
}

// The same checks, as far as the library has them.
func parser() *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer(issuer), jwt.WithAudience("api"),
		jwt.WithExpirationRequired(), jwt.WithStrictDecoding(), jwt.WithTimeFunc(func() time.Time { return during }))
}

func benchmarkLibrary(b *testing.B, claims func() jwt.Claims) {
	key := newKey(b, 'k')
	text := sign(b, benchSpec(), key)
	p := parser()
	find := func(*jwt.Token) (any, error) { return key.Bytes(), nil }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.ParseWithClaims(text, claims(), find); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGolangJWTParseMapClaims(b *testing.B) {
	benchmarkLibrary(b, func() jwt.Claims { return jwt.MapClaims{} })
}

func BenchmarkGolangJWTParseRegisteredClaims(b *testing.B) {
	benchmarkLibrary(b, func() jwt.Claims { return new(jwt.RegisteredClaims) })
}

func BenchmarkSign(b *testing.B) {
	key := newKey(b, 'k')
	s := benchSpec()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := token.Sign(s, key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSignWithoutClaims(b *testing.B) {
	key := newKey(b, 'k')
	s := spec()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := token.Sign(s, key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGolangJWTSignMapClaims(b *testing.B) {
	key := newKey(b, 'k')
	b.ReportAllocs()
	for b.Loop() {
		t := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"iss": issuer, "sub": user, "aud": "api", "jti": "c29tZSByYW5kb20gYml0cw", "role": "admin", "tenant": "blue", "level": 7.0,
			"iat": issued.Unix(), "nbf": issued.Unix(), "exp": issued.Unix() + 900,
		})
		t.Header["kid"] = keyID
		if _, err := t.SignedString(key.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}

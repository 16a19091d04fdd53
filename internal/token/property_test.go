package token_test

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyquorum/keyquorum/internal/token"
)

// genValue draws a claim as structpb gives it.
func genValue(depth int) *rapid.Generator[any] {
	leaves := []*rapid.Generator[any]{
		rapid.Just[any](nil),
		rapid.Bool().AsAny(),
		rapid.String().AsAny(),
		rapid.Map(rapid.Int64Range(-token.MaxInteger, token.MaxInteger), func(n int64) any { return float64(n) }),
		rapid.Map(rapid.Float64Range(-1e15, 1e15), func(f float64) any { return f }),
		rapid.SampledFrom([]any{float64(token.MaxInteger), -float64(token.MaxInteger), 0.1, 5e-324, math.Copysign(0, -1), "\u2028<>&\x00\x7f"}),
	}
	if depth == 0 {
		return rapid.OneOf(leaves...)
	}
	inner := rapid.Deferred(func() *rapid.Generator[any] { return genValue(depth - 1) })
	return rapid.OneOf(append(leaves,
		rapid.SliceOfN(inner, 0, 4).AsAny(),
		rapid.MapOfN(rapid.String(), inner, 0, 4).AsAny())...)
}

// What is signed comes back as it was, to the last bit of each number.
func TestClaimsRoundTrip(t *testing.T) {
	key := newKey(t, 'k')
	rapid.Check(t, func(t *rapid.T) {
		claims := rapid.MapOfN(rapid.String(), genValue(4), 0, 6).Draw(t, "claims")
		if err := token.CheckClaims("claims", claims); err != nil {
			t.Skip(err)
		}
		s := spec()
		s.Claims = claims
		s.Audience = rapid.SliceOfN(rapid.StringMatching(`[a-z"\\é]{1,20}`), 0, 4).Draw(t, "audience")
		s.ExpiresAt = s.IssuedAt.Add(time.Duration(rapid.Int64Range(61, 86400).Draw(t, "ttl")) * time.Second)
		c := check(key)
		if len(s.Audience) > 0 {
			c.Audience = rapid.SampledFrom(s.Audience).Draw(t, "asked")
		}
		text, err := token.Sign(s, key)
		if err != nil {
			t.Fatal(err)
		}
		v, reason, err := token.Verify(text, c)
		if err != nil || reason != token.None {
			t.Fatalf("%v, %v", reason, err)
		}
		got := v.Claims().AsMap()
		if aud, _ := json.Marshal(got["aud"]); len(s.Audience) > 1 && len(v.Audience) != len(s.Audience) {
			t.Errorf("audience %s, want %q", aud, s.Audience)
		}
		for _, name := range []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"} {
			delete(got, name)
		}
		if !reflect.DeepEqual(got, plain(claims)) {
			t.Errorf("claims came back as %v, were %v", got, claims)
		}
	})
}

// plain gives v with the types that encoding/json decodes to.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, value := range v {
			out[name] = plain(value)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, value := range v {
			out[i] = plain(value)
		}
		return out
	}
	return v
}

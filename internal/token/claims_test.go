package token_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/keyquorum/keyquorum/internal/token"
)

type object = map[string]any

func TestCheckClaimsNamesThePath(t *testing.T) {
	const asString = "send it as a string"
	for _, c := range []struct {
		claims      object
		field, word string
	}{
		{object{"profile": object{"age": 1e16}}, "claims.profile.age", asString},
		{object{"list": []any{1.0, 2.0, object{"n": -math.MaxFloat64}}}, "claims.list[2].n", asString},
		{object{"n": 9007199254740992.0}, "claims.n", asString},
		{object{"n": -9007199254740992.0}, "claims.n", asString},
		{object{"n": int64(math.MaxInt64)}, "claims.n", asString},
		{object{"n": int64(math.MinInt64)}, "claims.n", asString},
		{object{"n": math.MinInt64}, "claims.n", asString},
		{object{"n": math.NaN()}, "claims.n", "finite"},
		{object{"n": math.Inf(-1)}, "claims.n", "finite"},
		{object{"s": "\xff"}, "claims.s", "UTF-8"},
		{object{"o": object{"\xff": 1.0}}, `claims.o["\xff"]`, "UTF-8"},
		{object{"c": make(chan int)}, "claims.c", "no JSON"},
		{object{"a.b": object{"": []any{"\xff"}}}, `claims["a.b"][""][0]`, "UTF-8"},
		{object{strings.Repeat("n", 65): math.NaN()}, `claims["` + strings.Repeat("n", 64) + `"…]`, "finite"},
		{object{"sub": "eve"}, "claims.sub", `"sub"`},
		{object{"SUB": "eve"}, "claims.SUB", `"sub"`},
		{object{"ſub": "eve"}, `claims["ſub"]`, `"sub"`},
		{object{"b": math.NaN(), "a": math.NaN(), "c": math.NaN()}, "claims.a", "finite"},
		{object{"isAdmin": false, "isadmin": true}, "claims.isadmin", ".isAdmin in case"},
		{object{"o": []any{object{"scope": "read", "ſcope": "write"}}}, `claims.o[0]["ſcope"]`, ".scope in case"},
		{object{"k": object{"\u212a": 1.0, "k": object{}}}, "claims.k[\"\u212a\"]", ".k in case"}, // the Kelvin sign
		{object{"x": strings.Repeat("a", token.MaxClaims)}, "claims", "4096"},
	} {
		assertInvalid(t, token.CheckClaims("claims", c.claims), c.field, c.word)
	}
	for _, name := range []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "EXP", "Jti", "nBf", "IAT"} {
		assertInvalid(t, token.CheckClaims("claims", object{name: 1.0}), "claims."+name, "set by Keyquorum")
	}
}

func TestClaimsThatAreFine(t *testing.T) {
	for name, claims := range map[string]object{
		"nil": nil, "none": {},
		"bounds":        {"a": float64(token.MaxInteger), "b": -float64(token.MaxInteger), "c": 0.1, "d": 1e-300, "e": math.Copysign(0, -1), "f": 7, "g": int64(7)},
		"empty name":    {"": 1.0},
		"near reserved": {"subs": 1.0, "ex": 1.0, "is s": 1.0, "sub ": 1.0, "ısı": 1.0},
		"nested names":  {"x": object{"sub": 1.0, "EXP": []any{object{"iss": nil}}}},
		"empty values":  {"a": object{}, "b": []any{}, "c": nil, "d": object(nil), "e": []any(nil)},
		"near in case":  {"name": object{"n": 1.0}, "Names": []any{object{"N": 1.0}}, "ı": 1.0, "i": 1.0, "İ": 1.0, "ß": 1.0, "ss": 1.0},
		"full":          {"x": strings.Repeat("a", token.MaxClaims-len(`{"x":""}`))},
		"deepest":       nest(token.MaxDepth),
	} {
		if err := token.CheckClaims("claims", claims); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s := spec()
		s.Claims = claims
		key := newKey(t, 'k')
		if got := verdict(t, sign(t, s, key), check(key)); got != token.None {
			t.Errorf("%s: signed, and then %v", name, got)
		}
	}
}

// Tokens that were issued before such names were refused stay valid.
func TestATokenWhoseNamesDifferInCaseOnlyVerifies(t *testing.T) {
	key := newKey(t, 'k')
	text := raw(t, head, valid().with("name", "1").with("Name", "2").json(), key)
	if got := verdict(t, text, check(key)); got != token.None {
		t.Error(got)
	}
}

// nest is an object of so many levels, the outermost one counted.
func nest(levels int) object {
	inner := object{}
	for range levels - 1 {
		inner = object{"n": inner}
	}
	return inner
}

func TestDepth(t *testing.T) {
	assertInvalid(t, token.CheckClaims("claims", nest(33)), "claims"+strings.Repeat(".n", 32), "32 levels")
	list := []any{}
	for range 31 {
		list = []any{list}
	}
	assertInvalid(t, token.CheckClaims("claims", object{"l": list}), "claims.l"+strings.Repeat("[0]", 31), "32 levels")
	loop := object{}
	loop["l"] = loop
	assertInvalid(t, token.CheckClaims("claims", loop), "claims"+strings.Repeat(".l", 32), "32 levels")
}

func TestClaimsOfAStruct(t *testing.T) {
	s, err := structpb.NewStruct(object{"n": 9007199254740991.0, "l": []any{nil, true, "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := token.CheckClaims("claims", s.AsMap()); err != nil {
		t.Error(err)
	}
}

func TestCheckSubject(t *testing.T) {
	if err := token.CheckSubject("subject", user); err != nil {
		t.Error(err)
	}
	for s, word := range map[string]string{"": "empty", strings.Repeat("a", 257): "256", "\xff": "UTF-8", "a\n": "control"} {
		assertInvalid(t, token.CheckSubject("subject", s), "subject", word)
	}
}

func TestCheckAudience(t *testing.T) {
	full := make([]string, token.MaxAudience)
	for i := range full {
		full[i] = strings.Repeat("a", 256)
	}
	for _, audience := range [][]string{nil, {}, {"api"}, full} {
		if err := token.CheckAudience("audience", audience); err != nil {
			t.Error(err)
		}
	}
	assertInvalid(t, token.CheckAudience("audience", append(slices.Clip(full), "a")), "audience", "16")
	for s, word := range map[string]string{"": "empty", strings.Repeat("a", 257): "256", "\xff": "UTF-8", "a\n": "control"} {
		assertInvalid(t, token.CheckAudience("audience", []string{"a", "b", "c", s}), "audience[3]", word)
	}
}

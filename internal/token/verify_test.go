package token_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/secret"
	"github.com/keyquorum/keyquorum/internal/token"
)

func TestSignedTokenVerifies(t *testing.T) {
	key := newKey(t, 'k')
	s := spec()
	s.Audience = []string{"api", "web"}
	s.Claims = map[string]any{"role": "admin", "n": 9007199254740991.0, "deep": map[string]any{"list": []any{1.5, nil, true}}}
	v, reason, err := token.Verify(sign(t, s, key), token.Check{Now: during, Issuer: issuer, Audience: "web", Key: only(key)})
	if err != nil || reason != token.None {
		t.Fatalf("Verify: %v, %v", reason, err)
	}
	if v.Subject != s.Subject || v.KeyID != s.KeyID || v.ID != s.ID || v.Issuer != s.Issuer || fmt.Sprint(v.Audience) != "[api web]" {
		t.Errorf("it says %+v", v)
	}
	if !v.IssuedAt.Equal(s.IssuedAt) || !v.NotBefore.Equal(s.IssuedAt) || !v.ExpiresAt.Equal(s.ExpiresAt) {
		t.Errorf("its times are %v, %v, %v", v.IssuedAt, v.NotBefore, v.ExpiresAt)
	}
	got := v.Claims().AsMap()
	const want = "map[aud:[api web] deep:map[list:[1.5 <nil> true]] exp:1.8000009e+09 iat:1.8e+09 iss:keyquorum " +
		"jti:c29tZSByYW5kb20gYml0cw n:9.007199254740991e+15 nbf:1.8e+09 role:admin sub:ada@example.org]"
	if fmt.Sprint(got) != want {
		t.Errorf("claims are %v, want %v", got, want)
	}
}

func TestMinimalPayloadIsAccepted(t *testing.T) {
	key := newKey(t, 'k')
	for name, payload := range map[string]string{
		"as is":            valid().json(),
		"space":            " {\t\"x\" : [ 1 , { } , [ ] ] ,\r\n" + valid().json()[1:] + " \n",
		"escapes":          valid().with("x", `"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00"`).json(),
		"one audience":     valid().with("x", `{"aud":1,"EXP":"not at the top"}`).json(),
		"escaped name":     strings.Replace(valid().json(), `"sub"`, `"\u0073ub"`, 1),
		"same name nested": valid().with("x", `{"a":{"a":[{"a":1},{"a":1}]}}`).json(),
		"deepest":          valid().with("x", strings.Repeat("[", 32)+strings.Repeat("]", 32)).json(),
		"empty name":       valid().with("", "1").json(),
		"numbers":          valid().with("x", `[0,-0,0.5,-1.5e-7,1e3,1E+3,9007199254740991,-9007199254740991,1e-999]`).json(),
	} {
		if got := verdict(t, raw(t, head, payload, key), check(key)); got != token.None {
			t.Errorf("%s: %v, want valid", name, got)
		}
	}
}

// Each of these is signed with the right key: only the form is wrong.
func TestMalformedPayload(t *testing.T) {
	key := newKey(t, 'k')
	ok := valid()
	cases := map[string]string{
		"empty": "", "no object": `[]`, "a string": `"x"`, "null": "null", "cut": ok.json()[:40], "open": ok.json()[:len(ok.json())-1],
		"text behind": ok.json() + "x", "two objects": ok.json() + ok.json(), "comma behind": ok.json()[:len(ok.json())-1] + ",}",
		"BOM": "\ufeff" + ok.json(), "comment": "/**/" + ok.json(), "no colon": strings.Replace(ok.json(), ":", " ", 1),
		"bad UTF-8": ok.with("x", "\"\xff\"").json(), "surrogate in UTF-8": ok.with("x", "\"\xed\xa0\x80\"").json(),
		"nul": ok.with("x", "\x00").json(), "newline in string": ok.with("x", "\"\n\"").json(),
		"half surrogate": ok.with("x", `"\ud83d"`).json(), "low surrogate": ok.with("x", `"\ude00"`).json(),
		"two high surrogates": ok.with("x", `"\ud83d\ud83d"`).json(),
		"bad escape":          ok.with("x", `"\x"`).json(), "bad hex": ok.with("x", `"\u00g0"`).json(), "control for hex": ok.with("x", "\"\\u00\x10\x10\"").json(),
		"short hex": ok.with("x", `"\u00"`).json(), "escape at end": `{"x":"\`,
		"twice": ok.json()[:len(ok.json())-1] + `,"sub":"eve"}`, "twice the same": ok.json()[:len(ok.json())-1] + `,"sub":"ada@example.org"}`,
		"twice, own": ok.json()[:len(ok.json())-1] + `,"x":1,"x":1}`, "twice, escaped": ok.json()[:len(ok.json())-1] + `,"\u0073ub":"eve"}`,
		"twice, nested": ok.with("x", `[{"y":{"a":1,"b":2,"a":1}}]`).json(), "twice among many": ok.with("x", manyMembers(40, `"m7":1`)).json(),
		"folded EXP": ok.with("EXP", "1").json(), "folded Sub": ok.with("Sub", `"eve"`).json(), "long s": ok.with("ſub", `"eve"`).json(),
		"folded, escaped": ok.with(`i\u0053s`, `"x"`).json(), "folded Aud": ok.with("Aud", `"x"`).json(),
		"too deep": ok.with("x", strings.Repeat("[", 33)+strings.Repeat("]", 33)).json(), "too deep, objects": ok.with("x", strings.Repeat(`{"a":`, 33)+"1"+strings.Repeat("}", 33)).json(),
		"very deep":         ok.with("x", strings.Repeat("[", 4000)).json(),
		"integer past 2^53": ok.with("x", "9007199254740992").json(), "past -2^53": ok.with("x", "-9007199254740992").json(),
		"double overflow": ok.with("x", "1e400").json(), "large double": ok.with("x", "1e300").json(), "nested integer": ok.with("x", `{"a":[12345678901234567890]}`).json(),
		"leading zero": ok.with("x", "01").json(), "plus": ok.with("x", "+1").json(), "dot": ok.with("x", "1.").json(), "no digit": ok.with("x", "-").json(),
		"exponent": ok.with("x", "1e").json(), "NaN": ok.with("x", "NaN").json(), "hex number": ok.with("x", "0x1").json(),
		"word": ok.with("x", "nul").json(), "True": ok.with("x", "True").json(),
		"array comma": ok.with("x", "[1,]").json(), "array open": ok.with("x", "[1").json(), "array colon": ok.with("x", "[1:2]").json(),
		"aud empty array": ok.with("aud", "[]").json(), "aud empty": ok.with("aud", `""`).json(), "aud number": ok.with("aud", "1").json(),
		"aud null": ok.with("aud", "null").json(), "aud nested": ok.with("aud", `[["a"]]`).json(), "aud mixed": ok.with("aud", `["a",1]`).json(),
		"aud long": ok.with("aud", `"`+strings.Repeat("a", 257)+`"`).json(), "aud many": ok.with("aud", `["a"`+strings.Repeat(`,"a"`, 16)+`]`).json(),
		"sub long": ok.with("sub", `"`+strings.Repeat("a", 257)+`"`).json(), "sub control": ok.with("sub", `"a\u0000"`).json(),
	}
	for _, name := range []string{"iss", "sub", "jti"} {
		cases["no "+name] = ok.with(name, "").json()
		for _, value := range []string{`""`, "1", "null", "true", `["x"]`, "{}"} {
			cases[name+" "+value] = ok.with(name, value).json()
		}
	}
	for _, name := range []string{"exp", "iat", "nbf"} {
		cases["no "+name] = ok.with(name, "").json()
		for _, value := range []string{
			`"1800000900"`, "1800000900.0", "1800000900.5", "1.8e9", "18000009E2", "-1", "-0", "9007199254740992",
			"18446744073709551616", "99999999999999999999999999", "1e400", "null", "true", "[1800000900]", "01800000900", "{}",
		} {
			cases[name+" "+value] = ok.with(name, value).json()
		}
	}
	for name, payload := range cases {
		if got := verdict(t, raw(t, head, payload, key), check(key)); got != token.Malformed {
			t.Errorf("%s: %v, want MALFORMED", name, got)
		}
	}
}

// manyMembers is an object of n distinct members and one more.
func manyMembers(n int, more string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range n {
		fmt.Fprintf(&b, `"m%d":%d,`, i, i)
	}
	return b.String() + more + "}"
}

func TestMalformedHeader(t *testing.T) {
	key := newKey(t, 'k')
	const kid = `"kid":"` + keyID + `"`
	for name, header := range map[string]string{
		"none":                `{"alg":"none",` + kid + `,"typ":"JWT"}`,
		"None":                `{"alg":"None",` + kid + `,"typ":"JWT"}`,
		"HS384":               `{"alg":"HS384",` + kid + `,"typ":"JWT"}`,
		"HS512":               `{"alg":"HS512",` + kid + `,"typ":"JWT"}`,
		"RS256":               `{"alg":"RS256",` + kid + `,"typ":"JWT"}`,
		"ES256":               `{"alg":"ES256",` + kid + `,"typ":"JWT"}`,
		"hs256":               `{"alg":"hs256",` + kid + `,"typ":"JWT"}`,
		"no alg":              `{` + kid + `,"typ":"JWT"}`,
		"alg twice":           `{"alg":"HS256","alg":"HS256",` + kid + `,"typ":"JWT"}`,
		"alg number":          `{"alg":256,` + kid + `,"typ":"JWT"}`,
		"folded alg":          `{"ALG":"HS256",` + kid + `,"typ":"JWT"}`,
		"no kid":              `{"alg":"HS256","typ":"JWT"}`,
		"kid twice":           `{"alg":"HS256",` + kid + `,` + kid + `,"typ":"JWT"}`,
		"kid number":          `{"alg":"HS256","kid":1,"typ":"JWT"}`,
		"kid short":           `{"alg":"HS256","kid":"` + keyID[1:] + `","typ":"JWT"}`,
		"kid long":            `{"alg":"HS256","kid":"A` + keyID + `","typ":"JWT"}`,
		"kid empty":           `{"alg":"HS256","kid":"","typ":"JWT"}`,
		"kid stray bits":      `{"alg":"HS256","kid":"` + keyID[:21] + `B","typ":"JWT"}`,
		"kid standard base64": `{"alg":"HS256","kid":"` + keyID[:20] + `+A","typ":"JWT"}`,
		"kid padded":          `{"alg":"HS256","kid":"` + keyID[:20] + `==","typ":"JWT"}`,
		"kid newline":         `{"alg":"HS256","kid":"` + keyID[:21] + "\n" + `","typ":"JWT"}`,
		"kid zero":            `{"alg":"HS256","kid":"` + strings.Repeat("A", 22) + `","typ":"JWT"}`,
		"kid escaped":         `{"alg":"HS256","kid":"\u0041` + keyID[1:] + `","typ":"JWT"}`,
		"no typ":              `{"alg":"HS256",` + kid + `}`,
		"typ jwt":             `{"alg":"HS256",` + kid + `,"typ":"jwt"}`,
		"typ at+jwt":          `{"alg":"HS256",` + kid + `,"typ":"at+jwt"}`,
		"crit":                `{"alg":"HS256","crit":["exp"],` + kid + `,"typ":"JWT"}`,
		"empty crit":          `{"alg":"HS256","crit":[],` + kid + `,"typ":"JWT"}`,
		"b64":                 `{"alg":"HS256","b64":false,"crit":["b64"],` + kid + `,"typ":"JWT"}`,
		"jwk":                 `{"alg":"HS256","jwk":{"kty":"oct","k":""},` + kid + `,"typ":"JWT"}`,
		"jku":                 `{"alg":"HS256","jku":"https://example.org",` + kid + `,"typ":"JWT"}`,
		"cty":                 `{"alg":"HS256","cty":"JWT",` + kid + `,"typ":"JWT"}`,
		"zip":                 `{"alg":"HS256",` + kid + `,"typ":"JWT","zip":"DEF"}`,
		"array":               `[]`, "empty": ``, "null": `null`, "empty object": `{}`,
		"space":       head + " ",
		"space ahead": " " + head,
		"nested":      strings.Repeat("[", 3000),
	} {
		if got := verdict(t, raw(t, header, valid().json(), key), check(key)); got != token.Malformed {
			t.Errorf("%s: %v, want MALFORMED", name, got)
		}
	}
}

func TestMalformedText(t *testing.T) {
	key := newKey(t, 'k')
	good := sign(t, spec(), key)
	parts := strings.Split(good, ".")
	h, p, s := parts[0], parts[1], parts[2]
	for name, text := range map[string]string{
		"empty": "", "dots": "..", "one part": h, "two parts": h + "." + p, "four parts": good + ".x", "trailing dot": good + ".", "leading dot": "." + good,
		"no signature": h + "." + p + ".", "no payload": h + ".." + s, "no header": "." + p + "." + s,
		"space ahead": " " + good, "space behind": good + " ", "newline behind": good + "\n", "CRLF behind": good + "\r\n", "Bearer": "Bearer " + good,
		"CRLF in signature": h + "." + p + "." + s[:20] + "\r\n" + s[20:], "LF in payload": h + "." + p[:9] + "\n" + p[9:] + "." + s, "CR in header": h[:9] + "\r" + h[9:] + "." + p + "." + s,
		"CRLF for signature": h + "." + p + "." + s[:41] + "\r\n",
		"padded signature":   good + "=", "padded payload": h + "." + p + "=." + s, "padded header": h + "==." + p + "." + s,
		"stray bits": good[:len(good)-1] + nextChar(good[len(good)-1]), "standard alphabet": h + "." + p + "." + "+" + s[1:], "slash": h + "." + p + "." + "/" + s[1:],
		"short signature": good[:len(good)-1], "signature of a SHA-512": good + s, "one character more": good + "A",
		"nul": good[:30] + "\x00" + good[31:], "high byte": good[:30] + "\xc3" + good[31:], "JSON serialization": `{"payload":"` + p + `","protected":"` + h + `","signature":"` + s + `"}`,
		"comma": strings.ReplaceAll(good, ".", ","), "five parts, a JWE": h + "." + p + "." + s + "." + s + "." + s,
		"1 MiB": good + strings.Repeat("A", 1<<20), "1 MiB payload": h + "." + strings.Repeat("A", 1<<20) + "." + s, "1 MiB of dots": strings.Repeat(".", 1<<20),
		"one byte too long": h + "." + strings.Repeat("A", token.MaxLen+1-len(h)-len(s)-2) + "." + s,
	} {
		if got := verdict(t, text, check(key)); got != token.Malformed {
			t.Errorf("%s: %v, want MALFORMED", name, got)
		}
	}
}

// nextChar follows c in the base64url alphabet: the same bytes for a lax decoder, where stray bits are ignored.
func nextChar(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[(strings.IndexByte(alphabet, c)+1)%64])
}

// A token with one byte changed anywhere is never valid, and the reason fits the place: what no longer is a token
// of this form, or names another key, or is not what was signed.
func TestOneByteChanged(t *testing.T) {
	key := newKey(t, 'k')
	s := spec()
	s.Audience = []string{"api"}
	s.Claims = map[string]any{"role": "admin", "n": 1.0}
	good := sign(t, s, key)
	payloadAt := strings.IndexByte(good, '.') + 1
	signatureAt := strings.LastIndexByte(good, '.') + 1
	c := check(key)
	c.Audience = "api"
	if got := verdict(t, good, c); got != token.None {
		t.Fatalf("the token itself is %v", got)
	}
	seen := make(map[token.Reason]int)
	for i := range good {
		for b := range 256 {
			if byte(b) == good[i] {
				continue
			}
			got := verdict(t, good[:i]+string([]byte{byte(b)})+good[i+1:], c)
			seen[got]++
			inAlphabet := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", byte(b)) >= 0
			ok := got == token.Malformed
			switch {
			case !inAlphabet:
			case i < payloadAt-1:
				ok = ok || got == token.KeyNotFound
			case payloadAt <= i && i < signatureAt-1:
				ok = ok || got == token.Expired || got == token.KeyNotFound || got == token.SignatureInvalid
			case signatureAt <= i && i < len(good)-1:
				ok = got == token.SignatureInvalid
			case i == len(good)-1:
				ok = ok || got == token.SignatureInvalid
			}
			if !ok {
				t.Errorf("byte %d from %q to %q: %v", i, good[i], byte(b), got)
			}
		}
	}
	for _, reason := range []token.Reason{token.Malformed, token.KeyNotFound, token.SignatureInvalid} {
		if seen[reason] == 0 {
			t.Errorf("no change gave %v: %v", reason, seen)
		}
	}
}

func TestOneByteTakenOrAdded(t *testing.T) {
	key := newKey(t, 'k')
	good := sign(t, spec(), key)
	for i := range good {
		if got := verdict(t, good[:i]+good[i+1:], check(key)); got == token.None {
			t.Errorf("valid without byte %d", i)
		}
		for _, b := range "A.\n = " {
			if got := verdict(t, good[:i]+string(b)+good[i:], check(key)); got == token.None {
				t.Errorf("valid with %q at byte %d", b, i)
			}
		}
	}
}

func TestAnotherKey(t *testing.T) {
	key, other := newKey(t, 'k'), newKey(t, 'o')
	if got := verdict(t, sign(t, spec(), other), check(key)); got != token.SignatureInvalid {
		t.Errorf("signed with another user's key: %v, want SIGNATURE_INVALID", got)
	}
	s := spec()
	s.Subject = "eve"
	if got := verdict(t, sign(t, s, key), check(key)); got != token.KeyNotFound {
		t.Errorf("another subject's key id: %v, want KEY_NOT_FOUND", got)
	}
}

func TestKeyMustHaveMaterial(t *testing.T) {
	c := check(nil)
	c.Key = func(string, string) (*secret.Key, error) { return new(secret.Key), nil }
	if _, reason, err := token.Verify(sign(t, spec(), newKey(t, 'k')), c); err == nil {
		t.Errorf("a key without material gave %v", reason)
	}
	if _, err := token.Sign(spec(), new(secret.Key)); err == nil {
		t.Error("signed with a key without material")
	}
	if _, err := token.Sign(spec(), nil); err == nil {
		t.Error("signed with no key")
	}
}

func TestErrorOfTheLookupComesBack(t *testing.T) {
	behind := errors.New("behind")
	c := token.Check{Now: during, Issuer: issuer, Key: func(string, string) (*secret.Key, error) { return nil, behind }}
	v, reason, err := token.Verify(sign(t, spec(), newKey(t, 'k')), c)
	if !errors.Is(err, behind) || reason != token.None || v.Subject != "" {
		t.Errorf("Verify: %+v, %v, %v", v, reason, err)
	}
}

// No leeway on either side, and fractions of a second of the time change nothing.
func TestTimes(t *testing.T) {
	key := newKey(t, 'k')
	text := sign(t, spec(), key)
	exp := spec().ExpiresAt
	for _, c := range []struct {
		now  time.Time
		want token.Reason
	}{
		{issued.Add(-time.Second), token.NotYetValid},
		{issued.Add(-time.Nanosecond), token.NotYetValid},
		{issued, token.None},
		{issued.Add(time.Nanosecond), token.None},
		{exp.Add(-time.Nanosecond), token.None},
		{exp, token.Expired},
		{exp.Add(time.Nanosecond), token.Expired},
		{exp.AddDate(1, 0, 0), token.Expired},
		{time.Time{}, token.NotYetValid},
		{time.Unix(-1, 999), token.NotYetValid},
	} {
		check := check(key)
		check.Now = c.now
		if got := verdict(t, text, check); got != c.want {
			t.Errorf("at %v: %v, want %v", c.now, got, c.want)
		}
	}
	for _, name := range []string{"iat", "nbf"} {
		if got := verdict(t, raw(t, head, valid().with(name, "1800000061").json(), key), check(key)); got != token.NotYetValid {
			t.Errorf("%s ahead alone: %v, want NOT_YET_VALID", name, got)
		}
	}
}

func TestExpFarAhead(t *testing.T) {
	key := newKey(t, 'k')
	if got := verdict(t, raw(t, head, valid().with("exp", "9007199254740991").json(), key), check(key)); got != token.None {
		t.Errorf("the largest exp: %v, want valid", got)
	}
	if got := verdict(t, raw(t, head, valid().with("exp", "0").json(), key), check(key)); got != token.Expired {
		t.Errorf("exp of 0: %v, want EXPIRED", got)
	}
}

// A token with every fault loses them one by one, and the reasons come in their order.
func TestOrderOfReasons(t *testing.T) {
	key, other := newKey(t, 'k'), newKey(t, 'o')
	lookups := 0
	c := token.Check{Now: issued.AddDate(0, 0, 1), Issuer: "another", Audience: "api"}
	find := func(k *secret.Key) {
		c.Key = func(string, string) (*secret.Key, error) { lookups++; return k, nil }
	}
	find(nil)
	expect := func(raw string, want token.Reason) {
		t.Helper()
		if got := verdict(t, raw, c); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	text := sign(t, spec(), key)
	expect(text+"=", token.Malformed)
	expect(text, token.Expired)
	if lookups > 0 {
		t.Error("a key was looked up for a token that is malformed or expired")
	}
	c.Now = issued.Add(-time.Hour)
	expect(text, token.KeyNotFound)
	find(other)
	expect(text, token.SignatureInvalid)
	find(key)
	expect(text, token.NotYetValid)
	c.Now = during
	expect(text, token.IssuerMismatch)
	c.Issuer = issuer
	expect(text, token.AudienceMismatch)
	c.Audience = ""
	expect(text, token.None)
}

func TestIssuerIsExact(t *testing.T) {
	key := newKey(t, 'k')
	text := sign(t, spec(), key)
	for _, asked := range []string{"Keyquorum", "keyquorum ", "keyquoru", ""} {
		c := check(key)
		c.Issuer = asked
		if got := verdict(t, text, c); got != token.IssuerMismatch {
			t.Errorf("issuer %q: %v, want ISSUER_MISMATCH", asked, got)
		}
	}
}

func TestAudienceMatrix(t *testing.T) {
	key := newKey(t, 'k')
	for _, c := range []struct {
		aud, asked string
		want       token.Reason
	}{
		{``, "", token.None},
		{``, "api", token.AudienceMismatch},
		{`"api"`, "", token.AudienceMismatch},
		{`"api"`, "api", token.None},
		{`"api"`, "API", token.AudienceMismatch},
		{`"api"`, "ap", token.AudienceMismatch},
		{`["api"]`, "", token.AudienceMismatch},
		{`["api"]`, "api", token.None},
		{`["api"]`, "web", token.AudienceMismatch},
		{`["api","web"]`, "", token.AudienceMismatch},
		{`["api","web"]`, "api", token.None},
		{`["api","web"]`, "web", token.None},
		{`["api","web"]`, "api,web", token.AudienceMismatch},
		{`["api","w\u0065b"]`, "web", token.None},
	} {
		check := check(key)
		check.Audience = c.asked
		if got := verdict(t, raw(t, head, valid().with("aud", c.aud).json(), key), check); got != c.want {
			t.Errorf("aud %s, asked %q: %v, want %v", c.aud, c.asked, got, c.want)
		}
	}
}

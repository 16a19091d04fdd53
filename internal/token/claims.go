package token

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/subject"
)

// CheckSubject tells what is wrong with s as a token's subject; field is what to call it. The error is a
// *fault.InvalidError, or nil.
func CheckSubject(field, s string) error {
	if err := subject.Check(s); err != nil {
		return fault.Invalid(field, err.Error())
	}
	return nil
}

// CheckAudience tells what is wrong with the audience of a token: at most MaxAudience of them, each named like a
// subject. The error is a *fault.InvalidError that names the first one at fault, as in "audience[3]", or nil.
func CheckAudience(field string, audience []string) error {
	if len(audience) > MaxAudience {
		return fault.Invalid(field, fmt.Sprintf("must not have more than %d entries", MaxAudience))
	}
	for i, s := range audience {
		if err := subject.Check(s); err != nil {
			return fault.Invalid(field+index(i), err.Error())
		}
	}
	return nil
}

// CheckClaims tells what is wrong with a caller's own claims: a name that is reserved, two names of an object that
// strings.EqualFold takes for one, as many a reader does, a value that is no JSON or that JSON's readers may change, more
// than MaxDepth levels, or more than MaxClaims bytes of JSON. The error is a *fault.InvalidError that names the path of
// the first value at fault, as in "claims.list[2].n", or nil.
//
// Values are those of encoding/json and structpb: nil, bool, float64, string, []any and map[string]any, and also
// int and int64.
func CheckClaims(field string, claims map[string]any) error {
	if len(claims) == 0 {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		if known, folds := foldsTo(name); folds {
			return fault.Invalid(field+member(name), fmt.Sprintf("%q is set by Keyquorum, in whatever case", known))
		}
	}
	if f := checkObject(claims, 1); f != nil {
		return fault.Invalid(field+f.path, f.reason)
	}
	b, err := encode(claims)
	if err != nil {
		return fault.Invalid(field, "cannot be written as JSON")
	}
	if len(b) > MaxClaims {
		return fault.Invalid(field, fmt.Sprintf("has %d bytes as JSON, more than %d", len(b), MaxClaims))
	}
	return nil
}

// flaw is what is wrong with a claim. Its path grows from the inside, so that only a flaw costs one.
type flaw struct{ path, reason string }

func (f *flaw) under(part string) *flaw {
	if f != nil {
		f.path = part + f.path
	}
	return f
}

// checkValue checks a claim at depth, which counts the objects and arrays around it.
func checkValue(v any, depth int) *flaw {
	switch v := v.(type) {
	case nil, bool:
		return nil
	case string:
		if !utf8.ValidString(v) {
			return &flaw{reason: "must be valid UTF-8"}
		}
		return nil
	case float64:
		return checkNumber(v)
	case int:
		return checkInteger(int64(v))
	case int64:
		return checkInteger(v)
	case map[string]any:
		return checkObject(v, depth+1)
	case []any:
		return checkArray(v, depth+1)
	}
	return &flaw{reason: fmt.Sprintf("a Go %T is no JSON value", v)}
}

func checkObject(members map[string]any, depth int) *flaw {
	if depth > MaxDepth {
		return tooDeep()
	}
	seen := make(map[string]string, len(members))
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !utf8.ValidString(name) {
			return (&flaw{reason: "its name must be valid UTF-8"}).under(member(name))
		}
		one := folded(name)
		if other, twice := seen[one]; twice {
			return (&flaw{reason: fmt.Sprintf("differs from %s in case only", member(other))}).under(member(name))
		}
		seen[one] = name
		if f := checkValue(members[name], depth); f != nil {
			return f.under(member(name))
		}
	}
	return nil
}

// folded is the same for all names that strings.EqualFold calls equal, and for no others.
func folded(name string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			least = min(least, other)
		}
		return least
	}, name)
}

func checkArray(elements []any, depth int) *flaw {
	if depth > MaxDepth {
		return tooDeep()
	}
	for i, v := range elements {
		if f := checkValue(v, depth); f != nil {
			return f.under(index(i))
		}
	}
	return nil
}

func tooDeep() *flaw {
	return &flaw{reason: fmt.Sprintf("is nested deeper than %d levels", MaxDepth)}
}

// checkNumber refuses what JSON cannot say, and integers that readers of JSON round.
func checkNumber(f float64) *flaw {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return &flaw{reason: "must be a finite number"}
	case math.Abs(f) > MaxInteger: // from there on, each float64 is an integer
		return tooLarge()
	}
	return nil
}

func checkInteger(n int64) *flaw {
	if n < -MaxInteger || n > MaxInteger {
		return tooLarge()
	}
	return nil
}

func tooLarge() *flaw {
	return &flaw{reason: fmt.Sprintf("is an integer beyond ±%d, which JSON does not keep exactly: send it as a string", int64(MaxInteger))}
}

// member is a member's part of a path: in brackets and quotes where the name could be taken for something else, and
// cut where it is long.
func member(name string) string {
	const longest = 64
	plain := name != "" && len(name) <= longest
	for _, r := range name {
		plain = plain && (r == '_' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}
	switch {
	case plain:
		return "." + name
	case len(name) > longest:
		return "[" + strconv.Quote(name[:longest]) + "…]"
	}
	return "[" + strconv.Quote(name) + "]"
}

func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

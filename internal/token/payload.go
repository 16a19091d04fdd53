package token

import (
	"strings"
	"unicode/utf8"

	"github.com/keyquorum/keyquorum/internal/subject"
)

// payload is the registered claims of a token, times in seconds since the Unix epoch.
type payload struct {
	issuer, subject, id            string
	audience                       []string
	expiresAt, issuedAt, notBefore int64
}

// absent marks a time that has not been read.
const absent = -1

// readPayload reads a token's payload. All registered claims but aud have to be there.
func readPayload(text string) (payload, bool) {
	if !utf8.ValidString(text) {
		return payload{}, false
	}
	r := reader{scanner: scanner{text: text}}
	r.names = r.space16[:0]
	r.expiresAt, r.issuedAt, r.notBefore = absent, absent, absent
	r.scanner.space()
	if !r.object(1, r.claim) || !r.end() {
		return payload{}, false
	}
	return r.payload, r.complete()
}

// reader is a scanner that knows the registered claims.
type reader struct {
	scanner
	payload
	space16 [16]string
}

// claim reads the value of the member that was named last.
func (r *reader) claim(depth int) (ok bool) {
	switch name := r.names[len(r.names)-1]; name {
	case "iss":
		r.issuer, ok = r.string()
	case "sub":
		r.payload.subject, ok = r.string()
	case "jti":
		r.id, ok = r.string()
	case "exp":
		r.expiresAt, ok = r.integer()
	case "iat":
		r.issuedAt, ok = r.integer()
	case "nbf":
		r.notBefore, ok = r.integer()
	case "aud":
		ok = r.readAudience(depth)
	default:
		_, folds := foldsTo(name)
		ok = !folds && r.value(depth)
	}
	return ok
}

// readAudience reads one audience, or an array of them that is not empty (RFC 7519, 4.1.3).
func (r *reader) readAudience(depth int) bool {
	if r.peek() != '[' {
		return r.addAudience(depth)
	}
	return r.array(depth+1, r.addAudience) && len(r.audience) > 0
}

func (r *reader) addAudience(int) bool {
	s, ok := r.string()
	if !ok || len(r.audience) == MaxAudience || subject.Check(s) != nil {
		return false
	}
	r.audience = append(r.audience, s)
	return true
}

// complete tells whether all that Sign writes was there. That no claim is there twice, object has seen to.
func (p *payload) complete() bool {
	return p.issuer != "" && p.id != "" && subject.Check(p.subject) == nil &&
		p.expiresAt != absent && p.issuedAt != absent && p.notBefore != absent
}

// foldsTo gives the registered claim that name is, or would be to a reader that ignores case.
func foldsTo(name string) (string, bool) {
	const longest = 3 * utf8.UTFMax // in bytes; all registered names have three letters
	if len(name) > longest {
		return "", false
	}
	for _, known := range registered {
		if strings.EqualFold(name, known) {
			return known, true
		}
	}
	return "", false
}

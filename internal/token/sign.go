package token

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/secret"
	"github.com/keyquorum/keyquorum/internal/subject"
)

// Spec is what a token is to say.
type Spec struct {
	// Issuer is the cluster's: 1 to 256 bytes, named like a subject.
	Issuer string
	// Subject is the user.
	Subject string
	// Audience is whom the token is for; empty for a token without one.
	Audience []string
	// IssuedAt becomes iat and nbf, rounded down to whole seconds; ExpiresAt becomes exp, rounded up.
	IssuedAt, ExpiresAt time.Time
	// ID becomes jti; NewID makes one.
	ID string
	// KeyID becomes kid: the text of the key's id.
	KeyID string
	// Claims are the caller's own, as CheckClaims has them.
	Claims map[string]any
}

// NewID makes a token's ID: 128 random bits in base64url.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Sign makes a token. What a user chose and cannot have (subject, audience, claims, or a token longer than MaxLen)
// gives a *fault.InvalidError that names the field; another error is a fault of this program. The same Spec and
// key always give the same token.
func Sign(s Spec, key *secret.Key) (string, error) {
	if err := s.check(key); err != nil {
		return "", err
	}
	payload, err := s.payload()
	if err != nil {
		return "", err
	}
	if err := s.checkLen(len(payload)); err != nil {
		return "", err
	}
	b := make([]byte, 0, tokenLen(len(payload)))
	b = base64.RawURLEncoding.AppendEncode(b, []byte(headerStart+s.KeyID+headerEnd))
	b = append(b, '.')
	b = base64.RawURLEncoding.AppendEncode(b, payload)
	signature, err := jwt.SigningMethodHS256.Sign(string(b), key.Bytes())
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	b = append(b, '.')
	return string(base64.RawURLEncoding.AppendEncode(b, signature)), nil
}

// CheckSize tells whether a token can be made that says this, before there is a key for it: all of CheckSubject,
// CheckAudience, CheckClaims, and then the length that the token would have.
func CheckSize(issuer, subject string, audience []string, claims map[string]any) error {
	s := Spec{
		Issuer: issuer, Subject: subject, Audience: audience, Claims: claims,
		ID: NewID(), IssuedAt: time.Unix(9_999_999_998, 0), ExpiresAt: time.Unix(9_999_999_999, 0), // ten digits, to 2286
	}
	if err := s.checkFields(); err != nil {
		return err
	}
	payload, err := s.payload()
	if err != nil {
		return err
	}
	return s.checkLen(len(payload))
}

func (s *Spec) check(key *secret.Key) error {
	switch {
	case len(key.Bytes()) != secret.KeySize:
		return errNoMaterial
	case !isKeyID(s.KeyID):
		return errors.New("token: not a key id")
	case subject.Check(s.ID) != nil:
		return errors.New("token: not a token id")
	case s.IssuedAt.Unix() < 0 || ceil(s.ExpiresAt) > maxTime || !s.IssuedAt.Before(s.ExpiresAt):
		return errors.New("token: its times are not in order")
	}
	return s.checkFields()
}

// checkFields checks what users and operators choose.
func (s *Spec) checkFields() error {
	if len(s.Issuer) > maxIssuer || subject.Check(s.Issuer) != nil {
		return fmt.Errorf("token: the issuer is not 1 to %d bytes of text", maxIssuer)
	}
	if err := CheckSubject("subject", s.Subject); err != nil {
		return err
	}
	if err := CheckAudience("audience", s.Audience); err != nil {
		return err
	}
	return CheckClaims("claims", s.Claims)
}

// payload writes the claims as JSON with sorted names, so that it has one spelling.
func (s *Spec) payload() ([]byte, error) {
	all := make(map[string]any, len(s.Claims)+len(registered))
	maps.Copy(all, s.Claims)
	all["iss"], all["sub"], all["jti"] = s.Issuer, s.Subject, s.ID
	all["iat"], all["nbf"], all["exp"] = s.IssuedAt.Unix(), s.IssuedAt.Unix(), ceil(s.ExpiresAt)
	switch len(s.Audience) {
	case 0:
	case 1:
		all["aud"] = s.Audience[0]
	default:
		all["aud"] = s.Audience
	}
	return encode(all)
}

// encode writes v as JSON, without the escapes that only HTML needs.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("writing claims: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// tokenLen is the length of a token with a payload of n bytes.
func tokenLen(n int) int {
	return headerTextLen + 1 + base64.RawURLEncoding.EncodedLen(n) + 1 + signatureTextLen
}

func (s *Spec) checkLen(payload int) error {
	n := tokenLen(payload)
	if n <= MaxLen {
		return nil
	}
	field := "claims"
	if len(s.Claims) == 0 {
		field = "audience"
	}
	return fault.Invalid(field, fmt.Sprintf("the token would have %d bytes, more than %d: shorten claims or audience", n, MaxLen))
}

// ceil gives the first whole second that is not before t.
func ceil(t time.Time) int64 {
	sec := t.Unix()
	if t.Nanosecond() > 0 {
		sec++
	}
	return sec
}

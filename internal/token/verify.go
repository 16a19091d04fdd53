package token

import (
	"errors"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/keyquorum/keyquorum/internal/secret"
)

// Check is what a token is held against.
type Check struct {
	// Now is the time to judge exp, nbf and iat by.
	Now time.Time
	// Issuer is the only one whose tokens are valid.
	Issuer string
	// Audience is the one asked for; empty for none, which only a token without an audience matches.
	Audience string
	// Key finds a key by the subject and key id that a token claims, which have the right form and nothing more.
	// It gives nil and no error if there is none. Verify is done with the key when it returns; whoever opened the
	// key then wipes it.
	Key func(subject, keyID string) (*secret.Key, error)
}

// Verified is what a valid token says; see Verify for an invalid one.
type Verified struct {
	Subject, KeyID, ID, Issuer     string
	Audience                       []string
	IssuedAt, NotBefore, ExpiresAt time.Time

	payload string
}

// Claims gives all claims of the token, the registered ones too; nil for an invalid one. Each number is as it was
// signed. The message is the caller's.
func (v Verified) Claims() *structpb.Struct { return readClaims(v.payload) }

var errNoMaterial = errors.New("token: the key has no material")

// Verify gives what raw says if it is valid, else the first reason why it is not. Of an invalid token it tells
// nothing, but for IssuedAt and NotBefore where the signature is right: by them a node that is behind can tell that
// it is. An error is only what Key returned, or a key without material; then the token was not judged. Memory and time are
// bounded by MaxLen, whatever raw is.
func Verify(raw string, c Check) (Verified, Reason, error) {
	f, ok := split(raw)
	if !ok {
		return Verified{}, Malformed, nil
	}
	p, ok := readPayload(f.payload)
	if !ok {
		return Verified{}, Malformed, nil
	}
	// The claims are whole seconds, so comparing them with the whole seconds of the time decides as the exact time
	// would: now < n and floor(now) < n are the same for an integer n.
	now := c.Now.Unix()
	if now >= p.expiresAt {
		return Verified{}, Expired, nil
	}
	key, err := c.Key(p.subject, f.keyID)
	if err != nil {
		return Verified{}, None, err
	}
	if key == nil {
		return Verified{}, KeyNotFound, nil
	}
	if len(key.Bytes()) != secret.KeySize {
		return Verified{}, None, errNoMaterial
	}
	if jwt.SigningMethodHS256.Verify(f.signed, f.signature[:], key.Bytes()) != nil {
		return Verified{}, SignatureInvalid, nil
	}
	if reason := p.judge(now, c); reason != None {
		all := verified(f, p)
		return Verified{IssuedAt: all.IssuedAt, NotBefore: all.NotBefore}, reason, nil
	}
	return verified(f, p), None, nil
}

// judge looks at what counts only once the signature is known to be right.
func (p *payload) judge(now int64, c Check) Reason {
	switch {
	case p.notBefore > now || p.issuedAt > now:
		return NotYetValid
	case p.issuer != c.Issuer:
		return IssuerMismatch
	case c.Audience == "" && len(p.audience) > 0:
		return AudienceMismatch
	case c.Audience != "" && !slices.Contains(p.audience, c.Audience):
		return AudienceMismatch
	}
	return None
}

func verified(f form, p payload) Verified {
	return Verified{
		Subject:   p.subject,
		KeyID:     f.keyID,
		ID:        p.id,
		Issuer:    p.issuer,
		Audience:  p.audience,
		IssuedAt:  time.Unix(p.issuedAt, 0).UTC(),
		NotBefore: time.Unix(p.notBefore, 0).UTC(),
		ExpiresAt: time.Unix(p.expiresAt, 0).UTC(),
		payload:   f.payload,
	}
}

// ClaimedSubject gives the subject that raw names, which has a subject's form and is proved by nothing; empty if raw has
// not got a token's form.
func ClaimedSubject(raw string) string {
	f, ok := split(raw)
	if !ok {
		return ""
	}
	p, ok := readPayload(f.payload)
	if !ok {
		return ""
	}
	return p.subject
}

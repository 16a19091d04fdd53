package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// MaxTokenBytes is how long a token can be. No cluster issues a longer one.
const MaxTokenBytes = 8 << 10

// ErrInvalidToken says that a token was judged, and is not valid. Whoever sent it has to get a new one.
var ErrInvalidToken = errors.New("the token is not valid")

// Why a token is not valid; errors.Is finds exactly one of them in an *InvalidTokenError, beside ErrInvalidToken.
var (
	// ErrTokenMalformed says that it is no token of Keyquorum's form, or too long.
	ErrTokenMalformed = errors.New("the token is malformed")
	// ErrTokenExpired says that its time is over.
	ErrTokenExpired = errors.New("the token has expired")
	// ErrTokenKeyNotFound says that its key was rotated away, revoked, or never there.
	ErrTokenKeyNotFound = errors.New("the token's key is not there")
	// ErrTokenSignatureInvalid says that it was forged, or damaged.
	ErrTokenSignatureInvalid = errors.New("the token's signature is not valid")
	// ErrTokenNotYetValid says that its time has not come.
	ErrTokenNotYetValid = errors.New("the token is not valid yet")
	// ErrTokenIssuerMismatch says that it is another cluster's.
	ErrTokenIssuerMismatch = errors.New("the token is another issuer's")
	// ErrTokenAudienceMismatch says that it is for somebody else than was asked for.
	ErrTokenAudienceMismatch = errors.New("the token is for somebody else")
)

// reasons is the one mapping back from the reasons on the wire.
var reasons = map[v1.VerifyResponse_Reason]error{
	v1.VerifyResponse_MALFORMED:         ErrTokenMalformed,
	v1.VerifyResponse_EXPIRED:           ErrTokenExpired,
	v1.VerifyResponse_KEY_NOT_FOUND:     ErrTokenKeyNotFound,
	v1.VerifyResponse_SIGNATURE_INVALID: ErrTokenSignatureInvalid,
	v1.VerifyResponse_NOT_YET_VALID:     ErrTokenNotYetValid,
	v1.VerifyResponse_ISSUER_MISMATCH:   ErrTokenIssuerMismatch,
	v1.VerifyResponse_AUDIENCE_MISMATCH: ErrTokenAudienceMismatch,
}

// InvalidTokenError is ErrInvalidToken with the reason.
type InvalidTokenError struct {
	// Reason is the first that applies.
	Reason v1.VerifyResponse_Reason
}

// Error says that the token is not valid, and why.
func (e *InvalidTokenError) Error() string { return ErrInvalidToken.Error() + ": " + e.Reason.String() }

// Is tells whether target is the sentinel of the reason.
func (e *InvalidTokenError) Is(target error) bool {
	why, known := reasons[e.Reason]
	return known && why == target
}

// Unwrap returns ErrInvalidToken.
func (e *InvalidTokenError) Unwrap() error { return ErrInvalidToken }

// Verified is a token that the cluster has called valid. There is no other way to one than VerifyToken and what calls it,
// so what it says can be relied on: it was so when it was judged. It does not hold the token.
type Verified struct {
	subject, keyID      string
	issuedAt, expiresAt time.Time
	claims              []byte
}

// Subject is the user that the token was issued for.
func (v *Verified) Subject() string { return v.subject }

// KeyID is that of the user's key that signed the token.
func (v *Verified) KeyID() string { return v.keyID }

// IssuedAt is when the token was issued.
func (v *Verified) IssuedAt() time.Time { return v.issuedAt }

// ExpiresAt is when the token ends, if its key is not revoked before.
func (v *Verified) ExpiresAt() time.Time { return v.expiresAt }

// String names the subject and the key. It leaves the claims out.
func (v *Verified) String() string { return v.subject + " (key " + v.keyID + ")" }

// Claims decodes the token's claims, the registered ones included, as encoding/json does. They are those of the token
// itself: integers are exact, in fields of an integer type and, as json.Number, in maps and values of type any. A field
// matches the claim of its name, or else, as always with encoding/json, one that differs in case only.
func (v *Verified) Claims(into any) error {
	d := json.NewDecoder(bytes.NewReader(v.claims))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("the token's claims do not fit into %T: %w", into, err)
	}
	return nil
}

// VerifyToken has a token judged and gives what it says. audience is whom the caller is, where its tokens name whom they
// are for, and empty where they do not. It fails with an *InvalidTokenError if the token is not valid, and with an *Error
// if that could not be told. What cannot be a token is not sent anywhere.
func (c *Client) VerifyToken(ctx context.Context, token, audience string) (*Verified, error) {
	return c.verified(ctx, &v1.VerifyRequest{Token: token, Audience: audience})
}

func (c *Client) verified(ctx context.Context, req *v1.VerifyRequest) (*Verified, error) {
	token := req.GetToken()
	if !wellFormed(token) {
		return nil, &InvalidTokenError{v1.VerifyResponse_MALFORMED}
	}
	req.OmitClaims = true
	res, err := c.Verify(ctx, req)
	switch {
	case err != nil:
		return nil, err
	case !res.GetValid():
		return nil, &InvalidTokenError{res.GetReason()}
	}
	claims, err := claimsOf(token, res.GetSubject())
	if err != nil {
		return nil, &Error{Op: "VerifyToken", Message: "a node calls a token valid that cannot be: " + err.Error(), kind: ErrInternal}
	}
	return &Verified{
		subject: res.GetSubject(), keyID: res.GetKeyId(),
		issuedAt: res.GetIssuedAt().AsTime(), expiresAt: res.GetExpiresAt().AsTime(), claims: claims,
	}, nil
}

// wellFormed tells what may be a token: three parts of base64url, and not too long.
func wellFormed(token string) bool {
	if len(token) > MaxTokenBytes || strings.Count(token, ".") != 2 {
		return false
	}
	return !strings.ContainsFunc(token, func(r rune) bool {
		return r != '.' && r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}

// claimsOf gives the payload of a valid token of the subject's.
func claimsOf(token, subject string) ([]byte, error) {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	claims, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return nil, errors.New("its payload is not base64url")
	}
	var registered struct {
		Subject string `json:"sub"`
	}
	d := json.NewDecoder(bytes.NewReader(claims))
	if err := d.Decode(&registered); err != nil || registered.Subject != subject {
		return nil, errors.New("its payload does not name the subject")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more follows after its payload")
	}
	return claims, nil
}

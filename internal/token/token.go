// Package token writes and reads Keyquorum's tokens: JWTs (RFC 7519) in compact form, signed with HS256 by the
// user's own key. All that a token must withstand is here and nowhere else, because a JWT library reads much more
// than one issuer ever writes, and reads it before the signature is checked. What is not of the one form that Sign
// writes is malformed:
//
//   - at most MaxLen bytes, looked at before anything is decoded;
//   - three parts in the base64url alphabet, without padding, line breaks or stray bits;
//   - a header that is byte for byte the one that Sign writes, but for the key id;
//   - a payload that is one JSON object, in valid UTF-8, with no member name twice at any level, no number that a
//     double cannot hold exactly, bounded nesting, and each registered claim present, in its exact spelling and type.
//
// Only then is the key looked up, by the subject and key id that the token claims; the algorithm is the key's, never
// the header's. What reading costs is bounded by MaxLen.
package token

// Limits of a token and of what goes into one.
const (
	// MaxLen is the longest token in bytes.
	MaxLen = 8 << 10
	// MaxClaims is the size of the caller's own claims as JSON, in bytes.
	MaxClaims = 4 << 10
	// MaxDepth is how deep the caller's claims may nest. The object that holds them all is the first level.
	MaxDepth = 32
	// MaxAudience is the number of audiences, each named like a subject.
	MaxAudience = 16
	// MaxInteger is the largest integer that survives JSON (RFC 7493, 2.2), and its negative the smallest.
	MaxInteger = 1<<53 - 1

	// maxIssuer is the longest issuer in bytes.
	maxIssuer = 256
	// maxTime is the last second of the year 9999, after which RFC 3339 has no way to write a time.
	maxTime = 253402300799
)

// registered are the claims that Keyquorum sets, all of RFC 7519, 4.1. A caller's claim may not even fold to one, as
// readers exist that match names without regard to case.
var registered = [...]string{"aud", "exp", "iat", "iss", "jti", "nbf", "sub"}

// Reason says why a token is not valid: the first that applies, in this order.
type Reason uint8

const (
	// None is for a valid token.
	None Reason = iota
	// Malformed is for what is no token of Keyquorum's form.
	Malformed
	// Expired is for a token past its own exp, before any key is looked up.
	Expired
	// KeyNotFound is for a key that was rotated away, revoked, or never there.
	KeyNotFound
	// SignatureInvalid is for a signature that is not the key's.
	SignatureInvalid
	// NotYetValid is for an nbf or iat that lies ahead.
	NotYetValid
	// IssuerMismatch is for another issuer's token.
	IssuerMismatch
	// AudienceMismatch is for a token whose audience is not the one asked for, or that has one where none was
	// asked for (RFC 7519, 4.1.3), or none where one was.
	AudienceMismatch
)

var reasons = [...]string{
	None:             "NONE",
	Malformed:        "MALFORMED",
	Expired:          "EXPIRED",
	KeyNotFound:      "KEY_NOT_FOUND",
	SignatureInvalid: "SIGNATURE_INVALID",
	NotYetValid:      "NOT_YET_VALID",
	IssuerMismatch:   "ISSUER_MISMATCH",
	AudienceMismatch: "AUDIENCE_MISMATCH",
}

// String gives the reason's name on the wire.
func (r Reason) String() string {
	if int(r) < len(reasons) {
		return reasons[r]
	}
	return "UNKNOWN"
}

package token

import (
	"encoding/base64"
	"strings"
)

// The header that Sign writes, around the key id. Nobody else writes tokens, so no other spelling is read: that
// leaves no room for another algorithm, type, "crit" or a member twice.
const (
	headerStart = `{"alg":"HS256","kid":"`
	headerEnd   = `","typ":"JWT"}`
	headerLen   = len(headerStart) + keyIDLen + len(headerEnd)
)

const (
	// keyIDLen is the length of a key id's text: 128 bits.
	keyIDLen     = 22
	signatureLen = 32
)

// Lengths of the parts as they are sent.
var (
	headerTextLen    = base64.RawURLEncoding.EncodedLen(headerLen)
	signatureTextLen = base64.RawURLEncoding.EncodedLen(signatureLen)
)

// form is a token taken apart.
type form struct {
	// signed is what the signature is made over: the first two parts as they were sent.
	signed    string
	keyID     string
	payload   string
	signature [signatureLen]byte
}

// split takes a token apart and decodes its parts, of which only the payload is left to be read.
func split(raw string) (f form, ok bool) {
	if len(raw) > MaxLen {
		return form{}, false
	}
	header, rest, ok := strings.Cut(raw, ".")
	if !ok {
		return form{}, false
	}
	payload, signature, ok := strings.Cut(rest, ".")
	if !ok || len(signature) != signatureTextLen || !decode(f.signature[:], signature) {
		return form{}, false
	}
	if f.keyID, ok = readHeader(header); !ok {
		return form{}, false
	}
	if f.payload, ok = decodeString(payload); !ok {
		return form{}, false
	}
	f.signed = raw[:len(header)+1+len(payload)]
	return f, true
}

// readHeader gives the key id of a header.
func readHeader(s string) (keyID string, ok bool) {
	if len(s) != headerTextLen {
		return "", false
	}
	var b [headerLen]byte
	if !decode(b[:], s) {
		return "", false
	}
	if string(b[:len(headerStart)]) != headerStart || string(b[headerLen-len(headerEnd):]) != headerEnd {
		return "", false
	}
	keyID = string(b[len(headerStart):][:keyIDLen])
	return keyID, isKeyID(keyID)
}

// isKeyID tells whether s is a key id in its one spelling. All zeros name no key.
func isKeyID(s string) bool {
	var b [keyIDLen * 6 / 8]byte
	return len(s) == keyIDLen && decode(b[:], s) && b != [len(b)]byte{}
}

package token

import "strings"

// sextets maps each byte of the base64url alphabet (RFC 4648, 5) to its six bits, and all others to noSextet.
// encoding/base64 skips line breaks even where it is strict, so that one token would have many spellings.
var sextets = func() (t [256]byte) {
	for i := range t {
		t[i] = noSextet
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	return t
}()

const noSextet = 0xff

// decodedLen is the length in bytes of what n characters encode.
func decodedLen(n int) int { return n * 6 / 8 }

// decode writes what s encodes to dst, which has decodedLen(len(s)) bytes. There is one spelling for each value:
// no padding, and no bits behind the last byte.
func decode(dst []byte, s string) bool {
	for len(s) >= 4 {
		a, b, c, d := sextets[s[0]], sextets[s[1]], sextets[s[2]], sextets[s[3]]
		if a|b|c|d == noSextet {
			return false
		}
		dst[0], dst[1], dst[2] = a<<2|b>>4, b<<4|c>>2, c<<6|d
		dst, s = dst[3:], s[4:]
	}
	switch len(s) {
	case 0:
		return true
	case 2:
		a, b := sextets[s[0]], sextets[s[1]]
		if a|b == noSextet || b&0xf != 0 {
			return false
		}
		dst[0] = a<<2 | b>>4
		return true
	case 3:
		a, b, c := sextets[s[0]], sextets[s[1]], sextets[s[2]]
		if a|b|c == noSextet || c&0x3 != 0 {
			return false
		}
		dst[0], dst[1] = a<<2|b>>4, b<<4|c>>2
		return true
	}
	return false
}

// decodeString gives what s encodes, in one allocation.
func decodeString(s string) (string, bool) {
	const step = 1024
	var out strings.Builder
	out.Grow(decodedLen(len(s)))
	var chunk [step * 6 / 8]byte
	for s != "" {
		part := s[:min(step, len(s))]
		s = s[len(part):]
		b := chunk[:decodedLen(len(part))]
		if !decode(b, part) {
			return "", false
		}
		out.Write(b)
	}
	return out.String(), true
}

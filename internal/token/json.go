package token

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads JSON (RFC 8259) as strictly as I-JSON (RFC 7493) has it. It reads what anyone may have sent, so it
// keeps little: strings are parts of the text unless they hold escapes.
//
// Its methods begin at text[pos] and tell by their bool whether what they look for was there; after a false the
// scanner is of no more use.
type scanner struct {
	// text is valid UTF-8.
	text string
	pos  int
	// names are those of the members of all objects that are open.
	names []string
}

// peek gives the byte at pos, or 0 at the end, which no JSON text has anywhere.
func (s *scanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

// next steps over c if it is there.
func (s *scanner) next(c byte) bool {
	if s.pos == len(s.text) || s.text[s.pos] != c {
		return false
	}
	s.pos++
	return true
}

func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// end tells whether nothing but space is left.
func (s *scanner) end() bool {
	s.space()
	return s.pos == len(s.text)
}

// value steps over one value; depth is that of what contains it.
func (s *scanner) value(depth int) bool {
	switch c := s.peek(); c {
	case '{':
		return s.object(depth+1, s.value)
	case '[':
		return s.array(depth+1, s.value)
	case '"':
		_, _, ok := s.quoted()
		return ok
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner) literal(word string) bool {
	if !strings.HasPrefix(s.text[s.pos:], word) {
		return false
	}
	s.pos += len(word)
	return true
}

// enough tells whether depth is one more than the tokens of Sign ever reach.
func enough(depth int) bool { return depth > MaxDepth+1 }

// object reads an object at depth; value reads each member's value, whose name is then the last of s.names.
func (s *scanner) object(depth int, value func(depth int) bool) bool {
	first := len(s.names)
	if enough(depth) || !s.next('{') {
		return false
	}
	s.space()
	for more := !s.next('}'); more; {
		if !s.member(depth, value) {
			return false
		}
		if more = s.next(','); !more && !s.next('}') {
			return false
		}
	}
	ok := distinct(s.names[first:])
	s.names = s.names[:first]
	return ok
}

// member reads a name and its value, and the space around them.
func (s *scanner) member(depth int, value func(depth int) bool) bool {
	s.space()
	name, ok := s.string()
	if !ok {
		return false
	}
	s.names = append(s.names, name)
	s.space()
	if !s.next(':') {
		return false
	}
	s.space()
	if !value(depth) {
		return false
	}
	s.space()
	return true
}

// distinct sorts names if they are many, as their sender chose how many.
func distinct(names []string) bool {
	if len(names) > 16 {
		slices.Sort(names)
		for i := range names[1:] {
			if names[i] == names[i+1] {
				return false
			}
		}
		return true
	}
	for i := range names {
		if slices.Contains(names[:i], names[i]) {
			return false
		}
	}
	return true
}

// array reads an array at depth; value reads each element.
func (s *scanner) array(depth int, value func(depth int) bool) bool {
	if enough(depth) || !s.next('[') {
		return false
	}
	s.space()
	for more := !s.next(']'); more; {
		s.space()
		if !value(depth) {
			return false
		}
		s.space()
		if more = s.next(','); !more && !s.next(']') {
			return false
		}
	}
	return true
}

// string reads a string.
func (s *scanner) string() (string, bool) {
	raw, escapes, ok := s.quoted()
	if !ok || !escapes {
		return raw, ok
	}
	return unescape(raw), true
}

// quoted steps over a string and gives what is between its quotes, and whether there are escapes in it.
func (s *scanner) quoted() (raw string, escapes, ok bool) {
	if !s.next('"') {
		return "", false, false
	}
	start := s.pos
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == '"':
			s.pos++
			return s.text[start : s.pos-1], escapes, true
		case c < ' ':
			return "", false, false
		case c == '\\':
			escapes = true
			n := escapeLen(s.text[s.pos:])
			if n == 0 {
				return "", false, false
			}
			s.pos += n
		default:
			s.pos++
		}
	}
	return "", false, false
}

// escapeLen is the length of the escape that t begins with, or 0 if it is none. Half a surrogate pair is none, as
// readers make different things of it.
func escapeLen(t string) int {
	if len(t) < 2 {
		return 0
	}
	if strings.IndexByte(`"\/bfnrt`, t[1]) >= 0 {
		return 2
	}
	r, ok := hexEscape(t)
	switch {
	case !ok:
		return 0
	case !utf16.IsSurrogate(r):
		return 6
	}
	low, ok := hexEscape(t[6:])
	if !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
		return 0
	}
	return 12
}

// hexEscape reads the escape of four hexadecimal digits that t begins with.
func hexEscape(t string) (rune, bool) {
	if len(t) < 6 || t[0] != '\\' || t[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range []byte(t[2:6]) {
		digit := strings.IndexByte("0123456789abcdef", c|0x20)
		if digit < 0 || c < '0' {
			return 0, false
		}
		r = r<<4 | rune(digit)
	}
	return r, true
}

// unescape resolves the escapes of a string that quoted has accepted.
func unescape(raw string) string {
	var out strings.Builder
	out.Grow(len(raw))
	for {
		i := strings.IndexByte(raw, '\\')
		if i < 0 {
			out.WriteString(raw)
			return out.String()
		}
		out.WriteString(raw[:i])
		n := escapeLen(raw[i:])
		out.WriteRune(escaped(raw[i : i+n]))
		raw = raw[i+n:]
	}
}

// escaped is what one escape stands for.
func escaped(t string) rune {
	if i := strings.IndexByte(`"\/bfnrt`, t[1]); i >= 0 {
		return rune("\"\\/\b\f\n\r\t"[i])
	}
	r, _ := hexEscape(t)
	if len(t) == 12 {
		low, _ := hexEscape(t[6:])
		return utf16.DecodeRune(r, low)
	}
	return r
}

// number steps over a number that a double holds exactly where it is an integer, and near enough where it is not.
func (s *scanner) number() bool {
	_, ok := s.float()
	return ok
}

// float reads such a number.
func (s *scanner) float() (float64, bool) {
	start := s.pos
	s.next('-')
	if !s.next('0') && !s.digits() {
		return 0, false
	}
	if s.next('.') && !s.digits() {
		return 0, false
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if !s.next('+') {
			s.next('-')
		}
		if !s.digits() {
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(s.text[start:s.pos], 64)
	return f, err == nil && -MaxInteger <= f && f <= MaxInteger
}

// digits steps over one digit or more.
func (s *scanner) digits() bool {
	start := s.pos
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.pos++
	}
	return s.pos > start
}

// integer reads a number that is written as an integer from 0 to MaxInteger.
func (s *scanner) integer() (int64, bool) {
	start := s.pos
	if !s.number() {
		return 0, false
	}
	n, err := strconv.ParseUint(s.text[start:s.pos], 10, 53)
	return int64(n), err == nil
}

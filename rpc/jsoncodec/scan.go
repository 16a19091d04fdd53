package jsoncodec

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// scanner reads the grammar of RFC 8259 from in.
type scanner struct {
	in    []byte
	pos   int
	depth int
	// free counts the values of the free-form object that is being read.
	free int
	// picky has it refuse, in a free-form object, what no double and no text can hold.
	picky bool
}

func (s *scanner) fail(at int, reason string) *Error {
	before := s.in[:min(at, len(s.in))]
	return &Error{
		Line:   bytes.Count(before, []byte{'\n'}) + 1,
		Column: len(before) - bytes.LastIndexByte(before, '\n'),
		Reason: reason,
	}
}

// next skips white space and gives the byte that follows, 0 at the end.
func (s *scanner) next() byte {
	for s.pos < len(s.in) {
		switch c := s.in[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) unexpected(want string) *Error {
	if s.pos >= len(s.in) {
		return s.fail(s.pos, "the JSON ends early: "+want+" is missing")
	}
	return s.fail(s.pos, "not valid JSON: "+want+" was expected here")
}

func (s *scanner) expect(c byte, want string) *Error {
	if s.next() != c {
		return s.unexpected(want)
	}
	s.pos++
	return nil
}

func (s *scanner) open() *Error {
	if s.depth++; s.depth > MaxDepth {
		return s.fail(s.pos, "nested deeper than "+strconv.Itoa(MaxDepth)+" levels")
	}
	s.pos++
	return nil
}

func (s *scanner) close() {
	s.depth--
	s.pos++
}

// object reads an object. It calls member for each name, with s standing before the value that member reads.
func (s *scanner) object(member func(name string, at int) *Error) *Error {
	if s.next() != '{' {
		return s.unexpected("an object")
	}
	if err := s.open(); err != nil {
		return err
	}
	for first := true; ; first = false {
		switch c := s.next(); {
		case c == '}' && first:
			s.close()
			return nil
		case c != '"':
			return s.unexpected("a name in quotes")
		}
		at := s.pos
		name, err := s.text()
		if err != nil {
			return err
		}
		if err := s.expect(':', "a colon"); err != nil {
			return err
		}
		if err := member(name, at); err != nil {
			return err
		}
		if more, err := s.more('}'); !more {
			return err
		}
	}
}

// list reads a list. It calls element for each, with s standing before the value that element reads.
func (s *scanner) list(element func(i int) *Error) *Error {
	if s.next() != '[' {
		return s.unexpected("a list")
	}
	if err := s.open(); err != nil {
		return err
	}
	if s.next() == ']' {
		s.close()
		return nil
	}
	for i := 0; ; i++ {
		if err := element(i); err != nil {
			return err
		}
		if more, err := s.more(']'); !more {
			return err
		}
	}
}

// more reads what follows a value in an object or a list.
func (s *scanner) more(end byte) (bool, *Error) {
	switch s.next() {
	case ',':
		s.pos++
		return true, nil
	case end:
		s.close()
		return false, nil
	}
	return false, s.unexpected("a comma or " + strconv.Quote(string(end)))
}

// text reads a string and gives what it means.
func (s *scanner) text() (string, *Error) {
	raw, plain, err := s.rawText()
	if err != nil {
		return "", err
	}
	if plain {
		return string(raw[1 : len(raw)-1]), nil
	}
	var v wrapperspb.StringValue
	if protojson.Unmarshal(raw, &v) != nil {
		return "", s.fail(s.pos-len(raw), "a string with an escape that means no character")
	}
	return v.Value, nil
}

// rawText reads a string as it stands; plain tells that it has no escapes.
func (s *scanner) rawText() (raw []byte, plain bool, err *Error) {
	if s.next() != '"' {
		return nil, false, s.unexpected("a string")
	}
	plain = true
	for i := s.pos + 1; i < len(s.in); i++ {
		switch c := s.in[i]; {
		case c == '"':
			raw = s.in[s.pos : i+1]
			s.pos = i + 1
			return raw, plain, nil
		case c == '\\':
			plain = false
			i++
		case c < ' ':
			return nil, false, s.fail(i, "not valid JSON: a control character in a string")
		}
	}
	return nil, false, s.fail(len(s.in), "the JSON ends early: a string is not closed")
}

// word passes over a number, true, false or null.
func (s *scanner) word() *Error {
	s.next()
	start := s.pos
	for s.pos < len(s.in) && isWord(s.in[s.pos]) {
		s.pos++
	}
	raw := s.in[start:s.pos]
	if !isLiteral(raw) && !isNumber(raw) {
		s.pos = start
		return s.unexpected("a value")
	}
	return nil
}

func isWord(c byte) bool {
	return c == '-' || c == '+' || c == '.' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isLiteral(b []byte) bool {
	switch string(b) {
	case "true", "false", "null":
		return true
	}
	return false
}

// isNumber tells whether b is a number as RFC 8259, 6 spells them.
func isNumber(b []byte) bool {
	b = bytes.TrimPrefix(b, []byte("-"))
	rest := digits(b)
	if len(rest) == len(b) || b[0] == '0' && len(b)-len(rest) > 1 {
		return false
	}
	if len(rest) > 0 && rest[0] == '.' {
		fraction := rest[1:]
		if rest = digits(fraction); len(rest) == len(fraction) {
			return false
		}
	}
	if len(rest) > 0 && (rest[0] == 'e' || rest[0] == 'E') {
		exponent := rest[1:]
		if len(exponent) > 0 && (exponent[0] == '+' || exponent[0] == '-') {
			exponent = exponent[1:]
		}
		if rest = digits(exponent); len(rest) == len(exponent) {
			return false
		}
	}
	return len(rest) == 0
}

// digits gives what follows the digits at the start of b.
func digits(b []byte) []byte {
	for len(b) > 0 && '0' <= b[0] && b[0] <= '9' {
		b = b[1:]
	}
	return b
}

// anything reads a value of any form.
func (s *scanner) anything() *Error {
	if s.free++; s.free > MaxFreeValues {
		return s.fail(s.pos, "more than "+strconv.Itoa(MaxFreeValues)+" values")
	}
	switch s.next() {
	case '{':
		seen := make(map[string]struct{})
		return s.object(func(name string, at int) *Error {
			if _, twice := seen[name]; twice {
				return s.fail(at, "the name "+printable(name)+" stands there twice")
			}
			seen[name] = struct{}{}
			return under(printable(name), s.anything())
		})
	case '[':
		return s.list(func(i int) *Error { return under(index(i), s.anything()) })
	case '"':
		if s.picky {
			_, err := s.text()
			return err
		}
		_, _, err := s.rawText()
		return err
	}
	return s.scalar()
}

// scalar passes over a number, true, false or null of a free-form object.
func (s *scanner) scalar() *Error {
	start := s.pos
	if err := s.word(); err != nil || !s.picky {
		return err
	}
	if _, err := strconv.ParseFloat(string(s.in[start:s.pos]), 64); errors.Is(err, strconv.ErrRange) {
		return s.fail(start, "is a number out of range: send it as a string")
	}
	return nil
}

// under puts a name or an index before the path of err.
func under(name string, err *Error) *Error {
	switch {
	case err == nil:
		return nil
	case err.Field == "":
		err.Field = name
	case err.Field[0] == '[':
		err.Field = name + err.Field
	default:
		err.Field = name + "." + err.Field
	}
	return err
}

func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

// printable gives a name that a caller sent in a form that is fit for an error: short, and quoted where it is not plain.
func printable(name string) string {
	const most = 40
	if len(name) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(name[cut]) {
			cut--
		}
		name = name[:cut] + "…"
	}
	if quoted := strconv.Quote(name); name == "" || quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

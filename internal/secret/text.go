package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Text is a secret that is text, such as a token for another service. As a Key, it cannot be printed, marshalled, or
// compared with ==. Go keeps strings for as long as it likes, so it cannot be wiped either.
type Text struct {
	_ [0]func()
	m *textMaterial
}

type textMaterial struct{ s *string }

// NewText makes s a secret.
func NewText(s string) Text { return Text{m: &textMaterial{&s}} }

// Reveal gives the text, for the one who has to have it.
func (t Text) Reveal() string {
	if t.m == nil {
		return ""
	}
	return *t.m.s
}

// Empty tells whether there is no text.
func (t Text) Empty() bool { return t.m == nil || *t.m.s == "" }

// Equal compares in a time that tells nothing but the lengths.
func (t Text) Equal(other Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Reveal()), []byte(other.Reveal())) == 1
}

func (Text) String() string                 { return redacted }
func (Text) GoString() string               { return redacted }
func (Text) Format(s fmt.State, _ rune)     { _, _ = s.Write([]byte(redacted)) }
func (Text) LogValue() slog.Value           { return slog.StringValue(redacted) }
func (Text) MarshalText() ([]byte, error)   { return nil, errMarshal }
func (Text) MarshalJSON() ([]byte, error)   { return nil, errMarshal }
func (Text) MarshalBinary() ([]byte, error) { return nil, errMarshal }
func (Text) GobEncode() ([]byte, error)     { return nil, errMarshal }

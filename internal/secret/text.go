package secret

import (
	"fmt"
	"log/slog"
)

// Text is a secret that goes out as it is, such as an API token in a header. It prints as little as a Key does. The zero
// Text is empty.
type Text struct {
	// A function, as no print of any value that holds one follows it.
	reveal func() string
}

// NewText makes s a secret.
func NewText(s string) Text { return Text{func() string { return s }} }

// Reveal gives the text itself: it is for where it goes out, and not to be kept.
func (t Text) Reveal() string {
	if t.reveal == nil {
		return ""
	}
	return t.reveal()
}

func (Text) String() string                 { return redacted }
func (Text) GoString() string               { return redacted }
func (Text) Format(s fmt.State, _ rune)     { _, _ = s.Write([]byte(redacted)) }
func (Text) LogValue() slog.Value           { return slog.StringValue(redacted) }
func (Text) MarshalText() ([]byte, error)   { return nil, errMarshal }
func (Text) MarshalJSON() ([]byte, error)   { return nil, errMarshal }
func (Text) MarshalBinary() ([]byte, error) { return nil, errMarshal }
func (Text) GobEncode() ([]byte, error)     { return nil, errMarshal }

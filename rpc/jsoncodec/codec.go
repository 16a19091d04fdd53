// Package jsoncodec is the JSON of Keyquorum's API: proto3's mapping, held stricter than protojson holds it, since a
// misspelt field that is dropped in silence can cost a caller a shorter lifetime or an audience.
//
// In: names in camelCase only, unknown and repeated names refused, enums by name, one value and nothing after it, and
// bounds on nesting and on the number of values, so that a small body cannot become a large message. What is refused is
// told by field and position, and never quotes a value: those can be tokens.
//
// Out: default values written, no white space, fields in the order of their numbers: the same bytes for the same
// message.
package jsoncodec

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Bounds on what is decoded.
const (
	// MaxDepth is how deep objects and lists may be nested in a whole body.
	MaxDepth = 64
	// MaxFreeValues is how many values an object of free form (google.protobuf.Struct) may hold, at all levels together.
	// Each takes some 150 bytes of memory, and at least two of JSON.
	MaxFreeValues = 4096
)

// Error tells what is wrong with a body that cannot be decoded.
type Error struct {
	// Field is the path to the field at fault, or empty where no field can be named.
	Field string
	// Line and Column say where, both from 1; columns count bytes.
	Line, Column int
	// Reason is in words. It does not quote what was sent.
	Reason string
}

func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Description()
	}
	return e.Description()
}

// Description is the reason and the position, without the field.
func (e *Error) Description() string {
	return fmt.Sprintf("%s (line %d, column %d)", e.Reason, e.Line, e.Column)
}

// Codec is a connect.Codec (and the appending extension of it) for the name it is made with.
// It is safe for concurrent use.
type Codec struct{ name string }

// New gives the codec that is registered as name: connect looks up "json" and "json; charset=utf-8" apart.
func New(name string) Codec { return Codec{name} }

// Name is the name that the codec is registered as.
func (c Codec) Name() string { return c.name }

// Marshal writes a proto.Message.
func (c Codec) Marshal(m any) ([]byte, error) { return c.MarshalAppend(nil, m) }

// MarshalAppend writes a proto.Message after dst.
func (Codec) MarshalAppend(dst []byte, m any) ([]byte, error) {
	msg, err := message(m)
	if err != nil {
		return nil, err
	}
	return Append(dst, msg)
}

// Unmarshal reads a proto.Message. What is wrong with data is an *Error.
func (Codec) Unmarshal(data []byte, m any) error {
	msg, err := message(m)
	if err != nil {
		return err
	}
	return Unmarshal(data, msg)
}

func message(m any) (proto.Message, error) {
	msg, ok := m.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("jsoncodec: %T is not a proto.Message", m)
	}
	return msg, nil
}

// Append writes m after dst.
func Append(dst []byte, m proto.Message) ([]byte, error) {
	start := len(dst)
	out, err := protojson.MarshalOptions{EmitDefaultValues: true}.MarshalAppend(dst, m)
	if err != nil {
		return nil, fmt.Errorf("jsoncodec: encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return out[:start+compact(out[start:])], nil
}

// compact takes the spaces out of valid JSON in place and gives its new length. protojson puts some in on purpose, so
// that no one relies on its bytes; here they are all that varies.
func compact(b []byte) int {
	n, inText := 0, false
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case inText && c == '\\':
			b[n] = c
			n, i = n+1, i+1
			c = b[i]
		case c == '"':
			inText = !inText
		case c == ' ' && !inText:
			continue
		}
		b[n] = c
		n++
	}
	return n
}

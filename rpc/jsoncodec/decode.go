package jsoncodec

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Unmarshal reads data into m, which it clears first. What is wrong with data is an *Error; m is then of no use.
func Unmarshal(data []byte, m proto.Message) error {
	proto.Reset(m)
	d := decoder{scanner{in: data}}
	if err := d.document(m.ProtoReflect()); err != nil {
		return err
	}
	return nil
}

// decoder puts what the scanner reads into messages. Values of the types that protobuf itself defines (Duration,
// Timestamp, Struct, …) and numbers it leaves to protojson, one at a time.
type decoder struct{ scanner }

func (d *decoder) document(m protoreflect.Message) *Error {
	if !utf8.Valid(d.in) {
		return d.fail(invalidUTF8(d.in), "not valid UTF-8")
	}
	if d.next() == 0 && d.pos == len(d.in) {
		return d.fail(d.pos, "the body is empty: send at least {}")
	}
	if err := d.message(m); err != nil {
		return err
	}
	if d.next(); d.pos < len(d.in) {
		return d.fail(d.pos, "something follows the JSON")
	}
	return nil
}

func invalidUTF8(b []byte) int {
	at := 0
	for at < len(b) {
		r, size := utf8.DecodeRune(b[at:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		at += size
	}
	return at
}

func (d *decoder) message(m protoreflect.Message) *Error {
	if m.Descriptor().ParentFile().Package() == "google.protobuf" {
		return d.wellKnown(m)
	}
	fields := m.Descriptor().Fields()
	var seen, oneofs seenSet
	return d.object(func(name string, at int) *Error {
		fd := fields.ByJSONName(name)
		switch {
		case fd == nil:
			return under(printable(name), d.fail(at, unknown(fields, name)))
		case seen.twice(fd.Index()):
			return under(name, d.fail(at, "stands there twice"))
		}
		return under(name, d.field(m, fd, &oneofs))
	})
}

// unknown says that name is no field, and how it is spelled if there is one much like it.
func unknown(fields protoreflect.FieldDescriptors, name string) string {
	for i := range fields.Len() {
		known := fields.Get(i).JSONName()
		if strings.EqualFold(strings.ReplaceAll(name, "_", ""), known) {
			return fmt.Sprintf("unknown field: it is spelled %q", known)
		}
	}
	return "unknown field"
}

// seenSet remembers small numbers.
type seenSet struct {
	low  uint64
	high map[int]bool
}

func (s *seenSet) twice(i int) bool {
	if i < 64 {
		was := s.low&(1<<i) != 0
		s.low |= 1 << i
		return was
	}
	was := s.high[i]
	if s.high == nil {
		s.high = make(map[int]bool)
	}
	s.high[i] = true
	return was
}

// field reads the value of fd into m. A null leaves it absent.
func (d *decoder) field(m protoreflect.Message, fd protoreflect.FieldDescriptor, oneofs *seenSet) *Error {
	at := d.pos
	switch c := d.next(); {
	case c == 'n':
		return d.word()
	case fd.IsMap():
		return d.fail(at, "a field of a kind that cannot be sent as JSON")
	case fd.IsList():
		return d.elements(m.Mutable(fd).List(), fd)
	}
	if of := fd.ContainingOneof(); of != nil && oneofs.twice(of.Index()) {
		return d.fail(at, "excludes another field that is there")
	}
	v, err := d.value(m.NewField(fd), fd)
	if err != nil {
		return err
	}
	m.Set(fd, v)
	return nil
}

func (d *decoder) elements(list protoreflect.List, fd protoreflect.FieldDescriptor) *Error {
	if d.next() != '[' {
		return d.want("a list")
	}
	return d.list(func(i int) *Error {
		v, err := d.value(list.NewElement(), fd)
		if err != nil {
			return under(index(i), err)
		}
		list.Append(v)
		return nil
	})
}

// value reads one value of fd's kind; a message it reads into fresh.
func (d *decoder) value(fresh protoreflect.Value, fd protoreflect.FieldDescriptor) (protoreflect.Value, *Error) {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return fresh, d.message(fresh.Message())
	case protoreflect.StringKind:
		if d.next() != '"' {
			return fresh, d.want("a string")
		}
		text, err := d.text()
		return protoreflect.ValueOfString(text), err
	case protoreflect.EnumKind:
		return d.enum(fd.Enum())
	case protoreflect.BoolKind:
		return d.wrapped(&wrapperspb.BoolValue{}, "true or false")
	case protoreflect.BytesKind:
		return d.wrapped(&wrapperspb.BytesValue{}, "base64 in a string")
	case protoreflect.Int32Kind:
		return d.wrapped(&wrapperspb.Int32Value{}, "an integer of 32 bits")
	case protoreflect.Uint32Kind:
		return d.wrapped(&wrapperspb.UInt32Value{}, "a non-negative integer of 32 bits")
	case protoreflect.Int64Kind:
		return d.wrapped(&wrapperspb.Int64Value{}, "an integer of 64 bits")
	case protoreflect.Uint64Kind:
		return d.wrapped(&wrapperspb.UInt64Value{}, "a non-negative integer of 64 bits")
	}
	return fresh, d.fail(d.pos, "a field of a kind that cannot be sent as JSON")
}

func (d *decoder) want(what string) *Error {
	if d.pos >= len(d.in) {
		return d.unexpected("a value")
	}
	return d.fail(d.pos, "must be "+what)
}

func (d *decoder) enum(ed protoreflect.EnumDescriptor) (protoreflect.Value, *Error) {
	if d.next() != '"' {
		return protoreflect.Value{}, d.want("one of " + names(ed))
	}
	at := d.pos
	text, err := d.text()
	if err != nil {
		return protoreflect.Value{}, err
	}
	known := ed.Values().ByName(protoreflect.Name(text))
	if known == nil {
		return protoreflect.Value{}, d.fail(at, "must be one of "+names(ed))
	}
	return protoreflect.ValueOfEnum(known.Number()), nil
}

func names(ed protoreflect.EnumDescriptor) string {
	var all []string
	for i := range ed.Values().Len() {
		all = append(all, string(ed.Values().Get(i).Name()))
	}
	return strings.Join(all, ", ")
}

// wrapped reads a scalar by way of the wrapper message of its kind, which has it as field 1.
func (d *decoder) wrapped(box proto.Message, what string) (protoreflect.Value, *Error) {
	m := box.ProtoReflect()
	if err := d.delegate(m, what); err != nil {
		return protoreflect.Value{}, err
	}
	return m.Get(m.Descriptor().Fields().ByNumber(1)), nil
}

// wellKnown reads a message of protobuf's own.
func (d *decoder) wellKnown(m protoreflect.Message) *Error {
	switch m.Descriptor().Name() {
	case "Duration":
		return d.delegate(m, `a duration in seconds such as "900s"`)
	case "Timestamp":
		return d.delegate(m, `a time such as "2030-01-02T15:04:05Z"`)
	case "Struct":
		return d.structure(m)
	}
	return d.delegate(m, "a "+string(m.Descriptor().Name()))
}

// structure reads a free-form object. Where protojson does not take it, it is read again to find which value is at fault.
func (d *decoder) structure(m protoreflect.Message) *Error {
	if d.next() != '{' {
		return d.want("an object")
	}
	start, err := d.span()
	if err != nil || protojson.Unmarshal(d.in[start:d.pos], m.Interface()) == nil {
		return err
	}
	d.pos, d.free, d.picky = start, 0, true
	if err := d.anything(); err != nil {
		return err
	}
	return d.fail(start, "must be an object that protobuf can hold")
}

// delegate has protojson read the next value, whose bounds have been checked.
func (d *decoder) delegate(m protoreflect.Message, what string) *Error {
	start, err := d.span()
	if err != nil {
		return err
	}
	if protojson.Unmarshal(d.in[start:d.pos], m.Interface()) != nil {
		return d.fail(start, "must be "+what)
	}
	return nil
}

// span passes over the next value, and gives where it begins.
func (d *decoder) span() (int, *Error) {
	d.next()
	start := d.pos
	d.free = 0
	return start, d.anything()
}

package token

import "google.golang.org/protobuf/types/known/structpb"

// readClaims gives a payload as the message that answers have it in, with nothing in between: a small token can have
// thousands of values. It gives nil for what readPayload does not take.
func readClaims(text string) *structpb.Struct {
	b := builder{scanner: scanner{text: text}}
	b.space()
	claims, ok := b.structure(0)
	if !ok || !b.end() {
		return nil
	}
	return claims
}

// builder is a scanner that keeps what it reads. Its methods take the depth of what contains the value, as value does.
type builder struct{ scanner }

func (b *builder) structure(depth int) (*structpb.Struct, bool) {
	out := &structpb.Struct{Fields: make(map[string]*structpb.Value)}
	ok := b.object(depth+1, func(depth int) bool {
		name := b.names[len(b.names)-1]
		v, ok := b.build(depth)
		out.Fields[name] = v
		return ok
	})
	return out, ok
}

func (b *builder) list(depth int) (*structpb.ListValue, bool) {
	out := new(structpb.ListValue)
	ok := b.array(depth+1, func(depth int) bool {
		v, ok := b.build(depth)
		out.Values = append(out.Values, v)
		return ok
	})
	return out, ok
}

// build reads one value.
func (b *builder) build(depth int) (*structpb.Value, bool) {
	switch b.peek() {
	case '{':
		fields, ok := b.structure(depth)
		return structpb.NewStructValue(fields), ok
	case '[':
		values, ok := b.list(depth)
		return structpb.NewListValue(values), ok
	case '"':
		text, ok := b.string()
		return structpb.NewStringValue(text), ok
	case 't':
		return structpb.NewBoolValue(true), b.literal("true")
	case 'f':
		return structpb.NewBoolValue(false), b.literal("false")
	case 'n':
		return structpb.NewNullValue(), b.literal("null")
	default:
		n, ok := b.float()
		return structpb.NewNumberValue(n), ok
	}
}

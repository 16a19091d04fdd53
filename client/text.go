package client

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// illegible names the first field of req whose text is not UTF-8, which no message can carry; empty if there is
// none. Only failures pay for it.
func illegible(req any) (field string) {
	m, ok := req.(proto.Message)
	if !ok {
		return ""
	}
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Kind() != protoreflect.StringKind || f.IsMap() {
			return true
		}
		field = illegibleValue(f, v)
		return field == ""
	})
	return field
}

func illegibleValue(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	if !f.IsList() {
		return nameUnless(utf8.ValidString(v.String()), f.JSONName())
	}
	for i := range v.List().Len() {
		if !utf8.ValidString(v.List().Get(i).String()) {
			return fmt.Sprintf("%s[%d]", f.JSONName(), i)
		}
	}
	return ""
}

func nameUnless(fine bool, name string) string {
	if fine {
		return ""
	}
	return name
}

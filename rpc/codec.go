package rpc

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/keyquorum/keyquorum/internal/fault"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/jsoncodec"
)

// decodeDepth bounds the nesting of binary messages. A level of claims takes three.
const decodeDepth = 128

// binaryCodec is protobuf's own encoding. Fields that it does not know are dropped, as a newer caller may send them.
type binaryCodec struct{}

func (binaryCodec) Name() string { return "proto" }

func (c binaryCodec) Marshal(m any) ([]byte, error) { return c.MarshalAppend(nil, m) }

func (binaryCodec) MarshalAppend(dst []byte, m any) ([]byte, error) {
	msg, ok := m.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is not a proto.Message", m)
	}
	return proto.MarshalOptions{}.MarshalAppend(dst, msg)
}

func (binaryCodec) Unmarshal(data []byte, m any) error {
	msg, ok := m.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is not a proto.Message", m)
	}
	opts := proto.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: decodeDepth}
	if opts.Unmarshal(data, msg) != nil {
		return fmt.Errorf("the body is not a %s in protobuf's encoding, with text in UTF-8", msg.ProtoReflect().Descriptor().FullName())
	}
	return nil
}

// appendingCodec is what connect asks of a codec for messages to be written into its own buffers.
type appendingCodec interface {
	connect.Codec
	MarshalAppend([]byte, any) ([]byte, error)
}

// deferring has a request that cannot be decoded reach the interceptor all the same. Connect answers such a request
// before any interceptor sees it: without its id, its log line, its count, and the detail that names the field. So the
// fault travels in the message itself, as an unknown field, which no decoded message has.
type deferring struct{ appendingCodec }

func (d deferring) Unmarshal(data []byte, m any) error {
	err := d.appendingCodec.Unmarshal(data, m)
	if err == nil {
		return nil
	}
	msg, ok := m.(proto.Message)
	if !ok {
		return err
	}
	return putDecodeFault(msg, err)
}

// decodeFaultField is the highest field number there is.
const decodeFaultField = protowire.MaxValidNumber

func putDecodeFault(m proto.Message, err error) error {
	violation := &v1.FieldViolation{Description: err.Error()}
	if told, ok := errors.AsType[*jsoncodec.Error](err); ok {
		violation = &v1.FieldViolation{Field: told.Field, Description: told.Description()}
	}
	body, err := proto.Marshal(violation)
	if err != nil {
		return err
	}
	proto.Reset(m)
	unknown := protowire.AppendTag(nil, decodeFaultField, protowire.BytesType)
	m.ProtoReflect().SetUnknown(protowire.AppendBytes(unknown, body))
	return nil
}

// decodeFault gives what was wrong with the body that m stands for, or nil.
func decodeFault(m any) error {
	msg, ok := m.(proto.Message)
	if !ok {
		return nil
	}
	unknown := msg.ProtoReflect().GetUnknown()
	number, _, n := protowire.ConsumeTag(unknown)
	if n < 0 || number != decodeFaultField {
		return nil
	}
	body, _ := protowire.ConsumeBytes(unknown[n:])
	var violation v1.FieldViolation
	if proto.Unmarshal(body, &violation) != nil {
		return nil
	}
	return fault.Invalid(violation.GetField(), violation.GetDescription())
}

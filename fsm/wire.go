package fsm

import (
	"bytes"
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keyquorum/keyquorum/internal/plant"
)

// The records of users are written and read here, field by field, and not through generated code: there are
// millions of them, and their bytes have to be the same on every node, of every build, which protobuf's own
// encoders do not promise. Fields are in ascending order, each once (retiring keys aside), none with its default
// value, numbers in their shortest form. The messages are User, Key and KeyID of log.proto.

var errWire = errors.New("a record is malformed")

func appendUser(b []byte, u *User) []byte {
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendString(b, u.Subject)
	b = appendKey(b, 2, &u.Active)
	for i := range u.Retiring {
		if plant.On(plant.LeanSnapshot) {
			break
		}
		b = appendKey(b, 3, &u.Retiring[i])
	}
	return appendInt(b, 4, u.IdleFrom)
}

func appendKey(b []byte, field protowire.Number, k *Key) []byte {
	id := sizeInt(int64(k.ID.Revision))
	if k.ID.Random != 0 {
		id += 1 + 8
	}
	size := 1 + protowire.SizeBytes(id) + 1 + protowire.SizeBytes(len(k.Sealed)) +
		sizeInt(k.Created) + sizeInt(k.Earliest) + sizeInt(k.Latest)
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(id))
	b = appendInt(b, 1, int64(k.ID.Revision))
	if k.ID.Random != 0 {
		b = protowire.AppendTag(b, 2, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, k.ID.Random)
	}
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendBytes(b, k.Sealed)
	b = appendInt(b, 3, k.Created)
	b = appendInt(b, 4, k.Earliest)
	return appendInt(b, 5, k.Latest)
}

func appendInt(b []byte, field protowire.Number, n int64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(n))
}

func sizeInt(n int64) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(uint64(n))
}

// readUser keeps nothing of b.
func readUser(b []byte) (*User, error) {
	w := wire{b: b}
	u := &User{Subject: string(w.bytes(1))}
	u.Active = readKey(&w, 2)
	for w.at(3, protowire.BytesType) {
		u.Retiring = append(u.Retiring, readKey(&w, 3))
	}
	u.IdleFrom = w.int(4)
	return u, w.end()
}

func readKey(w *wire, field protowire.Number) Key {
	inner := wire{b: w.bytes(field)}
	id := wire{b: inner.bytes(1)}
	k := Key{ID: KeyID{Revision: uint64(id.int(1)), Random: id.fixed64(2)}}
	k.Sealed = bytes.Clone(inner.bytes(2))
	k.Created, k.Earliest, k.Latest = inner.int(3), inner.int(4), inner.int(5)
	if id.end() != nil || inner.end() != nil {
		w.bad = true
	}
	return k
}

// wire reads the fields of one message in order. After a fault it gives zeros, and end tells.
type wire struct {
	b   []byte
	bad bool
}

// at tells whether the next field is this one. A tag of up to 15 is one byte.
func (w *wire) at(field protowire.Number, typ protowire.Type) bool {
	return !w.bad && len(w.b) > 0 && uint64(w.b[0]) == protowire.EncodeTag(field, typ)
}

// bytes reads a field that has to be there. The slice is part of the record.
func (w *wire) bytes(field protowire.Number) []byte {
	if !w.at(field, protowire.BytesType) {
		w.bad = true
		return nil
	}
	v, n := protowire.ConsumeBytes(w.b[1:])
	if n < 0 || n != protowire.SizeBytes(len(v)) {
		w.bad = true
		return nil
	}
	w.b = w.b[1+n:]
	return v
}

// int reads a number, 0 if it is not there.
func (w *wire) int(field protowire.Number) int64 {
	if !w.at(field, protowire.VarintType) {
		return 0
	}
	v, n := protowire.ConsumeVarint(w.b[1:])
	if v == 0 || n != protowire.SizeVarint(v) {
		w.bad = true
		return 0
	}
	w.b = w.b[1+n:]
	return int64(v)
}

func (w *wire) fixed64(field protowire.Number) uint64 {
	if !w.at(field, protowire.Fixed64Type) {
		return 0
	}
	v, n := protowire.ConsumeFixed64(w.b[1:])
	if v == 0 || n < 0 {
		w.bad = true
		return 0
	}
	w.b = w.b[1+n:]
	return v
}

func (w *wire) end() error {
	if w.bad || len(w.b) > 0 {
		return errWire
	}
	return nil
}

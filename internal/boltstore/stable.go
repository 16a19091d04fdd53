package boltstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// storeFormat is the format of the whole file. It stands in the stable record, which every format has under
// stableKey and with this beginning and end:
//
//	"KQST" | format 2 | for each value, by key: key's length 2, key, value's length 4, value | CRC-64 8
const storeFormat = 1

const (
	stableKey   = "keyquorum"
	stableMagic = "KQST"
	stableHead  = len(stableMagic) + 2
)

// stable is what raft keeps outside its log: the term and the vote. It is never changed, only replaced.
type stable map[string][]byte

// with gives a copy of s in which key has the value val.
func (s stable) with(key, val []byte) (stable, error) {
	if len(key) > math.MaxUint16 || uint64(len(val)) > math.MaxUint32 {
		return nil, fmt.Errorf("boltstore: a key of %d bytes with a value of %d is too long", len(key), len(val))
	}
	next := maps.Clone(s)
	next[string(key)] = bytes.Clone(val)
	return next, nil
}

func (s stable) encode() []byte {
	b := binary.BigEndian.AppendUint16([]byte(stableMagic), storeFormat)
	for _, k := range slices.Sorted(maps.Keys(s)) {
		b = binary.BigEndian.AppendUint16(b, uint16(len(k)))
		b = append(b, k...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(s[k])))
		b = append(b, s[k]...)
	}
	return seal(b)
}

// decodeStable reads a stable record. Its error wraps ErrFormat where the record is whole and of another format.
func decodeStable(b []byte) (stable, error) {
	b, err := unseal(b)
	if err != nil {
		return nil, err
	}
	if len(b) < stableHead || string(b[:len(stableMagic)]) != stableMagic {
		return nil, errShape
	}
	if f := binary.BigEndian.Uint16(b[len(stableMagic):]); f != storeFormat {
		return nil, fmt.Errorf("%w: %d, and this version reads %d: start the version that wrote it, or a later one",
			ErrFormat, f, storeFormat)
	}
	s := stable{}
	for b = b[stableHead:]; len(b) > 0; {
		var k, v []byte
		if k, b, err = cut(b, 2); err != nil {
			return nil, err
		}
		if v, b, err = cut(b, 4); err != nil {
			return nil, err
		}
		s[string(k)] = bytes.Clone(v)
	}
	return s, nil
}

// cut takes a length of the given width off b, then as many bytes.
func cut(b []byte, width int) (head, rest []byte, err error) {
	if len(b) < width {
		return nil, nil, errShape
	}
	var n uint64
	for _, c := range b[:width] {
		n = n<<8 | uint64(c)
	}
	if b = b[width:]; n > uint64(len(b)) {
		return nil, nil, errShape
	}
	return b[:n], b[n:], nil
}

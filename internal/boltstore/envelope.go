package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// envelopeVersion is the layout of an entry's envelope:
//
//	version 1 | type 1 | index 8 | term 8 | seconds 8 | nanoseconds 4 | extensions' length 4 | extensions | data | CRC-64 8
//
// All numbers are big-endian. The checksum covers everything before it and ends every version.
const envelopeVersion = 1

const (
	envelopeHead = 34
	checksumSize = 8
)

var (
	errChecksum = errors.New("its checksum does not match")
	errShape    = errors.New("it is cut short")
)

var crcTable = crc64.MakeTable(crc64.ECMA)

// seal appends the checksum of b to b.
func seal(b []byte) []byte {
	return binary.BigEndian.AppendUint64(b, crc64.Checksum(b, crcTable))
}

// unseal gives b without its checksum, if that matches.
func unseal(b []byte) ([]byte, error) {
	n := len(b) - checksumSize
	if n < 0 {
		return nil, errShape
	}
	if binary.BigEndian.Uint64(b[n:]) != crc64.Checksum(b[:n], crcTable) {
		return nil, errChecksum
	}
	return b[:n], nil
}

// encodeEntry gives the envelope of l.
func encodeEntry(l *raft.Log) ([]byte, error) {
	if uint64(len(l.Extensions)) > math.MaxUint32 {
		return nil, fmt.Errorf("boltstore: entry %d has %d bytes of extensions", l.Index, len(l.Extensions))
	}
	b := make([]byte, 0, envelopeHead+len(l.Extensions)+len(l.Data)+checksumSize)
	b = append(b, envelopeVersion, byte(l.Type))
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, l.Term)
	b = binary.BigEndian.AppendUint64(b, uint64(l.AppendedAt.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(l.AppendedAt.Nanosecond()))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	b = append(b, l.Extensions...)
	b = append(b, l.Data...)
	return seal(b), nil
}

// decodeEntry fills l from an envelope that must be the one of the entry at index. Empty data and extensions come
// back as nil. l keeps parts of b.
func decodeEntry(b []byte, index uint64, l *raft.Log) error {
	b, err := unseal(b)
	switch {
	case err != nil:
		return err
	case len(b) < envelopeHead:
		return errShape
	case b[0] != envelopeVersion:
		return fmt.Errorf("its envelope has version %d", b[0])
	}
	if at := binary.BigEndian.Uint64(b[2:]); at != index {
		return fmt.Errorf("it says that it is entry %d", at)
	}
	ext, body := uint64(binary.BigEndian.Uint32(b[30:])), b[envelopeHead:]
	if ext > uint64(len(body)) {
		return errShape
	}
	*l = raft.Log{
		Index:      index,
		Term:       binary.BigEndian.Uint64(b[10:]),
		Type:       raft.LogType(b[1]),
		Extensions: orNil(body[:ext:ext]),
		Data:       orNil(body[ext:]),
		AppendedAt: instant(binary.BigEndian.Uint64(b[18:]), binary.BigEndian.Uint32(b[26:])),
	}
	return nil
}

func instant(sec uint64, nsec uint32) time.Time {
	t := time.Unix(int64(sec), int64(nsec))
	if t.IsZero() {
		return time.Time{}
	}
	return t
}

func orNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Header is the first line of a file: it says which record follows first, and the hash that it is chained to.
type Header struct {
	// First is the sequence number of the file's first record.
	First uint64
	// Previous is the hash of the record before it.
	Previous Hash
	// MissingFrom is the first of the records that were missing before First when the file was begun; 0 for none.
	MissingFrom uint64
}

// Before is the head that the file's records follow.
func (h Header) Before() Head { return Head{Sequence: h.First - 1, Hash: h.Previous} }

type headerLine struct {
	Format      int    `json:"keyquorumAudit"`
	First       uint64 `json:"first"`
	Previous    string `json:"previousHash"`
	MissingFrom uint64 `json:"missingFrom,omitempty"`
}

// AppendHeader writes the header's one line, with its line feed.
func AppendHeader(b []byte, h Header) []byte {
	b = fmt.Appendf(b, `{"keyquorumAudit":%d,"first":%d,"previousHash":"%s"`, Format, h.First, h.Previous)
	if h.MissingFrom != 0 {
		b = fmt.Appendf(b, `,"missingFrom":%d`, h.MissingFrom)
	}
	return append(b, '}', '\n')
}

var errHeader = errors.New("not the first line of an audit file of this format")

// ParseHeader reads a header in the one spelling that AppendHeader has.
func ParseHeader(text []byte) (Header, error) {
	var l headerLine
	if json.Unmarshal(text, &l) != nil || l.Format != Format || l.First == 0 {
		return Header{}, errHeader
	}
	h := Header{First: l.First, MissingFrom: l.MissingFrom}
	var err error
	if h.Previous, err = ParseHash(l.Previous); err != nil {
		return Header{}, err
	}
	if !bytes.Equal(AppendHeader(nil, h), append(bytes.TrimSuffix(bytes.Clone(text), []byte("\n")), '\n')) {
		return Header{}, errHeader
	}
	return h, nil
}

// Gap is a run of records that are missing among those that are kept.
type Gap struct {
	// From and To are the first and the last that are missing.
	From, To uint64
	// Last is the hash of To, by which what fills the gap is known to be right.
	Last Hash
}

// Len is how many records are missing.
func (g Gap) Len() uint64 { return g.To - g.From + 1 }

package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"
)

// line is an entry as a line of JSON.
type line struct {
	Sequence uint64   `json:"sequence"`
	Time     string   `json:"time,omitempty"`
	Position uint64   `json:"position"`
	Kind     Kind     `json:"kind"`
	Subject  string   `json:"subject,omitempty"`
	KeyID    string   `json:"keyId,omitempty"`
	Previous string   `json:"previousKeyId,omitempty"`
	Reason   Reason   `json:"reason,omitempty"`
	Actor    string   `json:"actor,omitempty"`
	Source   string   `json:"source,omitempty"`
	Node     string   `json:"node,omitempty"`
	TokenID  string   `json:"tokenId,omitempty"`
	Expires  string   `json:"expiresAt,omitempty"`
	Changes  []Change `json:"changes,omitempty"`
	Hash     string   `json:"hash"`
}

const timeFormat = "2006-01-02T15:04:05.000Z"

// AppendLine writes an entry's one line, with its line feed.
func AppendLine(b []byte, e *Entry) ([]byte, error) {
	l := line{
		Sequence: e.Sequence, Position: e.Position, Kind: e.Kind, Subject: e.Subject,
		KeyID: e.KeyID, Previous: e.PreviousKeyID, Reason: e.Reason, Actor: e.Actor, Source: e.Source, Node: e.Node,
		TokenID: e.TokenID, Changes: e.Changes, Hash: e.Hash.String(),
	}
	if e.Time != 0 {
		l.Time = time.UnixMilli(e.Time).UTC().Format(timeFormat)
	}
	if e.Expires != 0 {
		l.Expires = time.Unix(e.Expires, 0).UTC().Format(time.RFC3339)
	}
	text, err := json.Marshal(&l)
	if err != nil {
		return b, err
	}
	return append(append(b, text...), '\n'), nil
}

var errLine = errors.New("not a line of an audit file as it was written")

// ParseLine reads an entry from its line, with or without the line feed. A line that says the same in other bytes is
// refused: it is not the one that was written. Whether the hash is the record's is not looked at.
func ParseLine(text []byte) (Entry, error) {
	text = bytes.TrimSuffix(text, []byte("\n"))
	var l line
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return Entry{}, errLine
	}
	e := Entry{Record: Record{
		Sequence: l.Sequence, Position: l.Position, Kind: l.Kind, Subject: l.Subject,
		KeyID: l.KeyID, PreviousKeyID: l.Previous, Reason: l.Reason, Actor: l.Actor, Source: l.Source, Node: l.Node,
		TokenID: l.TokenID, Changes: l.Changes,
	}}
	var err error
	if e.Hash, err = ParseHash(l.Hash); err != nil {
		return Entry{}, err
	}
	if l.Time != "" {
		t, _ := time.Parse(timeFormat, l.Time) // one that is wrong comes out as another text
		e.Time = t.UnixMilli()
	}
	if l.Expires != "" {
		t, _ := time.Parse(time.RFC3339, l.Expires)
		e.Expires = t.Unix()
	}
	again, err := AppendLine(nil, &e)
	if err != nil || !bytes.Equal(again[:len(again)-1], text) {
		return Entry{}, errLine
	}
	return e, nil
}

// SequenceOf reads as much of a line as tells which record it is of; false if it tells nothing.
func SequenceOf(text []byte) (uint64, bool) {
	var l struct {
		Sequence uint64 `json:"sequence"`
	}
	rest, ok := bytes.CutPrefix(text, []byte(`{"sequence":`))
	if !ok {
		return 0, false
	}
	end := bytes.IndexAny(rest, ",}")
	if end < 0 || json.Unmarshal(rest[:end], &l.Sequence) != nil {
		return 0, false
	}
	return l.Sequence, true
}

package audit

import "google.golang.org/protobuf/encoding/protowire"

// Format is the encoding's, and the first field of each.
const Format = 1

// append writes the record's one encoding: the message AuditRecord of log.proto, fields in ascending order, each once
// (changes aside), none with its default value, numbers in their shortest form. A chain's hashes rest on these bytes, so
// they never change; a record that says more gets a new field, or a new format.
func (r *Record) append(b []byte) []byte {
	b = appendInt(b, 1, Format)
	b = appendInt(b, 2, r.Sequence)
	b = appendInt(b, 3, uint64(r.Time))
	b = appendInt(b, 4, r.Position)
	b = appendText(b, 5, string(r.Kind))
	b = appendText(b, 6, r.Subject)
	b = appendText(b, 7, r.KeyID)
	b = appendText(b, 8, r.PreviousKeyID)
	b = appendText(b, 9, string(r.Reason))
	b = appendText(b, 10, r.Actor)
	b = appendText(b, 11, r.Source)
	b = appendText(b, 12, r.Node)
	b = appendText(b, 13, r.TokenID)
	b = appendInt(b, 14, uint64(r.Expires))
	for i := range r.Changes {
		b = r.Changes[i].append(b)
	}
	return b
}

// Encode gives the record's encoding.
func (r *Record) Encode() []byte { return r.append(nil) }

func (c *Change) append(b []byte) []byte {
	size := sizeText(c.Name) + sizeText(c.From) + sizeText(c.To)
	b = protowire.AppendTag(b, 15, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = appendText(b, 1, c.Name)
	b = appendText(b, 2, c.From)
	return appendText(b, 3, c.To)
}

func appendInt(b []byte, field protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
}

func appendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// sizeText is that of a field of a Change, whose tags take one byte.
func sizeText(s string) int {
	if s == "" {
		return 0
	}
	return 1 + protowire.SizeBytes(len(s))
}

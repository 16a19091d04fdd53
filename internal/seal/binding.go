package seal

import (
	"encoding/binary"
	"sync"
)

// bindingVersion is the first byte of all associated data. What was sealed under one version never opens under
// another.
const bindingVersion = 1

// The kinds of things that are sealed.
const (
	kindUserKey byte = 1
	kindProof   byte = 2
)

// binding is what is authenticated with a sealed text without being in it.
type binding struct {
	kind byte
	// name is the user of a key, or the purpose of a proof.
	name string
	// random are the random bits of a key's id.
	random uint64
	// text is a proof's.
	text string
}

// subkey gives the number of the subkey for b: a key's is chosen by the first random bits of its id.
func (b binding) subkey() int {
	if b.kind == kindProof {
		return 1 << subkeyBits
	}
	return int(b.random >> (64 - subkeyBits))
}

// appendTo writes the version, the kind, and each field behind its length, so that no two bindings are written
// alike:
//
//	version (1) | kind (1) | length of name (4) | name | random (8) | length of text (4) | text
func (b binding) appendTo(dst []byte) []byte {
	dst = append(dst, bindingVersion, b.kind)
	dst = appendString(dst, b.name)
	dst = binary.BigEndian.AppendUint64(dst, b.random)
	return appendString(dst, b.text)
}

func appendString(dst []byte, s string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(s)))
	return append(dst, s...)
}

// bindings lends out buffers, as associated data goes through an interface and would be allocated for each call.
// They hold no secrets.
var bindings = sync.Pool{New: func() any {
	b := make([]byte, 0, 320)
	return &b
}}

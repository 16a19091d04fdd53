// Package audit is the form of the audit chain: its records, their one encoding, the hashes that chain them, and the
// line of JSON that each is in a file. It keeps nothing and asks nobody, so that the replicated state, a node's files and
// the command that checks them all have the same rules.
//
// Record n of a chain has the hash
//
//	h(n) = SHA-256(domain ‖ h(n-1) ‖ length of the encoding, 8 bytes big endian ‖ encoding of record n)
//
// and h(0) is 32 zero bytes. So the hash of the last record, the head, stands for all of them.
package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
)

// Kind says what happened. A new kind is a constant here and a line in docs/AUDIT.md; whoever reads records passes on
// those that it does not know.
type Kind string

// The kinds. Subject is the user's, unless it says otherwise.
const (
	// ClusterFounded has the cluster's id as its subject, and its settings as changes.
	ClusterFounded Kind = "CLUSTER_FOUNDED"
	// KeyMade is a user's first key.
	KeyMade Kind = "KEY_MADE"
	// KeyRotated has the new active key, the one before it, and why.
	KeyRotated Kind = "KEY_ROTATED"
	// KeyDeleted has the key that is gone, and why.
	KeyDeleted Kind = "KEY_DELETED"
	// UserDeleted and UserForgotten follow the deletion of all the user's keys.
	UserDeleted   Kind = "USER_DELETED"
	UserForgotten Kind = "USER_FORGOTTEN"
	// TokenIssued has the key that signs, the token's jti and its expiry.
	TokenIssued Kind = "TOKEN_ISSUED"
	// SettingsChanged has what changed.
	SettingsChanged Kind = "SETTINGS_CHANGED"
	// MemberAdded, MemberChanged and MemberRemoved have the member's id as their subject.
	MemberAdded   Kind = "MEMBER_ADDED"
	MemberChanged Kind = "MEMBER_CHANGED"
	MemberRemoved Kind = "MEMBER_REMOVED"
	// APITokenMade and APITokenRevoked have the API token's id as their subject.
	APITokenMade    Kind = "API_TOKEN_MADE"    //nolint:gosec // a name
	APITokenRevoked Kind = "API_TOKEN_REVOKED" //nolint:gosec // a name
	// MasterKeyUsed and MasterKeyRetired have the master key's id, in decimal, as their subject.
	MasterKeyUsed    Kind = "MASTER_KEY_USED"
	MasterKeyRetired Kind = "MASTER_KEY_RETIRED"
	// KeyRewrapped has a key that was sealed anew, under the primary master key.
	KeyRewrapped Kind = "KEY_REWRAPPED"
)

// Reason says why a key changed.
type Reason string

// The reasons.
const (
	// Expiry: a token of the key had expired; of a retiring key, the last.
	Expiry Reason = "EXPIRY"
	// OnDemand: somebody asked for it.
	OnDemand Reason = "ON_DEMAND"
	// Revoked: all of the user's keys were.
	Revoked Reason = "REVOKED"
	// Deleted: the user was.
	Deleted Reason = "DELETED"
	// Idle: the user had no live token for as long as the settings say.
	Idle Reason = "IDLE"
)

// Record is one change. It holds no key material and no token.
type Record struct {
	// Sequence counts the records from 1, without gaps.
	Sequence uint64
	// Time is the log's, in milliseconds since the Unix epoch; 0 before any.
	Time int64
	// Position is the command's in the log.
	Position uint64
	Kind     Kind
	Subject  string
	// KeyID and PreviousKeyID are as in tokens; empty where no key is meant.
	KeyID, PreviousKeyID string
	Reason               Reason
	// Actor, Source and Node say who asked, from where, and at which node.
	Actor, Source, Node string
	// TokenID and Expires, in seconds since the Unix epoch, are an issued token's.
	TokenID string
	Expires int64
	Changes []Change
}

// Change is one value that changed.
type Change struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
}

// Entry is a record with its hash.
type Entry struct {
	Record
	Hash Hash
}

// Head is the entry's place in its chain.
func (e *Entry) Head() Head { return Head{Sequence: e.Sequence, Hash: e.Hash} }

// Hash is a record's.
type Hash [sha256.Size]byte

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

var errHash = errors.New("not a hash: 64 hexadecimal digits in lower case")

// ParseHash reads what String gives.
func ParseHash(s string) (h Hash, err error) {
	if n, err := hex.Decode(h[:], []byte(s[:min(len(s), 2*len(h))])); err != nil || n != len(h) || h.String() != s {
		return Hash{}, errHash
	}
	return h, nil
}

// Head is how far a chain has come: the last record's sequence number, and its hash. The zero Head is that of a chain
// without records.
type Head struct {
	Sequence uint64
	Hash     Hash
}

// domain keeps a record's hash from being that of anything else.
const domain = "keyquorum audit 1\n"

// Next gives the head once r follows h. The buffer is for the encoding; it comes back, grown, to be used again.
func (h Head) Next(r *Record, buf []byte) (Head, []byte) {
	const framing = len(domain) + len(Hash{})
	buf = append(buf[:0], domain...)
	buf = append(buf, h.Hash[:]...)
	buf = append(buf, 0, 0, 0, 0, 0, 0, 0, 0)
	buf = r.append(buf)
	binary.BigEndian.PutUint64(buf[framing:], uint64(len(buf)-framing-8))
	return Head{Sequence: r.Sequence, Hash: sha256.Sum256(buf)}, buf
}

// Follow gives the head after the entries, if they follow h without a gap and their hashes are theirs; otherwise the head
// before the first that does not, and why.
func (h Head) Follow(entries []Entry) (Head, error) {
	var buf []byte
	for i := range entries {
		e := &entries[i]
		if e.Sequence != h.Sequence+1 {
			return h, &BrokenError{Sequence: h.Sequence + 1, What: Missing}
		}
		var next Head
		if next, buf = h.Next(&e.Record, buf); next.Hash != e.Hash {
			return h, &BrokenError{Sequence: e.Sequence, What: Altered}
		}
		h = next
	}
	return h, nil
}

package fsm

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// KeyID names a key: the revision at which it was made, and random bits that were chosen with the key and are
// bound into its sealing. As text, a token's kid, it is 22 characters of unpadded base64url. The zero KeyID
// names no key.
type KeyID struct {
	Revision uint64
	Random   uint64
}

// KeyIDLen is the length of a KeyID's text.
const KeyIDLen = 22

var errKeyID = errors.New("not a key id")

var keyIDText = base64.RawURLEncoding.Strict()

// ParseKeyID reads a KeyID's text, in the one spelling that String gives.
func ParseKeyID(s string) (KeyID, error) {
	if len(s) != KeyIDLen {
		return KeyID{}, errKeyID
	}
	var b [16]byte
	var in [KeyIDLen]byte
	copy(in[:], s)
	if n, err := keyIDText.Decode(b[:], in[:]); err != nil || n != len(b) {
		return KeyID{}, errKeyID
	}
	id := KeyID{Revision: binary.BigEndian.Uint64(b[:8]), Random: binary.BigEndian.Uint64(b[8:])}
	if id.IsZero() {
		return KeyID{}, errKeyID
	}
	return id, nil
}

// IsZero tells whether id names no key.
func (id KeyID) IsZero() bool { return id == KeyID{} }

func (id KeyID) String() string {
	if id.IsZero() {
		return ""
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], id.Revision)
	binary.BigEndian.PutUint64(b[8:], id.Random)
	return keyIDText.EncodeToString(b[:])
}

// Key is one key of a user. It is never changed once it is in a View.
type Key struct {
	ID KeyID
	// Sealed is the material under the master keyring.
	Sealed []byte
	// Created is when it was made, in milliseconds since the Unix epoch.
	Created int64
	// Earliest and Latest are the earliest and latest expiry of the tokens it signed, in seconds since the
	// Unix epoch; 0 if it signed none.
	Earliest, Latest int64
}

// User is one user's keys. It is never changed once it is in a View.
type User struct {
	Subject string
	Active  Key
	// Retiring keys verify and do not sign; in the order in which they were retired.
	Retiring []Key
	// IdleFrom is the time from which no token of the user lives, in milliseconds since the Unix epoch.
	IdleFrom int64
}

// Mode says what becomes of a key that is rotated.
type Mode uint8

const (
	// Overlap keeps a rotated key for verification until the last token it signed has expired.
	Overlap Mode = iota + 1
	// Strict deletes a rotated key at once; the tokens it signed die with it.
	Strict
)

func (m Mode) String() string {
	switch m {
	case Overlap:
		return "overlap"
	case Strict:
		return "strict"
	}
	return "unknown"
}

// Settings are the cluster's, the same on every node.
type Settings struct {
	Mode Mode
	// ForgetAfter is how long a user without a live token is kept; zero for ever.
	ForgetAfter time.Duration
	// Issuer is the tokens' iss: 1 to 256 bytes.
	Issuer string
	// MinTTL, DefaultTTL and MaxTTL bound a token's lifetime, in whole milliseconds.
	MinTTL, DefaultTTL, MaxTTL time.Duration
	// MaxRetiring is the number of retiring keys a user can hold.
	MaxRetiring int
	// WantedVoters is the number of voters that the cluster grows to. It is odd.
	WantedVoters int
	// LeaderRegion is where the leader should be, if a voter there can lead; empty for anywhere.
	LeaderRegion string
	// MaxStaleness is how old the state can be that a node verifies on. It is set when the cluster is founded, and no
	// command changes it.
	MaxStaleness time.Duration
	// AuditIssued has each issued token put on record.
	AuditIssued bool
}

// DefaultSettings are those of a cluster founded without any.
func DefaultSettings() Settings {
	return Settings{
		Mode:         Overlap,
		Issuer:       "keyquorum",
		MinTTL:       time.Second,
		DefaultTTL:   900 * time.Second,
		MaxTTL:       24 * time.Hour,
		MaxRetiring:  64,
		WantedVoters: 5,
		MaxStaleness: 5 * time.Second,
		AuditIssued:  true,
	}
}

// Member is the replicated record of a node, for clients and forwarding. Raft's configuration is the truth
// about who votes.
type Member struct {
	// ID is a UUID, made with the data directory.
	ID     string
	Name   string
	Region string
	// RPCAddress and RaftAddress are HOST:PORT, as other nodes reach them.
	RPCAddress  string
	RaftAddress string
	Version     string
	// Format is the highest entry format that the node reads.
	Format int
	// Replica nodes never become voters.
	Replica bool
}

// Due is one thing that is due, as a View orders them.
type Due struct {
	At      time.Time
	Subject string
	// Key is the zero KeyID where the user is to be forgotten.
	Key KeyID
	// Active tells that the key is the active one: it is to be rotated, and a candidate is needed.
	Active bool
}

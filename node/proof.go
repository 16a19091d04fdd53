package node

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
)

// What the proofs that holders of the keyring give each other are for.
const (
	proofFound   = "cluster" // in the state: bound to the cluster's id
	proofJoin    = "join"    // from a node that asks to be admitted: bound to its record and a challenge
	proofAdmit   = "admit"   // from the one that admitted it: bound to that one's id and nonce
	proofRemoved = "removed" // from a leader that does not admit who was removed: bound as above
	proofTwin    = "twin"    // from a leader that finds another process under the same id: bound as above
	proofLeave   = "leave"   // from a member that leaves: bound to its id and a challenge
)

// joinText is what a node that asks to be admitted has to be the holder of the keyring for: its whole record, and a
// challenge of the receiver's, so that nobody changes a member's record with a proof that was overheard.
func joinText(m fsm.Member, challenge []byte) string {
	return boundText(fmt.Sprintf("%q %q %q %q %q %q %d %t",
		m.ID, m.Name, m.Region, m.RPCAddress, m.RaftAddress, m.Version, m.Format, m.Replica), challenge)
}

// boundText is a text that a proof is made for, and what makes the proof good for once.
func boundText(text string, once []byte) string { return fmt.Sprintf("%s %x", text, once) }

// challenges are what proofs of holding the keyring are bound to. A challenge is a time, and a code for it under a key
// that only this process has: none has to be remembered, and none is good for longer than it says, or after a restart.
type challenges struct {
	key  [sha256.Size]byte
	mono func() time.Duration
}

// challengeLife is how long a challenge is good for: a round trip, and a keyring that takes its time.
const challengeLife = 10 * time.Second

const challengeLen = 8 + sha256.Size

func newChallenges(mono func() time.Duration) *challenges {
	c := &challenges{mono: mono}
	_, _ = rand.Read(c.key[:]) // never fails: crypto/rand
	return c
}

// new gives a challenge.
func (c *challenges) new() []byte {
	return c.authenticated(binary.BigEndian.AppendUint64(nil, uint64(c.mono()+challengeLife)))
}

// authenticated appends the code.
func (c *challenges) authenticated(until []byte) []byte {
	mac := hmac.New(sha256.New, c.key[:])
	mac.Write(until)
	return mac.Sum(until)
}

// check refuses what is no challenge of this process's, or no longer.
func (c *challenges) check(challenge []byte) error {
	if len(challenge) != challengeLen || !hmac.Equal(challenge, c.authenticated(append([]byte(nil), challenge[:8]...))) {
		return fmt.Errorf("%w: this process did not give it: ask for one", fault.ErrChallenge)
	}
	if until := time.Duration(binary.BigEndian.Uint64(challenge[:8])); c.mono() > until {
		return fmt.Errorf("%w: it is older than %s: ask for another", fault.ErrChallenge, challengeLife)
	}
	return nil
}

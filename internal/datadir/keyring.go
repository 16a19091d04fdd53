package datadir

import (
	"errors"
	"fmt"
)

// proofPurpose is what the proof in node.json is bound to, together with the member's UUID.
const proofPurpose = "datadir"

// Keyring is what Dir needs of the master keyring. seal.Keyring has it.
type Keyring interface {
	// Prove gives a proof over text that only the same keyring can check.
	Prove(purpose, text string) ([]byte, error)
	// CheckProof checks such a proof. Its error wraps fault.ErrKeyring for one of another keyring.
	CheckProof(purpose, text string, proof []byte) error
}

// CheckKeyring checks k against the proof that the first start left, or leaves one. An error of another keyring wraps
// what k gave, fault.ErrKeyring.
func (d *Dir) CheckKeyring(k Keyring) error {
	if d.id.KeyringProof != nil {
		if err := k.CheckProof(proofPurpose, d.id.ID, d.id.KeyringProof); err != nil {
			return fmt.Errorf("data directory %s: it was made under another keyring than this one: start the node with the "+
				"keyring of its cluster: %w", d.path, err)
		}
		return nil
	}
	proof, err := k.Prove(proofPurpose, d.id.ID)
	if err == nil && len(proof) == 0 {
		err = errors.New("the keyring gave an empty proof")
	}
	if err != nil {
		return fmt.Errorf("data directory %s: %w", d.path, err)
	}
	next := d.id
	next.KeyringProof = proof
	return d.save(next)
}

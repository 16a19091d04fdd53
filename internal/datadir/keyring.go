package datadir

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// proofPurpose is what the proofs in node.json are bound to, together with the member's UUID.
const proofPurpose = "datadir"

// Keyring is what Dir needs of the master keyring. seal.Keyring has it.
type Keyring interface {
	// IDs gives the ids of the master keys.
	IDs() []uint32
	// ProveUnder gives a proof over text that only a keyring with the master key with the id can check.
	ProveUnder(id uint32, purpose, text string) ([]byte, error)
	// CheckProof checks such a proof. Its error wraps fault.ErrKeyring for one of another keyring.
	CheckProof(purpose, text string, proof []byte) error
}

// CheckKeyring checks k against the proofs that earlier starts left, of which one has to be good, or leaves some. An error
// of another keyring wraps what k gave, fault.ErrKeyring.
func (d *Dir) CheckKeyring(k Keyring) error {
	if err := d.checkProofs(k); err != nil {
		return fmt.Errorf("data directory %s: it was made under another keyring than this one: start the node with the "+
			"keyring of its cluster: %w", d.path, err)
	}
	return d.NoteKeyring(k)
}

// checkProofs gives nil if there are no proofs yet.
func (d *Dir) checkProofs(k Keyring) error {
	proofs := slices.Collect(maps.Values(d.id.KeyringProofs))
	if d.id.KeyringProof != nil {
		proofs = append(proofs, d.id.KeyringProof)
	}
	var err error
	for _, proof := range proofs {
		if err = k.CheckProof(proofPurpose, d.id.ID, proof); err == nil {
			return nil
		}
	}
	return err
}

// NoteKeyring leaves a proof for each master key of k: a member that has told others that it holds a key can be started
// with that key alone later. It does nothing where there is one for each already.
func (d *Dir) NoteKeyring(k Keyring) error {
	ids := k.IDs()
	slices.Sort(ids)
	if slices.Equal(ids, slices.Sorted(maps.Keys(d.id.KeyringProofs))) && d.id.KeyringProof == nil {
		return nil
	}
	next := d.id
	next.KeyringProof, next.KeyringProofs = nil, make(map[uint32][]byte)
	for _, id := range ids {
		proof, err := k.ProveUnder(id, proofPurpose, d.id.ID)
		if err == nil && len(proof) == 0 {
			err = errors.New("the keyring gave an empty proof")
		}
		if err != nil {
			return fmt.Errorf("data directory %s: %w", d.path, err)
		}
		next.KeyringProofs[id] = proof
	}
	return d.save(next)
}

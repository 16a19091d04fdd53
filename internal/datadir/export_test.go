package datadir

// SaveOldProof leaves the one proof that versions before KeyringProofs left.
func SaveOldProof(d *Dir, proof []byte) error {
	next := d.id
	next.KeyringProof, next.KeyringProofs = proof, nil
	return d.save(next)
}

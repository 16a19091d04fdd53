package seal

// SourceOf gives what keeps a store.
func SourceOf(s *Store) Source { return s.source }

// Disguised gives a keyring with the gossip key and the key id of k, and the key of other.
func Disguised(k, other *Keyring) *Keyring {
	key := other.c.masters.Load().keys[0]
	key.id = k.Primary()
	return withMasters(&masters{primary: key.id, keys: []master{key}}, k.c.gossip)
}

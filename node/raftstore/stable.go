package raftstore

import (
	"sync"

	"github.com/hashicorp/raft"
)

// The keys under which Raft keeps its vote (hashicorp/raft 1.8.0, raft.go).
const (
	voteTerm      = "LastVoteTerm"
	voteCandidate = "LastVoteCand"
)

// Stable is a stable store in which a vote's candidate is there before its term: a node that is killed between the
// two has not voted in that term yet, and nobody was told otherwise.
type Stable struct {
	raft.StableStore

	mu   sync.Mutex
	term *uint64 // of a vote whose candidate is to come
}

// SetUint64 implements raft.StableStore. The term of a vote waits for the candidate.
func (s *Stable) SetUint64(key []byte, value uint64) error {
	if string(key) != voteTerm {
		return s.StableStore.SetUint64(key, value)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = &value
	return nil
}

// Set implements raft.StableStore.
func (s *Stable) Set(key, value []byte) error {
	if string(key) != voteCandidate {
		return s.StableStore.Set(key, value)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	term := s.term
	s.term = nil
	if err := s.StableStore.Set(key, value); err != nil || term == nil {
		return err
	}
	return s.StableStore.SetUint64([]byte(voteTerm), *term)
}

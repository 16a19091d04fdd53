package clienttest

import (
	"fmt"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/seal"
)

const (
	// version is the build's in the member records. A record that is not as its node has it would be written anew.
	version = "clienttest"
	// purpose is that of the proof by which nodes know their cluster's keyring. Nodes that did not take it would end at once.
	purpose = "cluster"
	// founded is the log's position at which the cluster begins.
	founded = 2
)

// found gives all members, as the snapshot that they start from, a cluster that they are the members and voters of. Founded
// in the ordinary way it would take them seconds to be admitted, to be trusted with a vote, and to measure each other's
// clocks.
func found(members []*member, keyring *seal.Keyring) error {
	state, err := foundedState(members, keyring)
	if err != nil {
		return err
	}
	_, transport := raft.NewInmemTransport("") // it spells the configuration in an old way, which nobody reads
	for _, m := range members {
		if err := m.logs.SetUint64([]byte("CurrentTerm"), 1); err != nil {
			return err
		}
		sink, err := m.snapshots.Create(raft.SnapshotVersionMax, founded, 1, configuration(members), founded-1, transport)
		if err != nil {
			return err
		}
		if err := state.Persist(sink); err != nil {
			return err
		}
	}
	return nil
}

// configuration has all vote, but the last of an even number, which would survive no more failures for it.
func configuration(members []*member) (c raft.Configuration) {
	for i, m := range members {
		suffrage := raft.Voter
		if i > 0 && i == len(members)-1 && len(members)%2 == 0 {
			suffrage = raft.Nonvoter
		}
		c.Servers = append(c.Servers, raft.Server{
			ID: raft.ServerID(m.id), Address: raft.ServerAddress(m.raft), Suffrage: suffrage,
		})
	}
	return c
}

// foundedState is that of a cluster in which nothing has happened yet.
func foundedState(members []*member, keyring *seal.Keyring) (raft.FSMSnapshot, error) {
	id := uuid.NewString()
	check, err := keyring.Prove(purpose, id)
	if err != nil {
		return nil, err
	}
	settings := fsm.DefaultSettings()
	settings.WantedVoters = max(settings.WantedVoters, len(members)-1+len(members)%2)
	entry := fsm.Entry{Commands: []fsm.Command{{Op: fsm.Found{ClusterID: id, Settings: settings, KeyringCheck: check}}}}
	for _, m := range members {
		entry.Commands = append(entry.Commands, fsm.Command{Op: fsm.PutMember{Member: fsm.Member{
			ID: m.id, Name: m.name, RPCAddress: m.rpc, RaftAddress: m.raft, Version: version, Format: fsm.Format,
		}}})
	}
	data, err := fsm.EncodeEntry(entry)
	if err != nil {
		return nil, err
	}
	var halted error
	state := fsm.New(fsm.Config{OnHalt: func(err error) { halted = err }})
	results, _ := state.Apply(&raft.Log{Index: founded, Term: 1, Type: raft.LogCommand, Data: data}).([]fsm.Result)
	for _, r := range results {
		if r.Err != nil {
			return nil, fmt.Errorf("apply: %w", r.Err)
		}
	}
	if halted != nil {
		return nil, halted
	}
	return state.Snapshot()
}

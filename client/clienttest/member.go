package clienttest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
)

// timing elects quickly, and leaves a busy machine time to send heartbeats. Ending HTTP/2 connections in good order would
// take a second each time.
var timing = node.Timing{Heartbeat: 150 * time.Millisecond, Drain: 100 * time.Millisecond}

// member is a node and what outlives its stopping: identity, addresses and stores.
type member struct {
	name, id  string
	rpc, raft string
	logs      *raft.InmemStore
	snapshots *raft.InmemSnapshotStore
	// rpcListener and raftListener are for the next start.
	rpcListener, raftListener net.Listener

	node *node.Node
	quit context.CancelFunc
	done chan error
}

func newMember(name string) *member {
	return &member{
		name: name, id: uuid.NewString(), logs: raft.NewInmemStore(), snapshots: raft.NewInmemSnapshotStore(),
	}
}

// listen takes an address, the one that the member had where it had one.
func listen(address string) (net.Listener, string, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, "", err
	}
	return l, l.Addr().String(), nil
}

func (m *member) listen() (err error) {
	if m.rpcListener, m.rpc, err = listen(m.rpc); err != nil {
		return err
	}
	m.raftListener, m.raft, err = listen(m.raft)
	return err
}

// close closes the listeners that no node has taken over.
func (m *member) close() error {
	var faults []error
	for _, l := range []net.Listener{m.rpcListener, m.raftListener} {
		if l != nil {
			faults = append(faults, l.Close())
		}
	}
	m.rpcListener, m.raftListener = nil, nil
	return errors.Join(faults...)
}

// start runs the node on what the member has.
func (m *member) start(keyring *seal.Keyring) error {
	n, err := node.New(node.Config{
		ID: m.id, Name: m.name, Version: version,
		RPCListener: m.rpcListener, RPCAddress: m.rpc, RaftListener: m.raftListener, RaftAddress: m.raft,
		Logs: m.logs, Stable: m.logs, Snapshots: m.snapshots,
		Keyring: keyring, Timing: timing, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	ctx, quit := context.WithCancel(context.Background()) //nolint:forbidigo // the node lives until it is stopped
	m.node, m.quit, m.done = n, quit, make(chan error, 1)
	m.rpcListener, m.raftListener = nil, nil
	go func() { m.done <- n.Run(ctx) }()
	return nil
}

func (m *member) running() bool { return m.quit != nil }

// stop ends the node. One that does not run is left as it is.
func (m *member) stop() error {
	if !m.running() {
		return nil
	}
	m.quit()
	m.quit = nil
	if err := <-m.done; err != nil {
		return fmt.Errorf("the node ended with: %w", err)
	}
	return nil
}

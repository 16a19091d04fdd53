package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/node/raftnet"
	"github.com/keyquorum/keyquorum/node/raftstore"
)

// commitTimeout is how long an idle leader takes to tell its followers what is committed.
const commitTimeout = 50 * time.Millisecond

// raftConfig is Raft's own.
func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.cfg.ID)
	c.HeartbeatTimeout = n.cfg.Timing.Heartbeat
	c.ElectionTimeout = n.cfg.Timing.Heartbeat
	c.LeaderLeaseTimeout = n.cfg.Timing.Lease
	c.CommitTimeout = commitTimeout
	c.SnapshotInterval = n.cfg.SnapshotInterval
	c.SnapshotThreshold = n.cfg.SnapshotThreshold
	c.TrailingLogs = n.cfg.TrailingLogs
	c.ShutdownOnRemove = false // a removed node stays to say why it does not serve
	c.NoLegacyTelemetry = true
	c.Logger = RaftLogger(n.log)
	return c
}

// RaftLogger brings Raft's log into ours, one level down: what it calls information is for those who look for a
// fault. So is what it warns of whenever a member starts, stops or catches up.
func RaftLogger(to *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(sink{to: to})
	return l
}

// ordinary are messages of Raft's that accompany the ordinary life of a cluster.
var ordinary = map[string]bool{
	"failed to decode incoming command":             true, // a member closed its connection
	"no known peers, aborting election":             true, // in no cluster yet
	"failed to get previous log":                    true, // a member is behind
	"previous log term mis-match":                   true,
	"appendEntries rejected, sending older logs":    true,
	"peer has newer term, stopping replication":     true, // leadership was handed over
	"Election timeout reached, restarting election": true,
	"failed to make requestVote RPC":                true, // by each candidate, of each member that is down
}

type sink struct{ to *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s sink) Accept(name string, level hclog.Level, msg string, args ...any) {
	at := slog.LevelDebug
	switch {
	case ordinary[msg]:
	case level == hclog.Warn:
		at = slog.LevelInfo
	case level == hclog.Error:
		at = slog.LevelWarn
	}
	ctx := context.Background()
	if !s.to.Enabled(ctx, at) {
		return
	}
	args = slices.Clone(args)
	for i, arg := range args {
		if f, ok := arg.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	s.to.With("from", name).Log(ctx, at, msg, args...)
}

// errOvertaken ends a node whose lost log entries reach past the snapshot that it was sent.
var errOvertaken = errors.New("this node's log was overtaken by a snapshot, which it can only take up when it is started anew: restart it")

// startRaft opens the transport and starts Raft over it and the stores.
func (n *Node) startRaft() error {
	stable, snapshots, err := raftstore.Open(n.cfg.Logs, n.cfg.Stable, n.cfg.Snapshots)
	if err != nil {
		return fmt.Errorf("open raft's stores: %w", err)
	}
	listener, dial := n.cfg.RaftListener, n.cfg.Dial
	if n.cfg.Certs != nil {
		listener, dial = n.cfg.Certs.Listener(listener, certs.NodesOnly), n.cfg.Certs.Dialer(dial)
	}
	transport, err := raftnet.NewTCP(raftnet.TCPConfig{
		Listener: listener, Dial: dial, Advertise: n.cfg.RaftAddress, MaxConns: max(1, n.cfg.MaxConns/4),
		LocalID: raft.ServerID(n.cfg.ID), Addresses: addresses{n}, Elsewhere: n.recorded, Logger: RaftLogger(n.log),
		Overtaken: func() { n.halt(errOvertaken) }, Around: n.cfg.WrapTransport,
	})
	if err != nil {
		return fmt.Errorf("raft transport: %w", err)
	}
	r, err := raft.NewRaft(n.raftConfig(), transport.FSM(n.fsm), n.cfg.Logs, stable, snapshots, transport)
	if err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), transport.Close())
	}
	transport.BindRaft(r, n.cfg.Logs)
	n.transport, n.raft = transport, r
	return nil
}

// addresses finds members' Raft addresses: where a member itself says that it is now, by discovery; else in its
// record, which is newer than Raft's configuration where an address has changed. Records change only through a leader:
// without discovery, members that had all moved would never elect one. A connection begins with the id of the member
// that it is for, so nobody else answers at an address that is out of date.
type addresses struct{ node *Node }

// ServerAddr implements raft.ServerAddressProvider.
func (a addresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if address, ok := a.node.cfg.Discovery.RaftAddress(string(id)); ok {
		return raft.ServerAddress(address), nil
	}
	if address := a.node.recorded(id); address != "" {
		return address, nil
	}
	return "", fmt.Errorf("no record of member %s", id)
}

// recorded gives the Raft address in a member's record; empty if it has none.
func (n *Node) recorded(id raft.ServerID) raft.ServerAddress {
	m, _ := n.fsm.View().Member(string(id))
	return raft.ServerAddress(m.RaftAddress)
}

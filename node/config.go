// Package node is one member of a Keyquorum cluster. It puts the rooms beneath it together, and decides when
// each of them works: what every member does, what only the leader does, and in which order a member stops.
//
// Listeners, stores, discovery and clocks come in through Config, so a whole cluster runs inside one test
// process, also under virtual time.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node/auditing"
	"github.com/keyquorum/keyquorum/node/raftnet"
)

// Discovery finds other nodes. It only proposes: what it says is never taken for membership.
type Discovery interface {
	// Peers gives the RPC addresses of nodes that seem alive, this one left out.
	Peers() []string
	// RaftAddress gives the HOST:PORT at which the node with the id says that its Raft is, if it seems alive. It is
	// asked before each request to the node, so it must be quick.
	RaftAddress(id string) (string, bool)
	// Changed signals that Peers may give something else.
	Changed() <-chan struct{}
}

// Config is what a Node is made of. Fields without a stated default are required.
type Config struct {
	// ID is the node's UUID, which belongs to its stores; Name is what people call it.
	ID, Name string
	// Region says where the node is; may be empty.
	Region string
	// Version is the build's, for the member record; may be empty.
	Version string
	// Replica nodes never become voters.
	Replica bool

	// RPCListener and RaftListener are owned, and closed, by the node.
	RPCListener, RaftListener net.Listener
	// ProbeListener is for probes and metrics, owned and closed as well; nil to serve them with RPC.
	ProbeListener net.Listener
	// RPCAddress and RaftAddress are HOST:PORT as other nodes reach the listeners.
	RPCAddress, RaftAddress string
	// MaxConns bounds the connections that callers hold, and a quarter of it those that others hold at the Raft port;
	// 2048 if zero. Each takes a file descriptor.
	MaxConns int
	// CallerRate and CallerRequests are the shares of known callers, as in rpc.Limits; its defaults if zero.
	CallerRate, CallerRequests int
	// Dial connects to other nodes; net.Dialer's DialContext if nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Certs are what this node shows, and what it trusts, at its Raft and RPC listeners and where it dials. Nil speaks without
	// TLS, and then whoever reaches a listener may do anything. The caller runs it.
	Certs *certs.Source
	// Discovery finds other nodes; nil for none.
	Discovery Discovery

	// Logs, Stable and Snapshots are Raft's. The caller closes them after Run.
	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	// SnapshotInterval is how often Raft looks whether a snapshot is due; 2 minutes if zero.
	SnapshotInterval time.Duration
	// SnapshotThreshold is the number of log entries after which a snapshot is taken; 16384 if zero.
	SnapshotThreshold uint64
	// TrailingLogs is the number of entries that stay in the log behind a snapshot; 32768 if zero. A
	// follower that takes longer to restore a snapshot than the cluster takes to write that many never
	// catches up.
	TrailingLogs uint64

	// Audit keeps the audit records; nil to keep the newest 65536 in memory.
	Audit auditing.Store
	// AuditWarn has changes go on where the audit records cannot be written. Otherwise this node takes none as the leader.
	AuditWarn bool

	Keyring *seal.Keyring
	// KeyringProvider is where Keyring came from, and is looked at every KeyringInterval (10 s if zero): keys that are added
	// to it, or dropped, are added to Keyring, or dropped. Nil for a keyring that stays as it is.
	KeyringProvider seal.Provider
	KeyringInterval time.Duration
	// KeyringHeld is told of a changed keyring before anybody else is. Where it fails, the change is not taken on. Nil for
	// nobody.
	KeyringHeld func(*seal.Keyring) error
	Timing      Timing
	// Wall is the node's wall clock; time.Now if nil. Mono is a clock that only runs forward, from any zero, and counts
	// the time that the machine was asleep (CLOCK_BOOTTIME on Linux); Go's own, which may not, if nil.
	Wall func() time.Time
	Mono func() time.Duration
	// Logger gets what the node has to say; discarded if nil.
	Logger *slog.Logger
	// Registry gets the node's metrics; one of its own if nil.
	Registry *prometheus.Registry
	// WrapTransport goes around Raft's transport, inside the repairs of node/raftnet, so that a simulation can lose, delay
	// and repeat Raft's messages; nil for nothing.
	WrapTransport func(raftnet.Inner) raftnet.Inner
	// Halted is a channel of errors that must end the node, such as a hanging disk; nil for none.
	Halted <-chan error
}

func (c Config) withDefaults() Config {
	c.Timing = c.Timing.withDefaults()
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Discovery == nil {
		c.Discovery = nobody{}
	}
	if c.Audit == nil {
		c.Audit = new(auditing.Memory)
	}
	if c.MaxConns == 0 {
		c.MaxConns = 2048
	}
	if c.SnapshotInterval == 0 {
		c.SnapshotInterval = 2 * time.Minute
	}
	if c.KeyringInterval == 0 {
		c.KeyringInterval = 10 * time.Second
	}
	if c.KeyringHeld == nil {
		c.KeyringHeld = func(*seal.Keyring) error { return nil }
	}
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = 16384
	}
	if c.TrailingLogs == 0 {
		c.TrailingLogs = 32768
	}
	if c.Wall == nil {
		c.Wall = time.Now
	}
	if c.Mono == nil {
		start := time.Now()
		c.Mono = func() time.Duration { return time.Since(start) }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	return c
}

// Validate tells all that is missing or impossible, at once.
func (c Config) Validate() error {
	var faults []error
	need := func(ok bool, field string) {
		if !ok {
			faults = append(faults, fmt.Errorf("%s is required", field))
		}
	}
	need(c.ID != "", "ID")
	need(c.Name != "", "Name")
	need(c.RPCListener != nil, "RPCListener")
	need(c.RaftListener != nil, "RaftListener")
	need(c.RPCAddress != "", "RPCAddress")
	need(c.RaftAddress != "", "RaftAddress")
	need(c.Logs != nil, "Logs")
	need(c.Stable != nil, "Stable")
	need(c.Snapshots != nil, "Snapshots")
	need(c.Keyring != nil, "Keyring")
	return errors.Join(faults...)
}

// nobody is the discovery of a node that is alone.
type nobody struct{}

func (nobody) Peers() []string                   { return nil }
func (nobody) RaftAddress(string) (string, bool) { return "", false }
func (nobody) Changed() <-chan struct{}          { return nil }

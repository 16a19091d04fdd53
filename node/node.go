package node

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/semaphore"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/node/auditing"
	"github.com/keyquorum/keyquorum/node/clock"
	"github.com/keyquorum/keyquorum/node/freshness"
	"github.com/keyquorum/keyquorum/node/membership"
	"github.com/keyquorum/keyquorum/node/placement"
	"github.com/keyquorum/keyquorum/node/propose"
	"github.com/keyquorum/keyquorum/node/raftnet"
	"github.com/keyquorum/keyquorum/node/revocation"
	"github.com/keyquorum/keyquorum/node/tokens"
	"github.com/keyquorum/keyquorum/rpc"
)

// Node is one member. Its methods are safe for concurrent use.
type Node struct {
	cfg  Config
	self fsm.Member
	log  *slog.Logger

	fsm       *fsm.FSM
	raft      *raft.Raft
	transport *raftnet.Transport
	peers     *peers
	clock     *clock.Clock
	proposer  *propose.Proposer
	keyring   *keyring
	look      lookout
	members   *membership.Manager
	placement *placement.Placement
	freshness *freshness.Freshness
	ticks     *freshness.Ticks
	revoked   *revocation.Revocation
	tokens    *tokens.Service
	local     *localWriter
	server    *http.Server
	probes    *http.Server // nil where the server serves them
	metrics   *metrics
	trail     *auditing.Trail

	challenges *challenges
	// process tells this process from another that runs on a copy of its data directory.
	process []byte
	// turn is held by who founds a cluster here, or lets this node join one.
	turn *semaphore.Weighted
	// claiming is set while this node is about to found a cluster.
	claiming atomic.Bool
	// leading is set while this node leads and its state holds all that earlier leaders acknowledged.
	leading atomic.Bool
	// reign is the last in which this node took up its duties; nil before the first.
	reign atomic.Pointer[reign]
	// removed is set once the cluster has said that it took this node out.
	removed atomic.Bool
	// draining is set once the node takes no more requests.
	draining atomic.Bool
	// closing is closed when the node begins to drain.
	closing chan struct{}
	// halted gets the error that ends the node.
	halted chan error
}

var _ rpc.Node = (*Node)(nil)

// New makes a node over its stores and starts Raft on them. Run must follow.
func New(cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("node config: %w", err)
	}
	cfg = cfg.withDefaults()
	n := &Node{
		cfg:    cfg,
		log:    cfg.Logger.With("node", cfg.Name),
		halted: make(chan error, 1), turn: semaphore.NewWeighted(1), closing: make(chan struct{}), process: make([]byte, 16),
		self: fsm.Member{
			ID: cfg.ID, Name: cfg.Name, Region: cfg.Region, Version: cfg.Version, Replica: cfg.Replica,
			RPCAddress: cfg.RPCAddress, RaftAddress: cfg.RaftAddress, Format: fsm.Format,
		},
	}
	_, _ = rand.Read(n.process) // never fails: crypto/rand
	n.trail = n.newTrail()
	n.fsm = fsm.New(fsm.Config{OnHalt: n.halt, Audit: n.trail})
	n.keyring = &keyring{ring: cfg.Keyring, view: n.fsm.View}
	n.challenges = newChallenges(cfg.Mono)
	n.peers = newPeers(cfg.Dial, cfg.Certs, n.rpcAddress)
	if err := n.startRaft(); err != nil {
		n.peers.close()
		return nil, err
	}
	n.furnish()
	return n, nil
}

// furnish makes the rooms that work over Raft. None of them starts anything by itself.
func (n *Node) furnish() {
	n.metrics = newMetrics(n)
	n.auditMetrics()
	n.clock = clock.New(clock.Config{
		Self: n.cfg.ID, Wall: n.cfg.Wall, Mono: n.cfg.Mono,
		Voters: n.voters, Measure: n.peers.clock, Logger: n.log,
	})
	n.proposer = propose.New(propose.Config{
		Raft: n.raft, Now: n.clock.Now, Format: n.format, Observe: n.metrics.batch,
	})
	n.members = membership.New(membership.Config{
		Self: raft.ServerID(n.cfg.ID), Raft: n.raft, View: n.fsm.View,
		Propose: n.propose, Await: n.proposer.Await, Applied: n.peers.applied, WhoIs: n.peers.whoIs,
		Process: n.peers.process, Origin: n.origin(), Stable: n.cfg.Timing.Stable, Logger: n.log,
	})
	n.placement = placement.New(placement.Config{
		Self: n.cfg.ID, View: n.fsm.View, Voters: n.voters, Fit: n.fitToLead, HandOver: n.handTo, Logger: n.log,
	})
	n.ticks = freshness.NewTicks(freshness.TicksConfig{Propose: n.commitTick, Mono: n.cfg.Mono, View: n.fsm.View, Origin: n.origin()})
	n.freshness = freshness.New(freshness.Config{
		State: n.fsm.State, Wait: n.fsm.Wait, Tick: n.askTick, Mono: n.cfg.Mono, Wall: n.cfg.Wall,
		Observe: n.metrics.round, Logger: n.log,
	})
	n.revoked = revocation.New(revocation.Config{
		Self: n.cfg.ID, State: n.fsm.State, Mono: n.cfg.Mono, Applied: n.peers.reached, Heard: n.lastHeard, Propose: n.proposer.Propose,
		Nudge: n.ticks.Nudge, Leading: n.leading.Load, Origin: n.origin(), Logger: n.log,
	})
	n.tokens = tokens.New(tokens.Config{
		Node: n.cfg.Name, State: n.fsm.State, Freshness: n.proofs(), Settle: n.settle, Keyring: n.keyring,
		Propose: n.propose, Now: n.clock.Now, Last: n.clock.Last, Doubt: n.clock.Doubt, Logger: n.log,
	})
	n.local = &localWriter{node: n}
	front := rpc.Config{
		Node: n, Logger: n.log, Registerer: n.cfg.Registry, Gatherer: n.cfg.Registry,
		OmitProbes: n.cfg.ProbeListener != nil, Secure: n.cfg.Certs != nil, Limits: rpc.Limits{CallerRate: n.cfg.CallerRate, CallerRequests: n.cfg.CallerRequests},
	}
	bounds := rpc.ServerConfig{Logger: n.log, MaxConns: n.cfg.MaxConns}
	n.server = rpc.NewServer(rpc.NewHandler(front), bounds)
	if n.cfg.Certs != nil {
		n.server.TLSConfig = n.cfg.Certs.Server(certs.Anyone)
	}
	if n.cfg.ProbeListener != nil {
		n.probes = rpc.NewServer(rpc.ProbeHandler(front), bounds)
	}
}

// Name is what people call the node.
func (n *Node) Name() string { return n.cfg.Name }

// ID is the node's UUID.
func (n *Node) ID() string { return n.cfg.ID }

// View gives the node's state.
func (n *Node) View() *fsm.View { return n.fsm.View() }

// Leading tells whether the node leads, with all that earlier leaders acknowledged in its state.
func (n *Node) Leading() bool { return n.leading.Load() }

// origin is what the record says of changes that the node makes by itself.
func (n *Node) origin() fsm.Origin { return fsm.Origin{Actor: "keyquorum", Node: n.cfg.Name} }

// halt ends the node: its state, or the ground that it stands on, can no longer be trusted.
func (n *Node) halt(err error) {
	select {
	case n.halted <- err:
	default:
	}
}

// format is the highest entry format that all members read.
func (n *Node) format() int {
	lowest := fsm.Format
	for _, m := range n.fsm.View().Members() {
		lowest = min(lowest, m.Format)
	}
	return lowest
}

// voters gives the ids of Raft's voters.
func (n *Node) voters() []string {
	var ids []string
	for _, server := range n.servers() {
		if server.Suffrage == raft.Voter {
			ids = append(ids, string(server.ID))
		}
	}
	return ids
}

// servers reads Raft's configuration. Its future is answered at once.
func (n *Node) servers() []raft.Server {
	future := n.raft.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	return future.Configuration().Servers
}

// rpcAddress finds a member's RPC address by its id.
func (n *Node) rpcAddress(id string) (string, bool) {
	m, ok := n.fsm.View().Member(id)
	return m.RPCAddress, ok
}

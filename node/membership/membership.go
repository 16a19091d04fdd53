// Package membership is how nodes come into a cluster, become voters, and leave it. Raft's configuration is the
// truth about who is in; the replicated records, which clients and forwarding use, follow it.
//
// The leader admits a node as a non-voter first, and makes it a voter once it has been caught up for a while, so
// that a new node never stands in the way of a commit.
package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
)

// Raft is what a Manager needs of *raft.Raft.
type Raft interface {
	GetConfiguration() raft.ConfigurationFuture
	AddVoter(id raft.ServerID, address raft.ServerAddress, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	AddNonvoter(id raft.ServerID, address raft.ServerAddress, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	DemoteVoter(id raft.ServerID, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	RemoveServer(id raft.ServerID, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	CommitIndex() uint64
}

// Config is what a Manager works with. Fields without a stated default are required.
type Config struct {
	Self raft.ServerID
	Raft Raft
	View func() *fsm.View
	// Propose puts a command through the log; Await waits for a change of Raft's configuration.
	Propose func(context.Context, fsm.Command) (fsm.Result, error)
	Await   func(context.Context, raft.Future) error
	// Applied asks a node how far it has applied the log.
	Applied func(ctx context.Context, rpcAddress string) (uint64, error)
	// WhoIs asks a node for its id.
	WhoIs func(ctx context.Context, rpcAddress string) (string, error)
	// Origin is recorded with each change.
	Origin fsm.Origin
	// Interval is the time between two looks at the members; 500 ms if zero.
	Interval time.Duration
	// Stable is how long a non-voter must have kept up before it is promoted; 2 s if zero.
	Stable time.Duration
	// Timeout bounds one change; 10 s if zero.
	Timeout time.Duration
	Logger  *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Interval == 0 {
		c.Interval = 500 * time.Millisecond
	}
	if c.Stable == 0 {
		c.Stable = 2 * time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	return c
}

// Manager changes the cluster's membership, on the leader. Its methods are safe for concurrent use.
type Manager struct {
	cfg Config
	// turn is held by who makes a change: one finishes, configuration and record both, before the next begins.
	turn chan struct{}
}

// New makes a Manager.
func New(cfg Config) *Manager {
	return &Manager{cfg: cfg.withDefaults(), turn: make(chan struct{}, 1)}
}

// take waits, within ctx, for the turn to make a change. Who has it gives it back with give.
func (m *Manager) take(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: another change of the members is under way", fault.ErrOverloaded)
	}
}

func (m *Manager) give() { <-m.turn }

// ErrRemoved says that a node was a member and is none any more. It does not come back under that identity.
var ErrRemoved = fmt.Errorf("%w: this node was removed from the cluster: stop it, empty its data directory, and let it join as a new member",
	fault.ErrNoSuchMember)

// Admit takes a node in as a non-voter, or brings the record and address of a member up to date. wasMember tells
// that the node says it belonged to this cluster before; if it no longer does, the answer is ErrRemoved.
func (m *Manager) Admit(ctx context.Context, member fsm.Member, wasMember bool) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.give()
	servers, err := m.servers()
	if err != nil {
		return err
	}
	current, in := find(servers, raft.ServerID(member.ID))
	if !in && wasMember {
		return ErrRemoved
	}
	if err := m.takeOver(ctx, servers, member); err != nil {
		return err
	}
	if !in || current.Address != raft.ServerAddress(member.RaftAddress) {
		if err := m.place(ctx, member, current.Suffrage, in); err != nil {
			return fmt.Errorf("add %s to the raft configuration: %w", member.Name, err)
		}
	}
	return m.record(ctx, member)
}

// place puts a server into Raft's configuration, or gives it a new address there, with the suffrage that it has.
func (m *Manager) place(ctx context.Context, member fsm.Member, suffrage raft.ServerSuffrage, in bool) error {
	id, address := raft.ServerID(member.ID), raft.ServerAddress(member.RaftAddress)
	if in && suffrage == raft.Voter {
		return m.await(ctx, m.cfg.Raft.AddVoter(id, address, 0, m.cfg.Timeout))
	}
	return m.await(ctx, m.cfg.Raft.AddNonvoter(id, address, 0, m.cfg.Timeout))
}

// takeOver removes the member at whose Raft address the new one is now: a node that lost its directory comes back
// under another identity, and the old one can never answer there again. A member that does answer keeps its
// address.
func (m *Manager) takeOver(ctx context.Context, servers []raft.Server, member fsm.Member) error {
	for _, s := range servers {
		if s.ID == raft.ServerID(member.ID) || s.Address != raft.ServerAddress(member.RaftAddress) {
			continue
		}
		if !m.lost(ctx, servers, s.ID, member) {
			return fault.Invalid("member.raftAddress", fmt.Sprintf("%s is the address of member %s", s.Address, s.ID))
		}
		m.cfg.Logger.Warn("a member lost its identity: it is removed, and joins anew", "old", s.ID, "new", member.ID)
		if err := m.await(ctx, m.cfg.Raft.RemoveServer(s.ID, 0, m.cfg.Timeout)); err != nil {
			return fmt.Errorf("remove %s, whose address %s has: %w", s.ID, member.Name, err)
		}
		return m.forget(ctx, s.ID, m.cfg.Origin)
	}
	return nil
}

// lost tells whether a member's identity is gone: at the very place where it was, the newcomer answers. A member
// that only moved takes nobody's place, and the leader is not lost.
func (m *Manager) lost(ctx context.Context, servers []raft.Server, old raft.ServerID, newcomer fsm.Member) bool {
	record, ok := m.cfg.View().Member(string(old))
	if _, moved := find(servers, raft.ServerID(newcomer.ID)); !ok || moved || old == m.cfg.Self {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	who, err := m.cfg.WhoIs(ctx, record.RPCAddress)
	return err == nil && who == newcomer.ID
}

// record writes a member's record if it is new or has changed.
func (m *Manager) record(ctx context.Context, member fsm.Member) error {
	if current, ok := m.cfg.View().Member(member.ID); ok && current == member {
		return nil
	}
	_, err := m.cfg.Propose(ctx, fsm.Command{Origin: m.cfg.Origin, Op: fsm.PutMember{Member: member}})
	if err != nil {
		return fmt.Errorf("record member %s: %w", member.Name, err)
	}
	return nil
}

// Remove takes a member out, the leader itself included. The last voter stays.
func (m *Manager) Remove(ctx context.Context, id raft.ServerID, origin fsm.Origin) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.give()
	servers, err := m.servers()
	if err != nil {
		return err
	}
	if server, in := find(servers, id); in {
		if server.Suffrage == raft.Voter && countVoters(servers) == 1 {
			return fault.ErrLastVoter
		}
		if err := m.await(ctx, m.cfg.Raft.RemoveServer(id, 0, m.cfg.Timeout)); err != nil {
			return fmt.Errorf("remove %s from the raft configuration: %w", id, err)
		}
	}
	return m.forget(ctx, id, origin)
}

// forget drops the record of a node that Raft's configuration no longer has. A leader that removed itself cannot
// propose any more: its successor finds the record left over.
func (m *Manager) forget(ctx context.Context, id raft.ServerID, origin fsm.Origin) error {
	if id == m.cfg.Self {
		return nil
	}
	_, err := m.cfg.Propose(ctx, fsm.Command{Origin: origin, Op: fsm.RemoveMember{ID: string(id)}})
	if errors.Is(err, &fsm.Refusal{Code: fsm.CodeUnknownMember}) {
		return nil
	}
	return err
}

// Run makes the changes that the wanted number of voters asks for, until ctx ends, which is when the node no
// longer leads.
func (m *Manager) Run(ctx context.Context) error {
	watch := newWatch(m.cfg.Stable)
	ticker := time.NewTicker(m.cfg.Interval)
	defer ticker.Stop()
	for {
		if err := m.step(ctx, watch); err != nil && ctx.Err() == nil && !errors.Is(err, fault.ErrNotLeader) {
			m.cfg.Logger.Warn("a change of the members has to wait; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// step looks at the members and makes at most one change.
func (m *Manager) step(ctx context.Context, watch *watch) error {
	servers, err := m.servers()
	if err != nil {
		return err
	}
	m.look(ctx, watch, servers)
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.give()
	if servers, err = m.servers(); err != nil {
		return err
	}
	view := m.cfg.View()
	return m.carryOut(ctx, Next(Situation{
		Self: m.cfg.Self, Servers: servers, Members: view.Members(),
		Wanted: view.Settings().WantedVoters, Ready: watch.ready, AllAnswer: watch.silent == 0,
	}))
}

func (m *Manager) carryOut(ctx context.Context, plan Plan) error {
	switch {
	case plan.Promote.ID != "":
		m.cfg.Logger.Info("member becomes a voter", "member", plan.Promote.ID)
		return m.await(ctx, m.cfg.Raft.AddVoter(plan.Promote.ID, plan.Promote.Address, 0, m.cfg.Timeout))
	case plan.Demote != "":
		m.cfg.Logger.Info("member is a voter no more", "member", plan.Demote)
		return m.await(ctx, m.cfg.Raft.DemoteVoter(plan.Demote, 0, m.cfg.Timeout))
	case plan.Forget != "":
		m.cfg.Logger.Info("record of a removed member is dropped", "member", plan.Forget)
		return m.forget(ctx, plan.Forget, m.cfg.Origin)
	}
	return nil
}

// servers reads Raft's configuration. Its future is answered at once.
func (m *Manager) servers() ([]raft.Server, error) {
	future := m.cfg.Raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, fmt.Errorf("read the raft configuration: %w", err)
	}
	return future.Configuration().Servers, nil
}

func (m *Manager) await(ctx context.Context, future raft.Future) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	return m.cfg.Await(ctx, future)
}

func find(servers []raft.Server, id raft.ServerID) (raft.Server, bool) {
	for _, s := range servers {
		if s.ID == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

func countVoters(servers []raft.Server) (n int) {
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			n++
		}
	}
	return n
}

// Package membership is how nodes come into a cluster, become voters, and leave it. The replicated state says who is a
// member, and who was removed for good; Raft's configuration, which follows it, says who gets the log and who votes.
//
// The leader admits a node as a non-voter first, and makes it a voter once it has been caught up for a while, so
// that a new node never stands in the way of a commit.
package membership

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/semaphore"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node/raftnet"
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
	// Applied asks a member how far it has applied the log. It fails if another node answers.
	Applied func(ctx context.Context, member fsm.Member) (uint64, error)
	// WhoIs asks a node for its id.
	WhoIs func(ctx context.Context, rpcAddress string) (string, error)
	// Process asks a node for its id, and for what tells its process from another under that id; nothing if it is of a
	// version that does not say.
	Process func(ctx context.Context, rpcAddress string) (id string, process []byte, err error)
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
	turn *semaphore.Weighted
}

// New makes a Manager.
func New(cfg Config) *Manager {
	return &Manager{cfg: cfg.withDefaults(), turn: semaphore.NewWeighted(1)}
}

// take waits, within ctx, for the turn to make a change. Who has it gives it back with give.
func (m *Manager) take(ctx context.Context) error {
	if m.turn.Acquire(ctx, 1) != nil {
		return fmt.Errorf("%w: another change of the members is under way", fault.ErrOverloaded)
	}
	return nil
}

func (m *Manager) give() { m.turn.Release(1) }

// Admit takes a node in as a non-voter, or brings the record and address of a member up to date. Who was removed is
// not taken in again: fault.ErrRemoved. A member whose record names another address than the one at which it asks, and
// where a process other than the asking one answers in its name, is not moved: fault.ErrTwin. Its data directory was
// copied, and two that share one voice could vote twice. One that could not read what the log may hold by now is not taken
// in, nor recorded as such: fault.InvalidError.
//
// The record comes first: the state has the last word on who was removed, and what was cut short between record and
// configuration is finished by the next leader.
func (m *Manager) Admit(ctx context.Context, member fsm.Member, process []byte) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.give()
	view := m.cfg.View()
	current, known := view.Member(member.ID)
	switch {
	case view.Removed(member.ID):
		return fault.ErrRemoved
	case known && current.RPCAddress != member.RPCAddress && m.twin(ctx, current, process):
		return fault.ErrTwin
	case member.Format < written(view):
		return fault.Invalid("member.format", fmt.Sprintf(
			"this node reads log entries up to format %d, and the cluster may have written some of format %d: run a newer version on it",
			member.Format, written(view)))
	case !known:
		if err := m.takeOver(ctx, view, member); err != nil {
			return err
		}
	}
	if err := m.record(ctx, member); err != nil {
		return err
	}
	return m.place(ctx, member)
}

// written is the highest format that an entry in the log can have: entries are proposed only in what all members read, and
// as nobody comes in below that, it never falls.
func written(view *fsm.View) int {
	lowest := 0
	for i, m := range view.Members() {
		if i == 0 || m.Format < lowest {
			lowest = m.Format
		}
	}
	return lowest
}

// twin tells whether a process other than the given one answers as the member, where its record says that it is.
func (m *Manager) twin(ctx context.Context, member fsm.Member, process []byte) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	who, other, err := m.cfg.Process(ctx, member.RPCAddress)
	return err == nil && who == member.ID && len(other) > 0 && !bytes.Equal(other, process)
}

// place puts a member into Raft's configuration, as a non-voter. Whoever is in it stays as it is: where a member is now,
// its record says, and an address that changes under way is a data race in hashicorp/raft 1.8.0 (updateLastAppended
// reads the peer without its lock; ran).
func (m *Manager) place(ctx context.Context, member fsm.Member) error {
	servers, err := m.servers()
	if err != nil {
		return err
	}
	id := raft.ServerID(member.ID)
	if _, in := find(servers, id); in {
		return nil
	}
	address := raftnet.Address(id, raft.ServerAddress(member.RaftAddress))
	if err := m.await(ctx, m.cfg.Raft.AddNonvoter(id, address, 0, m.cfg.Timeout)); err != nil {
		return fmt.Errorf("add %s to the raft configuration: %w", member.Name, err)
	}
	return nil
}

// takeOver removes the member at whose Raft address a new one is now: a node that lost its directory comes back
// under another identity, and the old one can never answer there again. A member that does answer keeps its address.
func (m *Manager) takeOver(ctx context.Context, view *fsm.View, newcomer fsm.Member) error {
	for _, old := range view.Members() {
		if old.RaftAddress != newcomer.RaftAddress {
			continue
		}
		if !m.lost(ctx, old, newcomer) {
			return fault.Invalid("member.raftAddress", fmt.Sprintf("%s is the address of member %s (%s)", old.RaftAddress, old.Name, old.ID))
		}
		m.cfg.Logger.Warn("a member lost its identity: it is removed, and joins anew", "old", old.ID, "new", newcomer.ID)
		if err := m.evict(ctx, raft.ServerID(old.ID), m.cfg.Origin); err != nil {
			return fmt.Errorf("remove %s, whose address %s has: %w", old.ID, newcomer.Name, err)
		}
	}
	return nil
}

// lost tells whether a member's identity is gone: at the very place where it was, the newcomer answers. The leader is
// not lost.
func (m *Manager) lost(ctx context.Context, old, newcomer fsm.Member) bool {
	if raft.ServerID(old.ID) == m.cfg.Self {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	who, err := m.cfg.WhoIs(ctx, old.RPCAddress)
	return err == nil && who == newcomer.ID
}

// record writes a member's record if it is new or has changed.
func (m *Manager) record(ctx context.Context, member fsm.Member) error {
	if current, ok := m.cfg.View().Member(member.ID); ok && current == member {
		return nil
	}
	_, err := m.cfg.Propose(ctx, fsm.Command{Origin: m.cfg.Origin, Op: fsm.PutMember{Member: member}})
	if errors.Is(err, &fsm.Refusal{Code: fsm.CodeRemovedMember}) {
		return fault.ErrRemoved
	}
	if err != nil {
		return fmt.Errorf("record member %s: %w", member.Name, err)
	}
	return nil
}

// Remove takes a member out for good, the leader itself included. The last voter stays, and so does a voter without
// which too few of the others answer: the cluster could not even commit its removal.
func (m *Manager) Remove(ctx context.Context, id raft.ServerID, origin fsm.Origin) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.give()
	servers, err := m.servers()
	if err != nil {
		return err
	}
	if server, in := find(servers, id); in && server.Suffrage == raft.Voter {
		if err := m.spare(ctx, servers, id); err != nil {
			return err
		}
	}
	return m.evict(ctx, id, origin)
}

// spare fails if the voters cannot do without the one with the id.
func (m *Manager) spare(ctx context.Context, servers []raft.Server, id raft.ServerID) error {
	var left []raft.Server
	for _, s := range servers {
		if s.Suffrage == raft.Voter && s.ID != id {
			left = append(left, s)
		}
	}
	if len(left) == 0 {
		return fault.ErrLastVoter
	}
	silent := m.silent(ctx, left)
	if answer, need := len(left)-len(silent), len(left)/2+1; answer < need {
		return fmt.Errorf("%w: %d of the %d voters left would answer, and %d are needed: bring %s back first, or remove those that are lost",
			fault.ErrQuorumAtRisk, answer, len(left), need, strings.Join(silent, ", "))
	}
	return nil
}

// silent asks all of the servers at once, and gives the names of those that do not answer within two seconds.
func (m *Manager) silent(ctx context.Context, servers []raft.Server) (names []string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, s := range servers {
		if s.ID == m.cfg.Self {
			continue
		}
		asked.Go(func() {
			member, ok := m.cfg.View().Member(string(s.ID))
			who, err := m.cfg.WhoIs(ctx, member.RPCAddress)
			if ok && err == nil && who == string(s.ID) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			names = append(names, cmp.Or(member.Name, string(s.ID)))
		})
	}
	asked.Wait()
	slices.Sort(names)
	return names
}

// evict takes a member out of the state, which is final, and then out of Raft's configuration. Where it is cut short
// in between, the next leader finishes it.
func (m *Manager) evict(ctx context.Context, id raft.ServerID, origin fsm.Origin) error {
	_, err := m.cfg.Propose(ctx, fsm.Command{Origin: origin, Op: fsm.RemoveMember{ID: string(id)}})
	if err != nil && !errors.Is(err, &fsm.Refusal{Code: fsm.CodeUnknownMember}) {
		return err
	}
	servers, err := m.servers()
	if err != nil {
		return err
	}
	if _, in := find(servers, id); !in {
		return nil
	}
	if err := m.await(ctx, m.cfg.Raft.RemoveServer(id, 0, m.cfg.Timeout)); err != nil {
		return fmt.Errorf("remove %s from the raft configuration: %w", id, err)
	}
	return nil
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
		Removed: view.Removed, Wanted: view.Settings().WantedVoters, Ready: watch.ready, AllAnswer: watch.silent == 0,
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
	case plan.Place.ID != "":
		m.cfg.Logger.Info("admission of a member is finished", "member", plan.Place.ID)
		return m.place(ctx, plan.Place)
	case plan.Evict != "":
		m.cfg.Logger.Info("removal of a member is finished", "member", plan.Evict)
		return m.evict(ctx, plan.Evict, m.cfg.Origin)
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

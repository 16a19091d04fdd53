// Package cluster runs whole Keyquorum clusters inside one test, in memory and under virtual time, and lets the
// test speak of them: kill the leader, cut off a follower, heal, wait until everybody agrees.
//
// It works inside a testing/synctest bubble only.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/memnet"
)

// Patience is how long, in virtual time, the helpers wait for what must come about.
const Patience = time.Minute

// Options change what New makes. The zero value is a cluster with default settings.
type Options struct {
	// Settings are the cluster's, from the founding on; the present fields only.
	Settings *v1.Settings
	// Wall gives each node's wall clock by name; time.Now where it is nil or gives nil.
	Wall func(name string) func() time.Time
	// Config can change a node's config before it starts; nil for no change.
	Config func(*node.Config)
	// Unfounded leaves the cluster without founding it.
	Unfounded bool
}

// Cluster is a set of members on a network of their own.
type Cluster struct {
	t       testing.TB
	opts    Options
	Net     *memnet.Net
	Keyring *seal.Keyring
	log     *slog.Logger

	mu      sync.Mutex
	members []*Member
}

// Member is a node and what outlives its process: identity and stores.
type Member struct {
	Host      string
	UUID      string
	Logs      *raft.InmemStore
	Snapshots *raft.InmemSnapshotStore
	Audit     *Audit

	// keyring is what the member's file has; see GiveKeyring.
	keyring atomic.Pointer[seal.Keyring]
	cluster *Cluster
	node    atomic.Pointer[node.Node]
	stop    context.CancelFunc
	done    chan error
}

// New starts n members, founds the cluster at the first, and waits until all are in it, those that should be
// voters are, and everybody knows the leader and the time.
func New(t testing.TB, n int, opts Options) *Cluster {
	t.Helper()
	keyring, err := seal.NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t, opts: opts, Net: memnet.New(), Keyring: keyring, log: slog.New(slog.DiscardHandler)}
	if testing.Verbose() {
		c.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	t.Cleanup(c.stopAll)
	for range n {
		c.Add()
	}
	if !opts.Unfounded {
		c.Found(c.Members()[0])
		c.AwaitSettled()
	}
	return c
}

// Node gives the node that runs, or ran last.
func (m *Member) Node() *node.Node { return m.node.Load() }

// Leading tells whether the member leads.
func (m *Member) Leading() bool { return m.Node().Leading() }

// View gives the member's state.
func (m *Member) View() *fsm.View { return m.Node().View() }

// Ready says why the member cannot serve, or nil.
func (m *Member) Ready() error { return m.Node().Ready() }

// GiveKeyring puts a keyring in the place of the one that the member starts with, and looks at while it runs.
func (m *Member) GiveKeyring(k *seal.Keyring) { m.keyring.Store(k) }

// Load implements seal.Provider.
func (m *Member) Load(context.Context) (*seal.Keyring, error) {
	if k := m.keyring.Load(); k != nil {
		return k.Clone(), nil
	}
	return nil, errors.New("the provider is gone")
}

// Found founds the cluster at m.
func (c *Cluster) Found(m *Member) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if _, err := m.Node().Init(ctx, rpc.Caller{Actor: "test"}, &v1.InitRequest{Settings: c.opts.Settings}); err != nil {
		c.t.Fatalf("found the cluster: %v", err)
	}
}

// Add starts one more member, with nothing in its stores.
func (c *Cluster) Add() *Member {
	c.t.Helper()
	m := c.Prepare()
	c.Start(m)
	return m
}

// Prepare makes one more member, with nothing in its stores, and does not start it.
func (c *Cluster) Prepare() *Member {
	c.t.Helper()
	m := &Member{cluster: c, Host: fmt.Sprintf("n%d", len(c.Members())+1)}
	m.keyring.Store(c.Keyring)
	c.mu.Lock()
	c.members = append(c.members, m)
	c.mu.Unlock()
	c.Empty(m)
	return m
}

// Empty gives a stopped member new stores, and so a new identity.
func (c *Cluster) Empty(m *Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.UUID = uuid.NewString()
	m.Logs, m.Snapshots = raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	m.Audit = new(Audit)
}

// Start starts a stopped member on the stores it has.
func (c *Cluster) Start(m *Member) {
	c.t.Helper()
	n, err := node.New(c.config(m))
	if err != nil {
		c.t.Fatalf("start %s: %v", m.Host, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	m.node.Store(n)
	c.mu.Lock()
	m.stop, m.done = stop, make(chan error, 1)
	c.mu.Unlock()
	done := m.done
	go func() { done <- n.Run(ctx) }()
}

func (c *Cluster) config(m *Member) node.Config {
	cfg := node.Config{
		ID: m.UUID, Name: m.Host,
		RPCAddress: m.Host + ":7400", RaftAddress: m.Host + ":7401",
		Dial:      c.Net.Dialer(m.Host),
		Discovery: discovery{c, m},
		Logs:      m.Logs, Stable: m.Logs, Snapshots: m.Snapshots,
		Keyring: m.keyring.Load().Clone(), KeyringProvider: m, KeyringInterval: time.Second, Audit: m.Audit,
		Logger: c.log,
	}
	if c.opts.Wall != nil {
		cfg.Wall = c.opts.Wall(m.Host)
	}
	if c.opts.Config != nil {
		c.opts.Config(&cfg)
	}
	var err error
	if cfg.RPCListener, err = c.Net.Listen(cfg.RPCAddress); err != nil {
		c.t.Fatal(err)
	}
	if cfg.RaftListener, err = c.Net.Listen(cfg.RaftAddress); err != nil {
		c.t.Fatal(err)
	}
	return cfg
}

// discovery knows every member that the cluster was ever given.
type discovery struct {
	c    *Cluster
	self *Member
}

func (d discovery) Peers() []string {
	var addresses []string
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	for _, m := range d.c.members {
		if m != d.self {
			addresses = append(addresses, m.Host+":7400")
		}
	}
	return addresses
}

func (d discovery) RaftAddress(id string) (string, bool) {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	for _, m := range d.c.members {
		if m.stop != nil && m.UUID == id {
			return m.Host + ":7401", true
		}
	}
	return "", false
}

func (d discovery) Changed() <-chan struct{} { return nil }

// Members gives all members, running or not, in the order in which they were added.
func (c *Cluster) Members() []*Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.members)
}

// Running gives the members that run.
func (c *Cluster) Running() []*Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	var running []*Member
	for _, m := range c.members {
		if m.stop != nil {
			running = append(running, m)
		}
	}
	return running
}

// Leader waits for a leader among the running members, and gives it.
func (c *Cluster) Leader() *Member {
	c.t.Helper()
	var leader *Member
	c.Await("a leader", func() bool {
		for _, m := range c.Running() {
			if m.Leading() {
				leader = m
				return true
			}
		}
		return false
	})
	return leader
}

// Follower gives a running member that does not lead.
func (c *Cluster) Follower() *Member {
	c.t.Helper()
	followers := c.Followers()
	if len(followers) == 0 {
		c.t.Fatal("no follower runs")
	}
	return followers[0]
}

// Followers gives the running members that do not lead.
func (c *Cluster) Followers() []*Member {
	c.t.Helper()
	leader := c.Leader()
	return slices.DeleteFunc(c.Running(), func(m *Member) bool { return m == leader })
}

// Kill cuts a member off and ends it: nothing that it does from then on reaches anybody. What it stored stays.
func (c *Cluster) Kill(m *Member) {
	c.t.Helper()
	c.Net.Stop(m.Host)
	c.End(m)
}

// Shutdown ends a member in the orderly way.
func (c *Cluster) Shutdown(m *Member) {
	c.t.Helper()
	if err := c.End(m); err != nil {
		c.t.Errorf("%s: %v", m.Host, err)
	}
	c.Net.Stop(m.Host)
}

// End ends a member and gives what Run said.
func (c *Cluster) End(m *Member) error {
	c.mu.Lock()
	stop := m.stop
	m.stop = nil
	c.mu.Unlock()
	if stop == nil {
		return nil
	}
	stop()
	return <-m.done
}

// Ended waits until a member ends by itself, and gives what Run said.
func (m *Member) Ended() error {
	m.cluster.t.Helper()
	select {
	case err := <-m.done:
		m.cluster.mu.Lock()
		m.stop = nil
		m.cluster.mu.Unlock()
		m.cluster.Net.Stop(m.Host)
		return err
	case <-time.After(Patience):
		m.cluster.t.Fatalf("%s did not end", m.Host)
		return nil
	}
}

// Move gives a stopped member another host, as when its machine got a new address.
func (c *Cluster) Move(m *Member, host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.Host = host
}

// Restart starts a member that was killed or shut down.
func (c *Cluster) Restart(m *Member) {
	c.t.Helper()
	c.Start(m)
}

// Partition cuts the given members off from all others. They still hear each other.
func (c *Cluster) Partition(side ...*Member) {
	in := make(map[*Member]bool)
	for _, m := range side {
		in[m] = true
	}
	for _, a := range c.Members() {
		for _, b := range c.Members() {
			if in[a] && !in[b] {
				c.Net.Cut(a.Host, b.Host)
			}
		}
	}
}

// Heal mends all links.
func (c *Cluster) Heal() { c.Net.Heal() }

// Await waits until ok.
func (c *Cluster) Await(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(Patience); !ok(); {
		if time.Now().After(deadline) {
			c.t.Fatalf("waited %v in vain for %s", Patience, what)
		}
		time.Sleep(5 * time.Millisecond) // virtual
	}
}

// AwaitSettled waits until all running members are ready, as many as should be voters are, and all have applied
// the same log.
func (c *Cluster) AwaitSettled() {
	c.t.Helper()
	c.Await("all members to be ready and agreed", func() bool {
		running := c.Running()
		wanted := fsm.DefaultSettings().WantedVoters
		for _, m := range running {
			if m.Ready() != nil {
				return false
			}
			wanted = m.View().Settings().WantedVoters
		}
		return c.voters() >= oddUpTo(min(wanted, len(running))) && c.agreed()
	})
}

// AwaitAgreed waits until all running members have applied the same log.
func (c *Cluster) AwaitAgreed() {
	c.t.Helper()
	c.Await("all members to apply the same log", c.agreed)
}

func (c *Cluster) agreed() bool {
	running := c.Running()
	for _, m := range running[1:] {
		if m.View().Position() != running[0].View().Position() {
			return false
		}
	}
	return true
}

func (c *Cluster) voters() (n int) {
	members, err := c.Leader().Node().Members(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, m := range members.GetMembers() {
		if m.GetRole() == v1.Member_VOTER {
			n++
		}
	}
	return n
}

func oddUpTo(n int) int { return n - 1 + n%2 }

func (c *Cluster) stopAll() {
	for _, m := range c.Members() {
		_ = c.End(m)
	}
}

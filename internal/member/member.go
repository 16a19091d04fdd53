// Package member is a node on a real disk and real sockets: it opens the data directory, the stores in it, the
// listeners and the gossip, and wires them to a node. What runs members as processes or in one process shares it.
package member

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/keyquorum/keyquorum/internal/auditfile"
	"github.com/keyquorum/keyquorum/internal/boltstore"
	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/datadir"
	"github.com/keyquorum/keyquorum/internal/gossip"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
)

// Config is what a member is made of. Fields without a stated default are required.
type Config struct {
	// Name is what people call the member; DataDir is the folder that is its own.
	Name, DataDir string
	// Region says where the member is; may be empty.
	Region string
	// Replica members never become voters.
	Replica bool
	// Version is the build's, for the member record; may be empty.
	Version string
	Keyring *seal.Keyring
	// Certs are the member's own and its CAs', which Run keeps up to date; nil to speak without TLS.
	Certs *certs.Source
	// KeyringProvider is where Keyring came from, looked at every KeyringInterval; the node's.
	KeyringProvider seal.Provider
	KeyringInterval time.Duration
	// RPCListen, RaftListen and GossipListen are HOST:PORT; port 0 lets the system choose.
	RPCListen, RaftListen, GossipListen string
	// SnapshotThreshold and TrailingLogs are the node's; its defaults if zero.
	SnapshotThreshold, TrailingLogs uint64
	// SnapshotInterval is the node's; its default if zero.
	SnapshotInterval time.Duration
	// AuditMaxSize is the size past which a new audit file is begun, 64 MiB if zero; AuditKeep is the number that is kept,
	// all if zero. AuditWarn is the node's.
	AuditMaxSize int64
	AuditKeep    int
	AuditWarn    bool
	// MaxConns is the node's; its default if zero.
	MaxConns int
	// CallerRate and CallerRequests are the node's; its defaults if zero.
	CallerRate, CallerRequests int
	// ProbeListen is the HOST:PORT at which probes and metrics are served; with RPC if empty.
	ProbeListen string
	// Advertise is the host at which other members reach this one's ports. If it is empty, it is the address that each
	// is bound to, which must not be that of all interfaces then.
	Advertise string
	// Seeds are gossip addresses of other members; none for the first.
	Seeds []string
	// Timing is Raft's and the leader's; its zero fields take their defaults.
	Timing node.Timing
	Logger *slog.Logger
	// Plug is what the member's connections go through; nil for none.
	Plug *Plug
	// Tune has a last hand on the node's config; nil for none.
	Tune func(*node.Config)
}

// Member is a node with what it stands on.
type Member struct {
	*node.Node
	// RPCAddress, RaftAddress and GossipAddress are where other members reach it.
	RPCAddress, RaftAddress, GossipAddress string
	// ProbeAddress is where its probes are served; empty if with RPC.
	ProbeAddress string

	gossip *gossip.Gossip
	certs  *certs.Source
	// release undoes the opening, the last thing first.
	release []func() error
}

// Open opens the data directory and the sockets, and makes the node over them. Run must follow. Where it fails, all
// that was opened is closed.
func Open(cfg Config) (m *Member, err error) {
	m = &Member{}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	registry := prometheus.NewRegistry()
	halted := make(chan error, 1)
	conf := node.Config{
		Name: cfg.Name, Region: cfg.Region, Replica: cfg.Replica, Version: cfg.Version,
		Keyring: cfg.Keyring, KeyringProvider: cfg.KeyringProvider, KeyringInterval: cfg.KeyringInterval,
		Certs: cfg.Certs, Timing: cfg.Timing, Mono: monotonic(),
		SnapshotThreshold: cfg.SnapshotThreshold, SnapshotInterval: cfg.SnapshotInterval, TrailingLogs: cfg.TrailingLogs,
		MaxConns: cfg.MaxConns, CallerRate: cfg.CallerRate, CallerRequests: cfg.CallerRequests, Logger: cfg.Logger, Registry: registry, Halted: halted,
	}
	if err := m.openDisk(cfg, &conf, registry, halted); err != nil {
		return m, err
	}
	if err := m.listen(cfg, &conf); err != nil {
		return m, err
	}
	if err := m.checkCerts(cfg); err != nil {
		return m, err
	}
	if err := m.openGossip(cfg, &conf); err != nil {
		return m, err
	}
	if cfg.Tune != nil {
		cfg.Tune(&conf)
	}
	m.Node, err = node.New(conf)
	return m, err
}

// later has undo called at the end, or when the opening fails.
func (m *Member) later(undo func() error) { m.release = append(m.release, undo) }

func (m *Member) close() error {
	var faults []error
	for _, v := range slices.Backward(m.release) {
		faults = append(faults, v())
	}
	m.release = nil
	return errors.Join(faults...)
}

// openDisk opens the data directory and what Raft keeps in it. The keyring is checked before anything else is
// read or written.
func (m *Member) openDisk(cfg Config, conf *node.Config, registry *prometheus.Registry, halted chan<- error) error {
	dir, err := datadir.Open(cfg.DataDir, datadir.Options{Logger: cfg.Logger})
	if err != nil {
		return err
	}
	m.later(dir.Close)
	if err := dir.CheckKeyring(cfg.Keyring); err != nil {
		return err
	}
	store, err := boltstore.Open(dir.RaftDB(), boltstore.Options{
		OnHang: func(err error) { halted <- err }, Logger: cfg.Logger, Registerer: registry,
	})
	if err != nil {
		return err
	}
	m.later(store.Close)
	if err := dir.StoreCreated(); err != nil {
		return err
	}
	snapshots, err := dir.Snapshots(node.RaftLogger(cfg.Logger))
	if err != nil {
		return err
	}
	if err := datadir.Check(store, snapshots); err != nil {
		return err
	}
	if err := m.openAudit(cfg, conf, dir.Audit()); err != nil {
		return err
	}
	conf.KeyringHeld = func(k *seal.Keyring) error { return dir.NoteKeyring(k) }
	conf.ID, conf.Logs, conf.Stable, conf.Snapshots = dir.ID(), store, store, snapshots
	return nil
}

func (m *Member) openAudit(cfg Config, conf *node.Config, path string) error {
	store, err := auditfile.Open(path, auditfile.Options{MaxSize: cfg.AuditMaxSize, Keep: cfg.AuditKeep, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	m.later(store.Close)
	conf.Audit, conf.AuditWarn = store, cfg.AuditWarn
	return nil
}

func (m *Member) listen(cfg Config, conf *node.Config) error {
	var err error
	if conf.RPCListener, conf.RPCAddress, err = m.open("requests", cfg.RPCListen, cfg.Advertise); err != nil {
		return err
	}
	if conf.RaftListener, conf.RaftAddress, err = m.open("raft", cfg.RaftListen, cfg.Advertise); err != nil {
		return err
	}
	if cfg.ProbeListen != "" {
		if conf.ProbeListener, err = net.Listen("tcp", cfg.ProbeListen); err != nil {
			return fmt.Errorf("listen for probes: %w", err)
		}
		m.later(ignoreClosed(conf.ProbeListener))
		m.ProbeAddress = conf.ProbeListener.Addr().String()
	}
	if cfg.Plug != nil {
		conf.RPCListener, conf.RaftListener = cfg.Plug.listener(conf.RPCListener), cfg.Plug.listener(conf.RaftListener)
		conf.Dial = cfg.Plug.dial
	}
	m.RPCAddress, m.RaftAddress = conf.RPCAddress, conf.RaftAddress
	return nil
}

// checkCerts refuses certificates that the other members would refuse.
func (m *Member) checkCerts(cfg Config) error {
	if cfg.Certs == nil {
		return nil
	}
	m.certs = cfg.Certs
	var hosts []string
	for _, address := range []string{m.RPCAddress, m.RaftAddress} {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return err
		}
		hosts = append(hosts, host)
	}
	return cfg.Certs.CheckNode(cfg.Name, hosts...)
}

// open listens, and gives the address at which others reach the listener.
func (m *Member) open(what, listen, advertise string) (net.Listener, string, error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, "", fmt.Errorf("listen for %s: %w", what, err)
	}
	m.later(ignoreClosed(l))
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, "", fmt.Errorf("listen for %s: %w", what, err)
	}
	if advertise != "" {
		return l, net.JoinHostPort(advertise, port), nil
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return nil, "", fmt.Errorf("listen for %s: other members cannot reach %s: say at which host they reach this one", what, listen)
	}
	return l, l.Addr().String(), nil
}

// ignoreClosed closes a listener that the node has closed already, or not.
func ignoreClosed(l net.Listener) func() error {
	return func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

func (m *Member) openGossip(cfg Config, conf *node.Config) error {
	key := cfg.Keyring.GossipKey()
	g, err := gossip.New(gossip.Config{
		Listen: cfg.GossipListen, Advertise: cfg.Advertise, Key: key, Label: GossipLabel(key), Seeds: cfg.Seeds,
		NodeID: conf.ID, Name: cfg.Name, RPCAddress: conf.RPCAddress, RaftAddress: conf.RaftAddress,
		Logger: cfg.Logger,
	})
	if err != nil {
		return err
	}
	m.later(g.Close)
	m.gossip, m.GossipAddress, conf.Discovery = g, g.Addr(), g
	return nil
}

// GossipLabel tells clusters apart that share a network. Each has a keyring of its own, and so a gossip key. It goes in the clear.
func GossipLabel(gossipKey []byte) string {
	sum := sha256.Sum256(slices.Concat([]byte("keyquorum gossip label\x00"), gossipKey))
	return "keyquorum " + hex.EncodeToString(sum[:8])
}

// Run works until ctx ends, and closes all that was opened. After node.ErrStuck the process must end at once.
func (m *Member) Run(ctx context.Context) error {
	work, stop := context.WithCancel(ctx)
	defer stop()
	var all errgroup.Group
	all.Go(func() error { return m.gossip.Run(work) })
	if m.certs != nil {
		all.Go(func() error { return m.certs.Run(work) })
	}
	err := m.Node.Run(ctx)
	stop()
	err = errors.Join(err, all.Wait())
	if errors.Is(err, node.ErrStuck) {
		return err
	}
	return errors.Join(err, m.close())
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/keyquorum/keyquorum/internal/boltstore"
	"github.com/keyquorum/keyquorum/internal/datadir"
	"github.com/keyquorum/keyquorum/internal/gossip"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
)

// memberConfig is what a member of a cluster is made of: a data directory, sockets, and how it finds the others.
type memberConfig struct {
	name    string
	dataDir string
	keyring *seal.Keyring
	// rpcListen, raftListen and gossipListen are HOST:PORT; port 0 lets the system choose.
	rpcListen, raftListen, gossipListen string
	// seeds are gossip addresses of other members.
	seeds  []string
	timing node.Timing
	logger *slog.Logger
	// plug, where it is set, is what the member's connections go through.
	plug *plug
	// tune, where it is set, has a last hand on the node's config.
	tune func(*node.Config)
}

// member is a node on a real disk and real sockets.
type member struct {
	*node.Node
	rpcAddress    string
	gossipAddress string

	gossip *gossip.Gossip
	// release undoes the opening, the last thing first.
	release []func() error
}

// openMember opens the data directory and the sockets, and makes the node over them. Where it fails, all that
// was opened is closed.
func openMember(cfg memberConfig) (m *member, err error) {
	m = &member{}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	registry := prometheus.NewRegistry()
	halted := make(chan error, 1)
	conf := node.Config{
		Name: cfg.name, Version: thisBuild().Version, Keyring: cfg.keyring, Timing: cfg.timing,
		Logger: cfg.logger, Registry: registry, Halted: halted,
	}
	if err := m.openDisk(cfg, &conf, registry, halted); err != nil {
		return m, err
	}
	if err := m.listen(cfg, &conf); err != nil {
		return m, err
	}
	if err := m.openGossip(cfg, &conf); err != nil {
		return m, err
	}
	if cfg.tune != nil {
		cfg.tune(&conf)
	}
	m.Node, err = node.New(conf)
	return m, err
}

// later has undo called at the end, or when the opening fails.
func (m *member) later(undo func() error) { m.release = append(m.release, undo) }

func (m *member) close() error {
	var faults []error
	for _, v := range slices.Backward(m.release) {
		faults = append(faults, v())
	}
	m.release = nil
	return errors.Join(faults...)
}

// openDisk opens the data directory and what Raft keeps in it. The keyring is checked before anything else is
// read or written.
func (m *member) openDisk(cfg memberConfig, conf *node.Config, registry *prometheus.Registry, halted chan<- error) error {
	dir, err := datadir.Open(cfg.dataDir, datadir.Options{Logger: cfg.logger})
	if err != nil {
		return err
	}
	m.later(dir.Close)
	if err := dir.CheckKeyring(cfg.keyring); err != nil {
		return err
	}
	store, err := boltstore.Open(dir.RaftDB(), boltstore.Options{
		OnHang: func(err error) { halted <- err }, Logger: cfg.logger, Registerer: registry,
	})
	if err != nil {
		return err
	}
	m.later(store.Close)
	if err := dir.StoreCreated(); err != nil {
		return err
	}
	snapshots, err := dir.Snapshots(node.RaftLogger(cfg.logger))
	if err != nil {
		return err
	}
	if err := datadir.Check(store, snapshots); err != nil {
		return err
	}
	conf.ID, conf.Logs, conf.Stable, conf.Snapshots = dir.ID(), store, store, snapshots
	return nil
}

func (m *member) listen(cfg memberConfig, conf *node.Config) error {
	var err error
	if conf.RPCListener, err = net.Listen("tcp", cfg.rpcListen); err != nil {
		return fmt.Errorf("listen for requests: %w", err)
	}
	m.later(ignoreClosed(conf.RPCListener))
	if conf.RaftListener, err = net.Listen("tcp", cfg.raftListen); err != nil {
		return fmt.Errorf("listen for raft: %w", err)
	}
	m.later(ignoreClosed(conf.RaftListener))
	conf.RPCAddress, conf.RaftAddress = conf.RPCListener.Addr().String(), conf.RaftListener.Addr().String()
	if cfg.plug != nil {
		conf.RPCListener, conf.RaftListener = cfg.plug.listener(conf.RPCListener), cfg.plug.listener(conf.RaftListener)
		conf.Dial = cfg.plug.dial
	}
	m.rpcAddress = conf.RPCAddress
	return nil
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

func (m *member) openGossip(cfg memberConfig, conf *node.Config) error {
	g, err := gossip.New(gossip.Config{
		Listen: cfg.gossipListen, Key: cfg.keyring.GossipKey(), Seeds: cfg.seeds,
		NodeID: conf.ID, Name: cfg.name, RPCAddress: conf.RPCAddress, Logger: cfg.logger,
	})
	if err != nil {
		return err
	}
	m.later(g.Close)
	m.gossip, m.gossipAddress, conf.Discovery = g, g.Addr(), g
	return nil
}

// run works until ctx ends, and closes all that was opened. After node.ErrStuck the process must end at once.
func (m *member) run(ctx context.Context) error {
	work, stop := context.WithCancel(ctx)
	defer stop()
	var all errgroup.Group
	all.Go(func() error { return m.gossip.Run(work) })
	err := m.Node.Run(ctx)
	stop()
	err = errors.Join(err, all.Wait())
	if errors.Is(err, node.ErrStuck) {
		return err
	}
	return errors.Join(err, m.close())
}

// awaitReady waits until the node at an address says that it is ready.
func awaitReady(ctx context.Context, address string) error {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		if isReady(ctx, address) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the node at %s did not get ready: %w", address, ctx.Err())
		case <-poll.C:
		}
	}
}

func isReady(ctx context.Context, address string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// Package gossip finds the nodes of a cluster on the network, by memberlist.
//
// It only proposes: what it tells are addresses worth asking, never who is a member, who leads or who is gone
// (a starved processor alone makes a node look dead). So it carries nothing but where a node is, and
// nobody may remove a member on its word. Halves of a parted network do not find each other again by
// memberlist itself; this package keeps knocking.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// ErrClosed says that the node has left the gossip for good.
var ErrClosed = errors.New("gossip: closed")

// pace holds the times that tests shorten.
type pace struct {
	retryMin, retryMax time.Duration // from one attempt to the next while alone
	heal               time.Duration // from one attempt to reach who is missing to the next
	resolve            time.Duration // one look-up of a seed's name
	reclaim            time.Duration // how long a node must be dead to come back from another address
	farewell           time.Duration // how long telling others may take: two rounds of gossip, and a little
}

var usualPace = pace{
	retryMin: 250 * time.Millisecond, retryMax: 10 * time.Second, heal: 15 * time.Second,
	resolve: 5 * time.Second, reclaim: time.Second, farewell: 500 * time.Millisecond,
}

// Gossip is one node's part in the gossip. Its methods are safe for concurrent use.
type Gossip struct {
	cfg       Config
	pace      pace
	log       *slog.Logger
	list      *memberlist.Memberlist
	transport *transport
	roster    *roster
	self      self
	own       string // the advertised gossip address
	logs      *logWriter

	mu     sync.Mutex // one at a time: leaving, closing
	closed bool
}

// New binds the sockets and answers those who ask; Run makes it seek others. The error names every fault of
// the config at once.
func New(cfg Config) (*Gossip, error) { return start(cfg, usualPace, nil) }

// start is New with its times, and a last hand on memberlist's own config.
func start(cfg Config, pace pace, tune func(*memberlist.Config)) (*Gossip, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	at, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	g := &Gossip{cfg: cfg, pace: pace, log: cfg.Logger, roster: newRoster(cfg.NodeID, cfg.Logger)}
	g.self.told = cfg.meta()
	g.logs = &logWriter{log: cfg.Logger}
	logger := log.New(g.logs, "", 0)
	if g.transport, err = listen(at.listen, logger); err != nil {
		return nil, err
	}
	conf := g.listConfig(at, logger)
	if tune != nil {
		tune(conf)
	}
	if g.list, err = memberlist.Create(conf); err != nil {
		_ = g.transport.Shutdown()
		return nil, fmt.Errorf("gossip: start: %w", err)
	}
	g.own = g.list.LocalNode().Address()
	return g, nil
}

// listConfig is what memberlist is told.
func (g *Gossip) listConfig(at addresses, logger *log.Logger) *memberlist.Config {
	conf := memberlist.DefaultLANConfig()
	conf.Name = g.cfg.NodeID
	conf.Label = g.cfg.Label
	conf.SecretKey = g.cfg.Key
	conf.Transport = g.transport
	conf.BindAddr = at.listen.Addr().String()
	conf.BindPort = g.transport.GetAutoBindPort()
	if at.advertise.IsValid() {
		conf.AdvertiseAddr = at.advertise.Addr().String()
	}
	conf.AdvertisePort = int(at.advertise.Port())
	if conf.AdvertisePort == 0 {
		conf.AdvertisePort = conf.BindPort
	}
	if len(g.cfg.AllowedNetworks) > 0 {
		conf.CIDRsAllowed = ipNets(g.cfg.AllowedNetworks)
	}
	conf.DeadNodeReclaimTime = g.pace.reclaim
	conf.Delegate = &g.self
	conf.Events = g.roster
	conf.Logger = logger
	return conf
}

// Addr is the bound address, HOST:PORT, with the port that the system chose if Config.Listen left it open.
func (g *Gossip) Addr() string {
	host, _, _ := net.SplitHostPort(g.cfg.Listen)
	return net.JoinHostPort(host, strconv.Itoa(g.transport.GetAutoBindPort()))
}

// Peers returns the RPC addresses (HOST:PORT) of the nodes that are believed alive, sorted, this one excluded.
func (g *Gossip) Peers() []string { return g.roster.peers(g.self.told.RPCAddress) }

// Nodes returns the other nodes that are believed alive, by id.
func (g *Gossip) Nodes() []Node { return g.roster.nodes() }

// RaftAddress returns the HOST:PORT at which a node that is believed alive says that its Raft is.
func (g *Gossip) RaftAddress(id string) (string, bool) { return g.roster.raftAddress(id) }

// Changed is signalled when Nodes or Peers may give another answer than before. Signals that nobody has taken
// are one, so it is for a single reader.
func (g *Gossip) Changed() <-chan struct{} { return g.roster.changed }

// Run seeks the seeds and the nodes that went missing until ctx ends, then takes leave of the others, closes
// and returns nil, some seconds later at most. It may be called once.
func (g *Gossip) Run(ctx context.Context) error {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed {
		return ErrClosed
	}
	stop := context.AfterFunc(ctx, func() {
		g.logs.leaving.Store(true)
		g.transport.hangUp()
	})
	defer stop()
	g.keepJoining(ctx)
	g.leave()
	return g.Close()
}

func (g *Gossip) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	if err := g.list.Leave(g.pace.farewell); err != nil {
		g.log.Debug("gossip: left without a word: the others will notice by themselves", "error", err)
	}
}

// Close frees the sockets without taking leave; it is for a Gossip that is not run. Closing twice is no error.
func (g *Gossip) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	g.logs.leaving.Store(true)
	if err := g.list.Shutdown(); err != nil {
		return fmt.Errorf("gossip: close: %w", err)
	}
	return nil
}

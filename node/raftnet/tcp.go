package raftnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// What TCPConfig's zero fields stand for.
const (
	DefaultTimeout  = 5 * time.Second
	DefaultMaxConns = 512
)

// maxPool is how many idle connections are kept for each node.
const maxPool = 4

// TCPConfig is what NewTCP is made of.
//
// Raft trusts whoever it hears: who can write to it can be leader. Keeping strangers out is for TLS with nodes' certificates,
// which Listener and Dial bring along; without it the port belongs on a private network. The library keeps some 260 KiB for each
// connection that it is given, and bounds neither the size of a request nor how long a connection may be idle, as members' pooled
// ones are for long. So it is given a connection once the other side has said for whom it is, which takes a handshake where there
// is TLS, and MaxConns bounds both kinds.
type TCPConfig struct {
	// Listener takes connections from other nodes. The transport owns it.
	Listener net.Listener
	// Dial connects to other nodes; net.Dialer's if nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Advertise is the HOST:PORT at which other nodes reach Listener; the Listener's own address if empty.
	Advertise string
	// LocalID is this node's. If it is set, each connection begins with the id of the node that it is meant for,
	// and who is somebody else closes it: a node that lost its directory, and its vote with it, must not answer
	// for whom it was at the same address. All members of a cluster set it, or none.
	LocalID raft.ServerID
	// Timeout bounds connecting, and each request with its answer; DefaultTimeout if zero. A follower's fsync
	// falls into it. For snapshots it grows by itself with each 256 KiB.
	Timeout time.Duration
	// MaxConns is how many connections from outside are open at a time, DefaultMaxConns if zero: a quarter for those that
	// have not said yet for whom they are, which they have to within Timeout, the rest for the others. For each one too
	// many, the one of its kind that was silent for the longest is closed.
	MaxConns int
	// Elsewhere gives another HOST:PORT at which to try a node that cannot be reached where it should be; empty for
	// none. It may be nil.
	Elsewhere func(id raft.ServerID) raft.ServerAddress
	// Around goes between the library's transport and the repairs, where a simulation loses, delays and repeats
	// messages; nil for nothing.
	Around func(Inner) Inner
	// Addresses and Overtaken are those of Config.
	Addresses raft.ServerAddressProvider
	Overtaken func()
	// Logger gets what the library and the wrapper have to say; nothing is logged if nil.
	Logger hclog.Logger
}

func (c TCPConfig) withDefaults() TCPConfig {
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.MaxConns == 0 {
		c.MaxConns = DefaultMaxConns
	}
	if c.Advertise == "" && c.Listener != nil {
		c.Advertise = c.Listener.Addr().String()
	}
	if c.Elsewhere == nil {
		c.Elsewhere = func(raft.ServerID) raft.ServerAddress { return "" }
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c
}

func (c TCPConfig) validate() error {
	if c.Listener == nil {
		return errors.New("raft transport: no listener given")
	}
	host, _, err := net.SplitHostPort(c.Advertise)
	if err != nil {
		return fmt.Errorf("raft transport: the address for other nodes must be HOST:PORT: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("raft transport: other nodes cannot reach %q: advertise a host they can", c.Advertise)
	}
	return nil
}

// NewTCP makes the transport of a real node: the library's own over cfg's sockets, without pipelining, and with
// the repairs. Close also closes the listener and every connection, both ways. If it fails, the listener stays
// the caller's.
func NewTCP(cfg TCPConfig) (*Transport, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	var inner Inner = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger:          cfg.Logger,
		Stream:          newStream(cfg),
		MaxPool:         maxPool,
		MaxRPCsInFlight: 1,
		Timeout:         cfg.Timeout,
	})
	if cfg.Around != nil {
		inner = cfg.Around(inner)
	}
	t := Wrap(inner, Config{Overtaken: cfg.Overtaken, Addresses: cfg.Addresses, Logger: cfg.Logger})
	t.addressed = cfg.LocalID != ""
	return t, nil
}

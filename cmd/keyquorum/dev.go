package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// devCommand runs one node in memory.
type devCommand struct {
	Listen string `default:"127.0.0.1:7400" placeholder:"HOST:PORT" help:"Where to listen; loopback addresses only, port 0 for any. Default: 127.0.0.1:7400."`
}

func (*devCommand) Help() string {
	return "Everything is kept in memory and gone at the end. It is open: no TLS, no access control, so it listens on loopback only."
}

// devTiming elects at once: there is nobody to wait for.
var devTiming = node.Timing{Heartbeat: 20 * time.Millisecond, Lease: 10 * time.Millisecond, Drain: 2 * time.Second}

func (c *devCommand) run(ctx context.Context, s *session) error {
	listener, err := listenLoopback(c.Listen)
	if err != nil {
		return err
	}
	n, err := devNode(listener)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	if _, err := n.Init(ctx, rpc.Caller{Actor: "dev"}, &v1.InitRequest{}); err != nil && ctx.Err() == nil {
		stop()
		return errors.Join(fmt.Errorf("found the cluster of one: %w", err), <-done)
	}
	if err := awaitReady(ctx, listener.Addr().String()); err == nil {
		greet(s.out, "http://"+listener.Addr().String())
	}
	return <-done
}

// listenLoopback listens at an address that only this machine can reach.
func listenLoopback(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, usagef("--listen: %q is not HOST:PORT", address)
	}
	ip, err := netip.ParseAddr(host)
	if host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return nil, usagef("--listen: %s can be reached from elsewhere, and dev is open to whoever reaches it: use a loopback address such as 127.0.0.1:7400", address)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w (another address: --listen 127.0.0.1:0)", err)
	}
	return listener, nil
}

// devNode makes a node that keeps everything in memory. Its Raft port takes no part: a cluster of one talks to
// nobody.
func devNode(listener net.Listener) (*node.Node, error) {
	keyring, err := seal.NewKeyring()
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	raftListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	store := raft.NewInmemStore()
	n, err := node.New(node.Config{
		ID: uuid.NewString(), Name: "dev", Version: thisBuild().Version,
		RPCListener: listener, RPCAddress: listener.Addr().String(),
		RaftListener: raftListener, RaftAddress: raftListener.Addr().String(),
		Logs: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore(),
		Keyring: keyring, Timing: devTiming, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, errors.Join(err, listener.Close(), raftListener.Close())
	}
	return n, nil
}

// greet says where the node is and what to try. The first line is the URL alone, for scripts. All is written at once, so
// that a reader that takes that line and goes, as head does, finds nothing missing and the node finds nobody gone.
func greet(out *printer, url string) {
	out.printf(`%s

A Keyquorum node, in memory, open to every program on this machine, for trying things out.
Issue a token:

  curl -s %[1]s/keyquorum.v1.TokenService/Issue -H 'Content-Type: application/json' -d '{"subject": "ada"}'

or: keyquorum issue ada --addr %[1]s
Stop it with Ctrl-C.
`, url)
}

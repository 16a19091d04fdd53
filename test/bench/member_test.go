// Package bench measures what only a whole cluster shows: members over real sockets and real files, each with its own
// log that it syncs. What one package alone can measure is measured there.
//
// Nothing here runs in a plain `go test`. docs/PERFORMANCE.md has the commands, and what came of them.
package bench

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyquorum/keyquorum/internal/boltstore"
	"github.com/keyquorum/keyquorum/internal/datadir"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
)

// seat is what outlives a member's process: its place on the disk and on the network.
type seat struct {
	name, dir string
	keyring   *seal.Keyring
	// rpcAddr and raftAddr have port 0 until the first start.
	rpcAddr, raftAddr string
	// seeds are RPC addresses of others.
	seeds  []string
	timing node.Timing

	// What follows is of the present start.
	registry *prometheus.Registry
	plug     *plug
	halted   chan error
	release  []func() error
}

// member is a node that runs at its seat.
type member struct {
	*node.Node
	seat *seat
	end  func() error
}

// start opens what the seat has and runs a node over it.
func (s *seat) start(b *testing.B) *member {
	b.Helper()
	s.registry, s.plug, s.halted, s.release = prometheus.NewRegistry(), newPlug(), make(chan error, 1), nil
	conf := node.Config{
		Name: s.name, Keyring: s.keyring, Timing: s.timing, Registry: s.registry, Halted: s.halted,
		Discovery: fixed(s.seeds),
	}
	if err := errors.Join(s.openDisk(&conf), s.listen(&conf)); err != nil {
		b.Fatal(errors.Join(err, s.close()))
	}
	n, err := node.New(conf)
	if err != nil {
		b.Fatal(errors.Join(err, s.close()))
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	return &member{Node: n, seat: s, end: func() error {
		cancel()
		return errors.Join(<-done, s.close())
	}}
}

func (s *seat) openDisk(conf *node.Config) error {
	dir, err := datadir.Open(s.dir, datadir.Options{})
	if err != nil {
		return err
	}
	s.release = append(s.release, dir.Close)
	if err := dir.CheckKeyring(s.keyring); err != nil {
		return err
	}
	store, err := boltstore.Open(dir.RaftDB(), boltstore.Options{
		OnHang: func(err error) { s.halted <- err }, Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	s.release = append(s.release, store.Close)
	if err := dir.StoreCreated(); err != nil {
		return err
	}
	snapshots, err := dir.Snapshots(nil)
	if err != nil {
		return err
	}
	conf.ID, conf.Logs, conf.Stable, conf.Snapshots = dir.ID(), store, store, snapshots
	return datadir.Check(store, snapshots)
}

// listen takes the seat's addresses, which stay the same over restarts.
func (s *seat) listen(conf *node.Config) error {
	rpcListener, err := net.Listen("tcp", s.rpcAddr)
	if err != nil {
		return err
	}
	s.release = append(s.release, closed(rpcListener))
	raftListener, err := net.Listen("tcp", s.raftAddr)
	if err != nil {
		return err
	}
	s.release = append(s.release, closed(raftListener))
	s.rpcAddr, s.raftAddr = rpcListener.Addr().String(), raftListener.Addr().String()
	conf.RPCAddress, conf.RaftAddress = s.rpcAddr, s.raftAddr
	conf.RPCListener, conf.RaftListener = s.plug.listener(rpcListener), s.plug.listener(raftListener)
	conf.Dial = s.plug.dial
	return nil
}

// closed closes a listener that the node has closed already, or not.
func closed(l net.Listener) func() error {
	return func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

// close undoes the opening, the last thing first.
func (s *seat) close() error {
	var faults []error
	for _, v := range slices.Backward(s.release) {
		faults = append(faults, v())
	}
	s.release = nil
	return errors.Join(faults...)
}

// fixed is a discovery that was told.
type fixed []string

func (f fixed) Peers() []string        { return f }
func (fixed) Changed() <-chan struct{} { return nil }

// newSeat is a place in a folder of the benchmark's own.
func newSeat(b *testing.B, name string, keyring *seal.Keyring) *seat {
	return &seat{
		name: name, dir: filepath.Join(b.TempDir(), name), keyring: keyring,
		rpcAddr: "127.0.0.1:0", raftAddr: "127.0.0.1:0",
	}
}

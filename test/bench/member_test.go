// Package bench measures what only a whole cluster shows: members over real sockets and real files, each with its own
// log that it syncs. What one package alone can measure is measured there.
//
// Nothing here runs in a plain `go test`. docs/PERFORMANCE.md has the commands, and what came of them.
package bench

import (
	"context"
	"log/slog"
	"path/filepath"
	"runtime/pprof"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	members "github.com/keyquorum/keyquorum/internal/member"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
)

// seat is what outlives a member's process: its place on the disk and on the network.
type seat struct {
	cfg members.Config
	// known are RPC addresses of others: discovery takes no part in what is measured.
	known []string
	// registry is of the present start.
	registry *prometheus.Registry
}

// newSeat is a place in a folder of the benchmark's own.
func newSeat(b *testing.B, name string, keyring *seal.Keyring, timing node.Timing) *seat {
	return &seat{cfg: members.Config{
		Name: name, DataDir: filepath.Join(b.TempDir(), name), Keyring: keyring, Timing: timing,
		RPCListen: "127.0.0.1:0", RaftListen: "127.0.0.1:0", GossipListen: "127.0.0.1:0",
		Logger: slog.New(slog.DiscardHandler),
	}}
}

// member is a node that runs at its seat.
type member struct {
	*members.Member
	seat *seat
	end  func() error
}

// start runs a node over what the seat has. Its addresses stay the same over restarts.
func (s *seat) start(b *testing.B) *member {
	b.Helper()
	s.cfg.Plug = members.NewPlug()
	s.cfg.Tune = func(c *node.Config) { c.Discovery, s.registry = fixed(s.known), c.Registry }
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	done := make(chan error, 1)
	var m *members.Member
	var err error
	// A profile tells what each member used: go tool pprof -tags.
	pprof.Do(ctx, pprof.Labels("member", s.cfg.Name), func(ctx context.Context) {
		if m, err = members.Open(s.cfg); err == nil {
			go func() { done <- m.Run(ctx) }()
		}
	})
	if err != nil {
		cancel()
		b.Fatal(err)
	}
	s.cfg.RPCListen, s.cfg.RaftListen = m.RPCAddress, m.RaftAddress
	return &member{Member: m, seat: s, end: func() error {
		cancel()
		return <-done
	}}
}

// fixed is a discovery that was told.
type fixed []string

func (f fixed) Peers() []string                 { return f }
func (fixed) RaftAddress(string) (string, bool) { return "", false }
func (fixed) Changed() <-chan struct{}          { return nil }

// Package tokens is what Keyquorum is for: it issues tokens, each signed with its user's own key, and verifies
// them from the node's memory. Issuing goes through the log and belongs to the leader; verifying is any node's.
package tokens

import (
	"context"
	"log/slog"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/secret"
)

// Keyring makes and opens sealed keys. seal.Keyring is one.
type Keyring interface {
	NewKey(subject string) (random uint64, sealed []byte, err error)
	Open(subject string, random uint64, sealed []byte) (*secret.Key, error)
}

// Freshness tells how old a state can be. freshness.Freshness is one.
type Freshness interface {
	// Age reads the clocks anew each time; false if nothing has been proved of this very state.
	Age(state *fsm.State) (age time.Duration, proved bool)
	// Round waits until all that was acknowledged before the call is in the state.
	Round(ctx context.Context, urgent bool) error
}

// Config is what a Service works with. Fields without a stated default are required.
type Config struct {
	// Node is the node's name, for answers.
	Node string
	// State gives the node's state.
	State     func() *fsm.State
	Freshness Freshness
	// Settle waits until what applying a Revoke or a Delete gave holds on all nodes, and tells how many have applied it, and
	// how many had to be waited out.
	Settle  func(context.Context, fsm.Result) (applied, expired int, err error)
	Keyring Keyring
	// Propose puts a command through the log.
	Propose func(context.Context, fsm.Command) (fsm.Result, error)
	// Now gives the cluster's time, and whether it is known. Last gives the time that the node last knew,
	// carried on, and whether it ever knew it.
	Now, Last func() (time.Time, bool)
	// Doubt gives by how much more than they always may, Now and Last can be off at present; nil for never.
	Doubt func() time.Duration
	// MaxWaiters bounds the requests that wait for a round because a token is ahead of the state, and apart from them those
	// whose level asks for one: tokens may be forged, and must not stand in the way of these. 1024 if zero.
	MaxWaiters int
	// Logger is told of some tokens that were refused; nil for nobody.
	Logger *slog.Logger
}

// Service issues and verifies. Its methods are safe for concurrent use.
type Service struct {
	cfg Config
	// ahead and urgent hold a place for each request that waits for a round.
	ahead, urgent chan struct{}
	// ending holds a place for each revocation under way.
	ending   chan struct{}
	refusals refusals
}

// maxEnding bounds the revocations under way at the leader: they can wait long, and leave room for other writes.
const maxEnding = 512

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.MaxWaiters == 0 {
		cfg.MaxWaiters = 1024
	}
	if cfg.Doubt == nil {
		cfg.Doubt = func() time.Duration { return 0 }
	}
	return &Service{
		cfg: cfg, ahead: make(chan struct{}, cfg.MaxWaiters), urgent: make(chan struct{}, cfg.MaxWaiters),
		ending: make(chan struct{}, maxEnding), refusals: refusals{log: cfg.Logger},
	}
}

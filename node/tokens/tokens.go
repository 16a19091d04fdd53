// Package tokens is what Keyquorum is for: it issues tokens, each signed with its user's own key, and verifies
// them from the node's memory. Issuing goes through the log and belongs to the leader; verifying is any node's.
package tokens

import (
	"context"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/secret"
)

// Keyring makes and opens sealed keys. seal.Keyring is one.
type Keyring interface {
	NewKey(subject string) (random uint64, sealed []byte, err error)
	Open(subject string, random uint64, sealed []byte) (*secret.Key, error)
}

// Config is what a Service works with. Fields without a stated default are required.
type Config struct {
	// Node is the node's name, for answers.
	Node string
	View func() *fsm.View
	// Wait waits until the state is as asked.
	Wait    func(ctx context.Context, ok func(*fsm.View) bool) (*fsm.View, error)
	Keyring Keyring
	// Propose puts a command through the log.
	Propose func(context.Context, fsm.Command) (fsm.Result, error)
	// Now gives the cluster's time, and whether it is known. Last gives the time that the node last knew,
	// carried on, and whether it ever knew it.
	Now, Last func() (time.Time, bool)
	// Leading tells whether this node leads: its state then lacks nothing that was acknowledged.
	Leading func() bool
	// MaxWaiters bounds the verifications that wait for the node to catch up; 1024 if zero.
	MaxWaiters int
}

// Service issues and verifies. Its methods are safe for concurrent use.
type Service struct {
	cfg Config
	// waiting holds a place for each verification that waits for the node to catch up.
	waiting chan struct{}
}

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.MaxWaiters == 0 {
		cfg.MaxWaiters = 1024
	}
	return &Service{cfg: cfg, waiting: make(chan struct{}, cfg.MaxWaiters)}
}

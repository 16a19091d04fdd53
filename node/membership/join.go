package membership

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
)

// JoinerConfig is what a Joiner works with. Fields without a stated default are required.
type JoinerConfig struct {
	// Self is the record that this node should have.
	Self fsm.Member
	View func() *fsm.View
	// Led tells whether the node hears from a leader. One that does not may have been removed, and asks.
	Led func() bool
	// Candidates gives the RPC addresses of nodes that may be in a cluster, the likeliest leader first.
	Candidates func() []string
	// Found signals that Candidates has changed; nil for never.
	Found <-chan struct{}
	// Ask asks the node at an address to admit this one.
	Ask func(ctx context.Context, address string) error
	// Interval is the time between two looks; 1 s if zero.
	Interval time.Duration
	// Timeout bounds one question; 10 s if zero.
	Timeout time.Duration
	Logger  *slog.Logger
}

func (c JoinerConfig) withDefaults() JoinerConfig {
	if c.Interval == 0 {
		c.Interval = time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	return c
}

// Joiner brings its node into a cluster, and then keeps the node's record there true.
type Joiner struct {
	cfg JoinerConfig
	// told is the last complaint.
	told string
}

// ErrMendable says that a node stays out until somebody mends what is said.
var ErrMendable = errors.New("somebody has to see to this")

// NewJoiner makes a Joiner.
func NewJoiner(cfg JoinerConfig) *Joiner { return &Joiner{cfg: cfg.withDefaults()} }

// Run asks to be admitted whenever the node is in no cluster, hears from no leader, or its record is not what it
// should be. It ends with ctx, or with the error that asking again cannot mend: fault.ErrRemoved, fault.ErrTwin
// or fault.ErrKeyring.
func (j *Joiner) Run(ctx context.Context) error {
	ticker := time.NewTicker(j.cfg.Interval)
	defer ticker.Stop()
	for {
		if err := j.look(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-j.cfg.Found:
		}
	}
}

func (j *Joiner) look(ctx context.Context) error {
	if record, ok := j.cfg.View().Member(j.cfg.Self.ID); ok && record == j.cfg.Self && j.cfg.Led() {
		return nil
	}
	for _, address := range j.cfg.Candidates() {
		switch err := j.ask(ctx, address); {
		case err == nil:
			j.cfg.Logger.Info("admitted to the cluster", "by", address)
			return nil
		case errors.Is(err, fault.ErrRemoved), errors.Is(err, fault.ErrTwin), errors.Is(err, fault.ErrKeyring):
			return err
		default:
			j.complain(address, err)
		}
	}
	return nil
}

// complain tells what keeps the node out. What somebody has to mend is told aloud, once.
func (j *Joiner) complain(address string, err error) {
	if !errors.Is(err, ErrMendable) || err.Error() == j.told {
		j.cfg.Logger.Debug("not admitted", "by", address, "error", err)
		return
	}
	j.told = err.Error()
	j.cfg.Logger.Warn("this node is not admitted to the cluster", "by", address, "error", err)
}

func (j *Joiner) ask(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, j.cfg.Timeout)
	defer cancel()
	return j.cfg.Ask(ctx, address)
}

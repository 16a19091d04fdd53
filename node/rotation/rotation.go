// Package rotation is the leader's scheduler: it sees what has fallen due, makes the keys that are to follow,
// and puts both through the log in batches. Whether a key really is due is decided when the entry is applied,
// so a deposed leader's leftovers, or two schedulers at once, do no harm.
package rotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/plant"
)

// Config is what a Rotator works with. Fields without a stated default are required.
type Config struct {
	// View gives the node's state.
	View func() *fsm.View
	// Now gives the cluster's time, and whether it is known. Nothing falls due while it is not.
	Now func() (time.Time, bool)
	// Propose puts a command through the log.
	Propose func(context.Context, fsm.Command) (fsm.Result, error)
	// NewKey makes and seals a key for a subject.
	NewKey func(subject string) (random uint64, sealed []byte, err error)
	// Origin is recorded with each rotation.
	Origin fsm.Origin
	// Interval is the longest time between two looks; 100 ms if zero. It bounds how late a rotation starts.
	Interval time.Duration
	// Batch bounds what one entry carries; 256 if zero.
	Batch int
	// Timeout bounds one entry's way through the log; 10 s if zero.
	Timeout time.Duration
	// Observe is told what each entry did; nil for nobody.
	Observe func(fsm.Expired)
	Logger  *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Interval == 0 {
		c.Interval = 100 * time.Millisecond
	}
	if c.Batch == 0 {
		c.Batch = 256
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Observe == nil {
		c.Observe = func(fsm.Expired) {}
	}
	return c
}

// Rotator rotates what falls due while it runs.
type Rotator struct{ cfg Config }

// New makes a Rotator.
func New(cfg Config) *Rotator { return &Rotator{cfg: cfg.withDefaults()} }

// Run looks for what is due until ctx ends, which is when the node no longer leads. What failed is tried again
// at the next look.
func (r *Rotator) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		timer.Reset(r.round(ctx))
	}
}

// round expires one batch and gives the time until the next look.
func (r *Rotator) round(ctx context.Context) time.Duration {
	now, known := r.cfg.Now()
	if !known {
		return r.cfg.Interval
	}
	if plant.On(plant.LateRotation) {
		now = now.Add(-2 * time.Second)
	}
	due := r.cfg.View().Due(now, r.cfg.Batch)
	if len(due) == 0 {
		return r.untilNext(now)
	}
	plant.Dawdle(plant.BlindRotation)
	done, err := r.expire(ctx, due)
	if err != nil {
		r.report(ctx, err)
		return r.cfg.Interval
	}
	r.cfg.Observe(done)
	if done.Rotated+done.Deleted+done.Forgotten == 0 {
		return r.cfg.Interval // never spin on what Apply finds not due
	}
	return 0
}

func (r *Rotator) untilNext(now time.Time) time.Duration {
	next, ok := r.cfg.View().NextDue()
	if !ok {
		return r.cfg.Interval
	}
	return max(time.Millisecond, min(next.Sub(now), r.cfg.Interval))
}

func (r *Rotator) expire(ctx context.Context, due []fsm.Due) (fsm.Expired, error) {
	items := make([]fsm.ExpireItem, len(due))
	for i, d := range due {
		items[i] = fsm.ExpireItem{Subject: d.Subject, Key: d.Key}
		if !d.Active {
			continue
		}
		random, sealed, err := r.cfg.NewKey(d.Subject)
		if err != nil {
			return fsm.Expired{}, fmt.Errorf("make a key: %w", err)
		}
		items[i].Candidate = &fsm.Candidate{Random: random, Sealed: sealed}
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	res, err := r.cfg.Propose(ctx, fsm.Command{Origin: r.cfg.Origin, Op: fsm.Expire{Items: items}})
	return res.Expired, err
}

// report is quiet about what a change of leader explains, or of the master key (the next look makes other keys), and about
// what is told elsewhere.
func (r *Rotator) report(ctx context.Context, err error) {
	if ctx.Err() != nil || errors.Is(err, fault.ErrNotLeader) || errors.Is(err, fault.ErrAudit) ||
		errors.Is(err, &fsm.Refusal{Code: fsm.CodeMasterKeyRetired}) {
		return
	}
	r.cfg.Logger.Warn("rotation has to wait; it is tried again", "error", err)
}

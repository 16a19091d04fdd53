package freshness

import (
	"context"
	"errors"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
)

// Run runs the rounds, one at a time, until ctx ends. It returns nil, and may be called once.
func (f *Freshness) Run(ctx context.Context) error {
	defer f.end()
	if _, err := f.cfg.Wait(ctx, func(v *fsm.View) bool { return v.Founded() }); err != nil {
		return nil //nolint:nilerr // nothing is asked of a node that belongs to no cluster
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var began time.Time
	for failed := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-f.wanted:
			if !f.keepGap(ctx, began, failed) {
				return nil
			}
		}
		began = time.Now()
		failed = !f.once(ctx)
		timer.Reset(f.pause(failed))
	}
}

// pause is the time to the next round that nobody asks for.
func (f *Freshness) pause(failed bool) time.Duration {
	if failed {
		return retryAfter
	}
	return f.bound() / perBound
}

// keepGap waits until the Gap after began is over, and tells whether ctx goes on. A round that is urgent, or becomes so
// meanwhile, waits only where the one before failed.
func (f *Freshness) keepGap(ctx context.Context, began time.Time, failed bool) bool {
	timer := time.NewTimer(Gap - time.Since(began))
	defer timer.Stop()
	for failed || !f.urgent() {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-f.wanted: // by one more
		}
	}
	return true
}

// once runs one round, and tells those who wait for it. One that nobody waits for makes way as soon as somebody does: the
// leader is in no hurry with it.
func (f *Freshness) once(ctx context.Context) bool {
	bounded, cancel := context.WithTimeout(ctx, f.bound()/patiences)
	defer cancel()
	begun := f.cfg.Mono()
	r := f.take()
	proved := make(chan error, 1)
	go func() { proved <- f.prove(bounded, r.waited) }()
	err := f.await(r, proved, cancel)
	f.leave(r)
	r.finish(err)
	if errors.Is(err, errMadeWay) {
		return true
	}
	f.cfg.Observe(f.cfg.Mono()-begun, err)
	if err != nil {
		f.cfg.Logger.Debug("freshness: a round failed", "error", err)
	}
	return err == nil
}

// errMadeWay ends a round that nobody waits for.
var errMadeWay = errors.New("another round is waited for")

func (f *Freshness) await(r *round, proved <-chan error, cancel context.CancelFunc) error {
	if r.waited {
		return <-proved
	}
	select {
	case err := <-proved:
		return err
	case <-f.wanted:
		signal(f.wanted) // for who starts the next round
		cancel()
		if err := <-proved; err == nil { // it was just done
			return nil
		}
		return errMadeWay
	}
}

// leave sees that nobody joins a round that has ended.
func (f *Freshness) leave(r *round) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next == r {
		f.next = nil
	}
}

// end tells those who wait, and those who come later, that there will be no round.
func (f *Freshness) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	if f.next != nil {
		f.next.finish(fault.ErrShuttingDown)
		f.next = nil
	}
}

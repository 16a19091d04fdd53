package fsm

import (
	"context"
	"sync"
)

// Wait gives the first View that ok accepts, of the present one and those to come, also across a Restore. Views
// that follow one another quickly can be passed over. It ends early with the error of ctx, or with Err when the
// FSM has halted. ok is called on the caller's goroutine.
func (f *FSM) Wait(ctx context.Context, ok func(*View) bool) (*View, error) {
	for {
		changed := f.change.wait()
		if err := f.Err(); err != nil {
			return nil, err
		}
		if v := f.View(); ok(v) {
			return v, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// signal tells waiters of changes. It costs next to nothing while nobody waits.
type signal struct {
	mu   sync.Mutex
	next chan struct{}
}

// wait gives a channel that is closed at the next broadcast. Look at what is waited for after the call.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = make(chan struct{})
	}
	return s.next
}

// broadcast wakes all who wait. What they wait for must be visible before.
func (s *signal) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		close(s.next)
		s.next = nil
	}
}

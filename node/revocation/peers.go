package revocation

import (
	"context"
	"sync"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
)

// retryAfter is the time from a question that failed to the next.
const retryAfter = 50 * time.Millisecond

// asked is what Config.Applied does.
type asked = func(ctx context.Context, member fsm.Member, position uint64) (uint64, error)

// progress is how far one member is known to have come. It is asked one question at a time, by one of those who want to
// know, whatever their number.
//
// What a member has applied once stays good although it may start anew, or go back: it is not fresh then until it has
// come to the present, which is further.
type progress struct {
	mu      sync.Mutex
	applied uint64
	asking  bool
	changed chan struct{} // closed when a question has ended
}

func newProgress() *progress { return &progress{changed: make(chan struct{})} }

// await waits until the member has applied the position; it gives up with ctx.
func (p *progress) await(ctx context.Context, ask asked, member fsm.Member, position uint64) bool {
	for ctx.Err() == nil {
		reached, turn, changed := p.look(position)
		switch {
		case reached:
			return true
		case turn:
			p.question(ctx, ask, member, position)
		default:
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
	return false
}

// reached tells whether the member is known to have come to the position.
func (p *progress) reached(position uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.applied >= position
}

// look tells whether the position is reached, or else whether it is the caller's turn to ask.
func (p *progress) look(position uint64) (reached, turn bool, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.applied >= position {
		return true, false, nil
	}
	turn = !p.asking
	p.asking = true
	return false, turn, p.changed
}

// question asks once, and gives the turn away: at once where there was an answer, else after a while.
func (p *progress) question(ctx context.Context, ask asked, member fsm.Member, position uint64) {
	reached, err := ask(ctx, member, position)
	if err != nil {
		timer := time.NewTimer(retryAfter)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asking = false
	p.applied = max(p.applied, reached)
	close(p.changed)
	p.changed = make(chan struct{})
}

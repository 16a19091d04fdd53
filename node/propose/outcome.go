package propose

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/internal/fault"
)

// classify sorts Raft's errors into those after which nothing was or will be done, and the others, after which
// an entry can still be committed by this leader or the next (hashicorp/raft 1.8.0, future.go and api.go).
func classify(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader):
		return fmt.Errorf("%w: nothing was proposed", fault.ErrNotLeader)
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: it is handing leadership over", fault.ErrNotLeader)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: raft took no entry in time", fault.ErrOverloaded)
	default:
		return fmt.Errorf("%w (%w)", fault.ErrOutcomeUnknown, err)
	}
}

// Await waits for a Raft future within ctx, and sorts its error as Propose does. Futures can block for longer
// than any caller's patience; the wait that is left behind ends with the future, which Run waits for at its end.
func (p *Proposer) Await(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return fault.ErrShuttingDown
	}
	p.waiters.Go(func() { done <- future.Error() })
	p.mu.Unlock()
	select {
	case err := <-done:
		if err == nil {
			return nil
		}
		return classify(err)
	case <-ctx.Done():
		return fmt.Errorf("%w (%w)", fault.ErrOutcomeUnknown, ctx.Err())
	}
}

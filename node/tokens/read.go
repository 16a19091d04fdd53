package tokens

import (
	"context"
	"fmt"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/plant"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// reading is the state that tokens are judged on, and how old it can be.
type reading struct {
	view   *fsm.View
	age    time.Duration
	proved bool
	// final says that what the view lacks was never there.
	final bool
	// doubt is by how much more than it always may the time can be off; at STALE_OK it does not count.
	doubt time.Duration
}

func (s *Service) view() *fsm.View { return s.cfg.State().View() }

// read gives the state to judge on at a level. Where the level asks for it, all that was acknowledged before the call is in
// it.
func (s *Service) read(ctx context.Context, level v1.VerifyRequest_Consistency) (reading, error) {
	if level != v1.VerifyRequest_LINEARIZABLE {
		return s.reread(level)
	}
	if err := s.round(ctx, true); err != nil {
		return reading{}, err
	}
	return s.again(level)
}

// again gives the state after a round, if it is the one that the round was for: what that lacks was never there. One that
// has been put back since may lack what the round brought.
func (s *Service) again(level v1.VerifyRequest_Consistency) (reading, error) {
	from, err := s.reread(level)
	if err == nil && !from.proved {
		err = fmt.Errorf("%w: its state was replaced by an older one", fault.ErrBehind)
	}
	from.final = true
	return from, err
}

// reread gives the state, if it is young enough. The order matters: the age is that of one state object, told by clocks
// that are read now, and the view comes from that same object and is read after its age. One read before could be older
// than that, if this node stood still in between.
func (s *Service) reread(level v1.VerifyRequest_Consistency) (reading, error) {
	state := s.cfg.State()
	before := state.View()
	plant.Dawdle(plant.EarlyState)
	if !before.Founded() {
		return reading{}, fault.ErrNotFounded
	}
	age, proved := s.cfg.Freshness.Age(state)
	if level != v1.VerifyRequest_STALE_OK {
		if err := young(age, proved, before.Settings().MaxStaleness); err != nil {
			return reading{}, err
		}
	}
	if plant.On(plant.EarlyState) {
		return reading{view: before, age: age, proved: proved}, nil
	}
	from := reading{view: state.View(), age: age, proved: proved}
	if level != v1.VerifyRequest_STALE_OK {
		from.doubt = s.cfg.Doubt()
	}
	return from, nil
}

// young refuses a state that is not known to be young enough.
func young(age time.Duration, proved bool, bound time.Duration) error {
	switch {
	case !proved:
		return fmt.Errorf("%w: this node has had no answer from a leader since it started, or was restored; ask another node", fault.ErrStale)
	case age > bound:
		return fmt.Errorf("%w: this node had its last answer from a leader %v ago; ask another node", fault.ErrStale, age.Round(time.Millisecond))
	}
	return nil
}

// round waits for a freshness round. The number of those who wait is bounded.
func (s *Service) round(ctx context.Context, urgent bool) error {
	waiting := s.ahead
	if urgent {
		waiting = s.urgent
	}
	select {
	case waiting <- struct{}{}:
		defer func() { <-waiting }()
	default:
		return fmt.Errorf("%w: too many requests wait for it to catch up", fault.ErrBehind)
	}
	return s.cfg.Freshness.Round(ctx, urgent)
}

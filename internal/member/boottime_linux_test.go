package member

import (
	"context"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/node/freshness"
)

// BenchmarkClocks is what a verification pays for the age of the state: the two clocks of a node in production, beside one
// by itself and Go's own monotonic clock.
func BenchmarkClocks(b *testing.B) {
	boot := monotonic()
	if boot == nil {
		b.Skip("this machine has no clock that counts the time asleep")
	}
	state := fsm.New(fsm.Config{}).State()
	f := proved(b, state, boot)
	start := time.Now()
	b.Run("age", func(b *testing.B) {
		for b.Loop() {
			if _, ok := f.Age(state); !ok {
				b.Fatal("nothing is proved")
			}
		}
	})
	b.Run("boottime", func(b *testing.B) {
		for b.Loop() {
			boot()
		}
	})
	b.Run("wall", func(b *testing.B) {
		for b.Loop() {
			time.Now()
		}
	})
	b.Run("go", func(b *testing.B) {
		for b.Loop() {
			_ = time.Since(start)
		}
	})
}

// proved gives a Freshness that has proved something of the state.
func proved(b *testing.B, state *fsm.State, mono func() time.Duration) *freshness.Freshness {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	rounds := make(chan struct{})
	f := freshness.New(freshness.Config{
		State: func() *fsm.State { return state },
		Wait:  func(context.Context, func(*fsm.View) bool) (*fsm.View, error) { return nil, nil }, //nolint:nilnil // nobody looks
		Tick:  func(context.Context, bool) (uint64, error) { return 0, nil },
		Mono:  mono, Wall: time.Now,
		Observe: func(time.Duration, error) { stop() },
	})
	go func() {
		defer close(rounds)
		_ = f.Run(ctx)
	}()
	<-rounds
	return f
}

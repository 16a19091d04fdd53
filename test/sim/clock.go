package sim

import (
	"sync"
	"time"
)

// clocks are a machine's: a wall clock that can jump, and a monotonic one that can run fast or slow. Timers run by the
// true time of the bubble.
type clocks struct {
	mu     sync.Mutex
	offset time.Duration // of the wall clock
	rate   float64       // of the monotonic one
	base   time.Duration // what that one showed at since
	since  time.Time
	// halted tells that the monotonic one stands still, which none may: for planted faults.
	halted bool
}

// Wall reads the wall clock.
func (c *clocks) Wall() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset).Round(0)
}

// Mono reads the monotonic clock.
func (c *clocks) Mono() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mono()
}

func (c *clocks) mono() time.Duration {
	if c.halted {
		return c.base
	}
	return c.base + time.Duration(float64(time.Since(c.since))*c.rate)
}

// jump sets how far the wall clock is off, and gives what it was before.
func (c *clocks) jump(to time.Duration) (was time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, c.offset = c.offset, to
	return was
}

// run sets how fast the monotonic clock runs, and gives how fast it did.
func (c *clocks) run(rate float64) (was float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.since = c.mono(), time.Now()
	was, c.rate = c.rate, rate
	return was
}

// halt has the monotonic clock stand still, or go on.
func (c *clocks) halt(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.since = c.mono(), time.Now()
	c.halted = yes
}

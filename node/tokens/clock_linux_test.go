package tokens_test

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime is the clock that a node has in production.
func bootTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	return time.Duration(t.Nano())
}

package member

import (
	"time"

	"golang.org/x/sys/unix"
)

// monotonic is a clock that only runs forward and also counts the time that the machine was asleep: Go's own stands
// still then, and a node that wakes would take expired tokens for valid.
func monotonic() func() time.Duration {
	if _, err := bootTime(); err != nil {
		return nil // Go's own, then
	}
	return func() time.Duration {
		d, _ := bootTime() // what worked once does
		return d
	}
}

func bootTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}

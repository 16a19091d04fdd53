//go:build !planted

package plant

import "time"

// On tells whether the fault is planted.
func On(Fault) bool { return false }

// Dawdle takes its time where the fault is planted: it makes the gap wide that the fault leaves.
func Dawdle(Fault) {}

// Clock is a clock for faults to read.
func Clock() time.Time { return time.Time{} }

//go:build !planted

package plant

import "time"

// On tells whether the fault is planted.
func On(Fault) bool { return false }

// Dawdle takes its time where the fault is planted: it makes the gap wide that the fault leaves.
func Dawdle(Fault) {}

// Clock is a clock for faults to read.
func Clock() time.Time { return time.Time{} }

// Keep keeps something of a node over the end of its process.
func Keep(string, any) {}

// Kept gives what was kept of a node; nil for nothing.
func Kept(string) any { return nil }

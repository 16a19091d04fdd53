//go:build !linux

package tokens_test

import "time"

var started = time.Now()

// bootTime is the clock that a node has in production where there is no better one.
func bootTime() time.Duration { return time.Since(started) }

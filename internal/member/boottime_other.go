//go:build !linux

package member

import "time"

// monotonic is Go's own clock: what counts a machine's sleep differs from system to system.
func monotonic() func() time.Duration { return nil }

//go:build unix

package bench

import (
	"syscall"
	"time"
)

// cpu is the processor time that this process has used: members, callers and collections alike. Other programs on the
// machine hardly change it.
func cpu() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps what this process has in memory from core dumps, and from other processes of the same user, which could
// read it by ptrace. Root can do so still.
func harden() error {
	var faults []error
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		faults = append(faults, fmt.Errorf("set the limit on core dumps to 0: %w", err))
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		faults = append(faults, fmt.Errorf("make the process not dumpable: %w", err))
	}
	return errors.Join(faults...)
}

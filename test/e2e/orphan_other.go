//go:build unix && !linux

package e2e

import "syscall"

// notOrphaned can do nothing here: a test that is killed leaves its processes behind.
func notOrphaned() *syscall.SysProcAttr { return nil }

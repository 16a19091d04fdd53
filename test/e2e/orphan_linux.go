package e2e

import "syscall"

// notOrphaned has a process end when its test does, however that ends.
func notOrphaned() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

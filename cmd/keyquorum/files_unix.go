//go:build unix

package main

import "syscall"

// fileLimit is the number of files that this process can have open. Go raises it to the hard limit at the start.
func fileLimit() (files uint64, known bool) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, false
	}
	return uint64(limit.Cur), true //nolint:unconvert // int64 on some systems
}

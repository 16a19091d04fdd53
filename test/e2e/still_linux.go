package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// standsStill tells whether all threads of a process have been stopped: those that ran when the signal came go on for a
// moment.
func standsStill(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil || !bytes.Contains(stat, []byte(") T ")) {
			return false
		}
	}
	return true
}

//go:build unix

package e2e

import (
	"testing"
	"time"
)

// Patience is how long what has to come about is waited for.
const Patience = time.Minute

// Await looks again and again until ok.
func Await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(Patience); !ok(); {
		select {
		case <-deadline:
			t.Fatalf("waited %s in vain for %s", Patience, what)
		case <-tick.C:
		}
	}
}

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
	if !Within(Patience, ok) {
		t.Fatalf("waited %s in vain for %s", Patience, what)
	}
}

// Within looks again and again until ok, and tells whether that came in time.
func Within(limit time.Duration, ok func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(limit); !ok(); {
		select {
		case <-deadline:
			return false
		case <-tick.C:
		}
	}
	return true
}

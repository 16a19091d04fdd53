//go:build planted

package plant

import (
	"sync"
	"sync/atomic"
	"time"
)

var planted atomic.Pointer[Fault]

// Plant plants the fault in place of the one before; the empty one is for none.
func Plant(f Fault) { planted.Store(&f) }

// On tells whether the fault is planted.
func On(f Fault) bool {
	p := planted.Load()
	return p != nil && *p == f
}

// dawdling is how long: what other nodes do meanwhile comes in between.
const dawdling = 50 * time.Millisecond

// Dawdle takes its time where the fault is planted: it makes the gap wide that the fault leaves.
func Dawdle(f Fault) {
	if On(f) {
		time.Sleep(dawdling) //nolint:forbidigo // it is a fault, in virtual time
	}
}

// Clock is a clock for faults to read.
func Clock() time.Time { return time.Now() }

var kept sync.Map

// Keep keeps something of a node over the end of its process.
func Keep(node string, something any) { kept.Store(node, something) }

// Kept gives what was kept of a node; nil for nothing.
func Kept(node string) any {
	something, _ := kept.Load(node)
	return something
}

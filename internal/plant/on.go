//go:build planted

package plant

import "sync/atomic"

var planted atomic.Pointer[Fault]

// Plant plants the fault in place of the one before; the empty one is for none.
func Plant(f Fault) { planted.Store(&f) }

// On tells whether the fault is planted.
func On(f Fault) bool {
	p := planted.Load()
	return p != nil && *p == f
}

// Package filelock holds a file for one process. It is there so that the data directory and the store inside it
// refuse a second process in the same way, and before either has looked at what the first may be writing.
//
// The lock belongs to the open file (flock(2)): closing it, or the end of the process in whatever way, gives it
// back. A file that is still mapped into memory stays open, whatever is closed.
package filelock

import (
	"errors"
	"os"
)

// ErrHeld says that another open file, of this process or another, holds the lock.
var ErrHeld = errors.New("the file is locked")

// Try locks f for its holder alone, without waiting. It gives ErrHeld where somebody else has it.
func Try(f *os.File) error { return try(f) }

// Release gives the lock of f back while something else keeps the file open.
func Release(f *os.File) error { return release(f) }

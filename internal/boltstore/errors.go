package boltstore

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
)

var (
	// ErrInUse says that another process, or another Store of this one, has the file open.
	ErrInUse = errors.New("in use by another process")
	// ErrDamaged says that the file does not hold what was written to it.
	ErrDamaged = errors.New("damaged")
	// ErrFormat says that another version of this program wrote the file. Nothing was changed in it.
	ErrFormat = errors.New("of another format")
	// ErrMissing says that there is no file where there has to be one.
	ErrMissing = errors.New("missing")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("boltstore: closed")
)

// damaged says that what in the file at path is damaged, and what to do.
func damaged(path, what string, cause error) error {
	return fmt.Errorf("boltstore: %s: %s is %w: %w: this member's store cannot be trusted: %s",
		path, what, ErrDamaged, cause, remedy(path))
}

func remedy(path string) string {
	return fmt.Sprintf("stop the node, empty its data directory (%s) and let it join anew, as a new member", filepath.Dir(path))
}

// contain runs f and turns its panics into errors, faults on mapped memory among them: bbolt panics on pages that
// make no sense, and the kernel faults on those that it cannot read.
func contain(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{value: r}
		}
	}()
	return f()
}

// panicError is a panic that was contained.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

//go:build !darwin && !linux

package filelock

import (
	"errors"
	"os"
)

func try(f *os.File) error {
	return &os.PathError{Op: "lock", Path: f.Name(), Err: errors.ErrUnsupported}
}

func release(*os.File) error { return errors.ErrUnsupported }

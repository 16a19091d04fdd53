// Package plainfile opens, reads and makes files that have to be regular ones, and makes durable what became of names. Where a named pipe stands in a file's place, opening it
// must not wait for whoever holds the other end; and what is told of a file must be of the one that was opened.
package plainfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// ErrNotRegular says that there is something, and no regular file.
var ErrNotRegular = errors.New("not a regular file")

// Open opens a regular file for reading. A link to one will do.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlock, 0)
	if err != nil {
		return nil, explain(path, os.Stat, err)
	}
	return regular(f)
}

// OpenFile opens a regular file as os.OpenFile does. A link at path is refused.
func OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag|nonBlock|noFollow, perm)
	if err != nil {
		return nil, explain(path, os.Lstat, err)
	}
	return regular(f)
}

// explain finds out whether opening failed because of what is there: a link or a socket has errors of its own.
func explain(path string, stat func(string) (fs.FileInfo, error), err error) error {
	if info, statErr := stat(path); statErr == nil && !info.Mode().IsRegular() {
		return Check(path, info)
	}
	return err
}

func regular(f *os.File) (*os.File, error) {
	info, err := f.Stat()
	if err == nil {
		err = Check(f.Name(), info)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Check wants what info tells of path to be a regular file.
func Check(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return fmt.Errorf("%s is %w but %s", path, ErrNotRegular, kind(info.Mode()))
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// Sync makes durable what was written to a file, or what was made, renamed or removed in a directory.
func Sync(path string) error {
	f, err := os.Open(path)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("make %s durable: %w", path, err)
	}
	return nil
}

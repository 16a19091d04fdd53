package plainfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteNew makes a file at path with the content b and just this mode, whatever the umask. It is there wholly or not at
// all, and is on disk when WriteNew returns. What is there already, a link that leads nowhere too, is left alone, and the
// error wraps fs.ErrExist.
func WriteNew(path string, b []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".keyquorum-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	if err := errors.Join(fill(f, b, mode), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	// A link, unlike a rename, never replaces.
	switch err := os.Link(f.Name(), path); {
	case errors.Is(err, fs.ErrExist):
		return Exists(path)
	case err != nil:
		return fmt.Errorf("write %s (its file system must know hard links): %w", path, err)
	}
	return Sync(dir)
}

// Replace puts b in the place of what the file at path has, and keeps its mode and owner; behind a link, that is the
// link's target. After a crash the file has all of b, or what it had before. What it had stays on the disk until that is
// written over.
func Replace(path string, b []byte) (err error) {
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err == nil {
		err = Check(path, info)
	}
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".keyquorum-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	// The owner first: the content is never another's, and a change of the owner can clear bits of the mode.
	if err := errors.Join(giveTo(f, info), fill(f, b, info.Mode().Perm()), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return Sync(dir)
}

// Exists is the error about what is there already and stays as it is. It wraps fs.ErrExist.
func Exists(path string) error {
	return fmt.Errorf("%s is there already and was left as it is: %w", path, fs.ErrExist)
}

// MakeDir makes a folder for its owner alone, durably, unless there is one; its parent must exist.
func MakeDir(path string) error {
	switch err := os.Mkdir(path, 0o700); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return Sync(filepath.Dir(path))
}

func fill(f *os.File, b []byte, mode fs.FileMode) error {
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Sync()
}

// ErrTooLong says that a file is longer than anything acceptable.
var ErrTooLong = errors.New("too long")

// Read gives the content of a regular file of at most limit bytes, after check, if there is one, has found no fault with
// the file that was opened. A link to a file will do. The content is in one buffer that never grew, so whoever clears the
// result has cleared all of it.
func Read(path string, limit int, check func(path string, info fs.FileInfo) error) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && check != nil {
		err = check(path, info)
	}
	if err != nil {
		return nil, err
	}
	b := make([]byte, limit+1)
	n, err := io.ReadFull(f, b)
	switch {
	case err == nil:
		err = fmt.Errorf("%s is %w: more than %d bytes", path, ErrTooLong, limit)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return b[:n], nil
	}
	clear(b)
	return nil, err
}

// ErrOpen says that others than a file's owner can read or change it.
var ErrOpen = errors.New("open to others")

// Private finds fault with a file that anyone but its owner can read or change, or that is neither this process's
// user's nor root's, as any other owner can change it at will. The error says what to do, and wraps ErrOpen.
func Private(path string, info fs.FileInfo) error { return closedTo(0o077, "600", path, info) }

// PrivateToGroup is as Private, and lets the file's group read it, which is how Kubernetes hands a secret to a process
// that is not root.
func PrivateToGroup(path string, info fs.FileInfo) error { return closedTo(0o037, "640", path, info) }

func closedTo(others fs.FileMode, better, path string, info fs.FileInfo) error {
	if perm := info.Mode().Perm(); perm&others != 0 {
		return fmt.Errorf("%s has mode %04o and is %w than its owner: run \"chmod %s %s\", and treat what is in it as seen", path, perm, ErrOpen, better, path)
	}
	self := os.Geteuid()
	if owner, told := Owner(info); told && owner != self && owner != 0 {
		return fmt.Errorf("%s belongs to user %d, not to this process's user %d or root, and so is %w: run \"chown %d %s\"", path, owner, self, ErrOpen, self, path)
	}
	return nil
}

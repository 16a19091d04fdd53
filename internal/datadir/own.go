package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/keyquorum/keyquorum/internal/plainfile"
)

// openOwn opens a file in the directory that nobody but this process's user can have written.
func openOwn(path string, flag int) (*os.File, error) {
	f, err := plainfile.OpenFile(path, flag, 0o600)
	if errors.Is(err, plainfile.ErrNotRegular) {
		return nil, notLeft(err)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = checkOwn(path, info)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// checkOwn wants what info tells of path to be this process's user's, and nobody else able to write to it.
func checkOwn(path string, info fs.FileInfo) error {
	self := os.Geteuid()
	if owner, told := plainfile.Owner(info); told && owner != self {
		return fmt.Errorf("%w: %s belongs to user %d, and this process runs as user %d: run it as user %[3]d, or, if it is "+
			"to go on as user %[4]d, chown -R %[4]d %[2]s", ErrPermissions, path, owner, self)
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("%w: the mode %04o of %s lets others than its owner write to it: chmod %s %[3]s",
			ErrPermissions, perm, path, map[bool]string{true: "0700", false: "0600"}[info.IsDir()])
	}
	return nil
}

// checkFile wants a regular file, as checkOwn wants it.
func checkFile(path string, info fs.FileInfo) error {
	if err := plainfile.Check(path, info); err != nil {
		return notLeft(err)
	}
	return checkOwn(path, info)
}

// checkFolder wants a directory, and no link to one, as checkOwn wants it.
func checkFolder(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return notLeft(fmt.Errorf("%s is not a directory", path))
	}
	return checkOwn(path, info)
}

// notLeft says what to do about a thing that this program would not have put there.
func notLeft(err error) error {
	return fmt.Errorf("%w: %w: find out who put it there, and remove it or put the member's own back", ErrDamaged, err)
}

package datadir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/keyquorum/keyquorum/internal/datadir/filelock"
)

// hold locks the directory for this process. The lock file has the holder's process id, for the message only.
func (d *Dir) hold() error {
	f, err := openOwn(d.file(lockFile), os.O_RDWR|os.O_CREATE)
	switch {
	case errors.Is(err, ErrDamaged), errors.Is(err, ErrPermissions):
		return err
	case err != nil:
		return fmt.Errorf("it cannot be written to: %w: let this process's user write to it, or name another directory", err)
	}
	if err := filelock.Try(f); err != nil {
		holder := holderOf(f)
		_ = f.Close()
		if errors.Is(err, filelock.ErrHeld) {
			return fmt.Errorf("it is %w by %s: stop that one first, or name another directory", ErrInUse, holder)
		}
		return err
	}
	d.lock = f
	return errors.Join(f.Truncate(0), writePID(f))
}

func writePID(f *os.File) error {
	_, err := f.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	return err
}

func holderOf(f *os.File) string {
	b, _ := io.ReadAll(io.LimitReader(f, 32))
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err != nil:
		return "another process"
	case pid == os.Getpid():
		return "this very process"
	}
	return fmt.Sprintf("process %d", pid)
}

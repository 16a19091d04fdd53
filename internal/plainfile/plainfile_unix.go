//go:build unix

package plainfile

import (
	"io/fs"
	"os"
	"syscall"
)

const (
	nonBlock = syscall.O_NONBLOCK
	noFollow = syscall.O_NOFOLLOW
)

// Owner gives the id of the user whom a file belongs to, if the system tells.
func Owner(info fs.FileInfo) (uid int, told bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(stat.Uid), true
}

// giveTo makes the owner and group of what info tells of also those of f.
func giveTo(f *os.File, info fs.FileInfo) error {
	to, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return f.Chown(int(to.Uid), int(to.Gid))
}

//go:build unix

package seal

import (
	"fmt"
	"io/fs"
	"syscall"
)

// checkOwner wants the file to be of the user with id self, or of root: any other owner can change it at will.
func checkOwner(path string, info fs.FileInfo, self int) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) == self || stat.Uid == 0 {
		return nil
	}
	return fmt.Errorf("keyring %s belongs to user %d, not to this process's user %d or root: run \"chown %d %s\"", path, stat.Uid, self, self, path)
}

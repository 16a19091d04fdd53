//go:build !unix

package seal

import "io/fs"

// checkOwner accepts all: this system's files have no owner that Go can tell.
func checkOwner(string, fs.FileInfo, int) error { return nil }

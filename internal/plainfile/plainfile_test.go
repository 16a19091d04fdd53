//go:build unix

package plainfile_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyquorum/keyquorum/internal/plainfile"
)

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.WriteFile(at("file"), []byte("text"), 0o600))
	must(t, os.Symlink("file", at("link")))
	must(t, os.Symlink("nowhere", at("dangling")))
	must(t, os.Mkdir(at("folder"), 0o700))
	must(t, syscall.Mkfifo(at("pipe"), 0o600))
	socket, err := net.Listen("unix", at("socket"))
	must(t, err)
	defer socket.Close()

	for _, c := range []struct {
		path           string
		open, openFile string // what the error says; empty for none
	}{
		{at("file"), "", ""},
		{at("link"), "", "not a regular file but a symbolic link"},
		{at("dangling"), "no such file", "not a regular file but a symbolic link"},
		{at("folder"), "not a regular file but a directory", "not a regular file but a directory"},
		{at("pipe"), "not a regular file but a named pipe", "not a regular file but a named pipe"},
		{at("socket"), "not a regular file but a socket", "not a regular file but a socket"},
		{os.DevNull, "not a regular file but a device", "not a regular file but a device"},
		{at("none"), "no such file", "no such file"},
	} {
		f, err := plainfile.Open(c.path)
		judge(t, "Open "+c.path, f, err, c.open)
		f, err = plainfile.OpenFile(c.path, os.O_RDONLY, 0)
		judge(t, "OpenFile "+c.path, f, err, c.openFile)
	}
}

func judge(t *testing.T, what string, f *os.File, err error, want string) {
	t.Helper()
	if want != "" {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
		if !errors.Is(err, plainfile.ErrNotRegular) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v has neither kind", what, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if b, err := io.ReadAll(f); string(b) != "text" || err != nil {
		t.Errorf("%s: read %q, %v", what, b, err)
	}
	must(t, f.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

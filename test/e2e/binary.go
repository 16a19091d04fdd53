//go:build unix

// Package e2e runs clusters of the real binary, each node a process with a data directory and sockets of its own, and
// lets a test speak of them: kill the leader, pause a node, empty its directory, move it to other ports.
//
// Real time passes here. Whatever has to come about is waited for, with a bound, and nothing is slept through.
package e2e

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// root is the module's folder, from where tests run.
const root = "../.."

// binary is the keyquorum that the tests run, built by Main.
var binary string

// atATime is how many tests run in parallel, however few cores there are: mostly they wait.
const atATime = "4"

// Main builds the binary, runs the tests, and gives their exit code: it is for TestMain.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "keyquorum-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "keyquorum")
	build := exec.Command("go", "build", "-o", binary, root+"/cmd/keyquorum") //nolint:noctx // it ends with the build
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the binary: %v\n%s", err, out)
		return 1
	}
	flag.Parse()
	if err := flag.Set("test.parallel", atATime); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Binary is the path of the keyquorum that the tests run.
func Binary(t testing.TB) string {
	t.Helper()
	if err := noteSources(); err != nil {
		t.Fatal(err)
	}
	return binary
}

// noteSources looks at the folders that the binary was made from. go test keeps a result for as long as the files that the
// tests themselves opened are the same, and knows nothing of what go build opens.
var noteSources = sync.OnceValue(func() error {
	return filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "bin") {
			return filepath.SkipDir
		}
		return err
	})
})

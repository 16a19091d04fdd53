//go:build unix

package e2e_test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyquorum/keyquorum/test/e2e"
)

// The scripts in testdata/script use the command line as people and their scripts do, against a cluster of three, at
// $N1, $N2 and $N3, with their data in $D1, $D2 and $D3.
func TestScripts(t *testing.T) {
	c := e2e.Start(t, 3)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(e2e.Binary(t))+":"+env.Getenv("PATH"))
			for i, n := range c.Nodes {
				env.Setenv(fmt.Sprintf("N%d", i+1), n.Addr())
				env.Setenv(fmt.Sprintf("D%d", i+1), n.Dir)
			}
			for name, value := range c.Env() {
				env.Setenv(name, value)
			}
			env.Setenv("NOBODY", e2e.FreeAddress("127.0.0.1"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "eventually": eventually},
	})
}

// exits runs a command, which has to end with the exit code: "exits CODE COMMAND ARGUMENT...".
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGUMENT...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		failed, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = failed.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// eventually runs a command again and again until it prints the text: "eventually TEXT COMMAND ARGUMENT...". It is for
// what one node did and another has yet to hear of.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually TEXT COMMAND ARGUMENT...")
	}
	said := func() bool {
		_ = ts.Exec(args[1], args[2:]...) // what it prints is what counts
		return strings.Contains(ts.ReadFile("stdout"), args[0])
	}
	if !e2e.Within(e2e.Patience, said) {
		ts.Fatalf("it never printed %q", args[0])
	}
}

//go:build unix

package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func pipeIn(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSettingsComeFromARegularFileOnly(t *testing.T) {
	sh := &shell{t: t}
	wants(t, sh.must(2, "version", "--config", pipeIn(t)).errors, "--config: ", "not a regular file but a named pipe")
	wants(t, sh.must(2, "version", "--config", os.DevNull).errors, "--config: ", "not a regular file but a device")
	sh.env = map[string]string{"KEYQUORUM_CONFIG": pipeIn(t)}
	wants(t, sh.must(2, "version").errors, "KEYQUORUM_CONFIG: ", "a named pipe")
}

// As a shell's <( ) does it.
func TestClaimsComeFromAPipeToo(t *testing.T) {
	n := &fakeNode{}
	address := n.serve(t)
	pipe := pipeIn(t)
	go func() { _ = os.WriteFile(pipe, []byte(`{"from":"pipe"}`), 0) }()
	at(t, address).must(0, "issue", "alice", "--claims", "@"+pipe)
	wants(t, n.issued.GetClaims().GetFields()["from"].GetStringValue(), "pipe")
}

func TestAnInterruptEndsTheWaitForAPipe(t *testing.T) {
	pipe := pipeIn(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := at(t, (&fakeNode{}).serve(t)).runContext(ctx, "issue", "alice", "--claims", "@"+pipe)
	if r.code != 3 {
		t.Errorf("%+v", r)
	}
	if end, err := os.OpenFile(pipe, os.O_RDWR, 0); err == nil { // whoever waits for it still may go
		_ = end.Close()
	}
}

func TestClaimsWithoutEndAreRefused(t *testing.T) {
	r := at(t, (&fakeNode{}).serve(t)).must(2, "issue", "alice", "--claims", "@/dev/zero")
	wants(t, r.errors, "/dev/zero is longer than")
}

// TestMain also plays the process of TestADemoWithoutAReaderCleansUp.
func TestMain(m *testing.M) {
	if os.Getenv("CMD_TEST_DEMO") != "" {
		os.Args = []string{programName, "demo"}
		main()
	}
	os.Exit(m.Run())
}

// The system ends a process that writes to a pipe without a reader, unless it asks for something else.
func TestADemoWithoutAReaderCleansUp(t *testing.T) {
	dir := t.TempDir()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	demo := exec.CommandContext(t.Context(), os.Args[0])
	demo.Env = append(os.Environ(), "CMD_TEST_DEMO=1", "TMPDIR="+dir)
	var told strings.Builder
	demo.Stdout, demo.Stderr = write, &told
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	if _, err := io.ReadFull(read, make([]byte, 1)); err != nil { // as head does
		t.Fatal(err)
	}
	_ = read.Close()
	_ = demo.Wait()
	if code := demo.ProcessState.ExitCode(); code != 3 {
		t.Errorf("%v: %s", demo.ProcessState, told.String())
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("the demo left %v behind (%v)", left, err)
	}
	if strings.Contains(told.String(), "goroutine") {
		t.Error(told.String())
	}
}

//go:build unix

package e2e

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is one run of the binary. It is signalled through its handle, so nobody who got its id later is.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once it has ended
}

// launch runs the binary with nothing in its environment but env. What it prints is added to the file log. setup is
// shell commands that come before, for what a process inherits: limits, the umask.
func launch(t testing.TB, log, setup string, env []string, args ...string) *process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	line := append([]string{"/bin/sh", "-c", setup + "\nexec \"$@\"", "sh", Binary(t)}, args...)
	ctx := context.WithoutCancel(t.Context()) // it is ended by its node's cleanup
	p := &process{cmd: exec.CommandContext(ctx, line[0], line[1:]...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = append([]string{}, env...), out, out
	p.cmd.SysProcAttr = notOrphaned()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the state has all that there is to say
	}()
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// signal does nothing to a process that has ended.
func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// kill ends it as a power loss would, also where it is stopped.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// exit gives the exit code, once it ends by itself within the time.
func (p *process) exit(t testing.TB, within time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		t.Fatalf("%s goes on after %s", strings.Join(p.cmd.Args[4:], " "), within)
	}
	return p.cmd.ProcessState.ExitCode()
}

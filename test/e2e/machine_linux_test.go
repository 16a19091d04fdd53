package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/test/e2e"
)

// disk is a small file system in memory, with what fills it up.
type disk struct{ dir string }

// newDisk mounts one, until the test ends.
func newDisk(t *testing.T, size string) *disk {
	t.Helper()
	d := &disk{dir: t.TempDir()}
	mount(t, "tmpfs", d.dir, "tmpfs", 0, "mode=0700,size="+size)
	return d
}

func mount(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	err := syscall.Mount(source, target, kind, flags, data)
	if errors.Is(err, syscall.EPERM) {
		t.Skip("mounting a small disk takes root")
	}
	if err != nil {
		t.Fatal(err)
	}
	if flags&syscall.MS_REMOUNT == 0 {
		t.Cleanup(func() { syscall.Unmount(target, syscall.MNT_DETACH) })
	}
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill leaves no room.
func (d *disk) fill(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(d.ballast(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for piece := 1 << 20; piece > 0; piece >>= 1 {
		for err = nil; err == nil; {
			_, err = f.WriteString(strings.Repeat(".", piece))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

func (d *disk) empty(t *testing.T) {
	t.Helper()
	if err := os.Remove(d.ballast()); err != nil {
		t.Fatal(err)
	}
}

// A node whose disk is full ends, and says why; the others go on. What was acknowledged is there when there is room again.
func TestAFullDiskLosesNothing(t *testing.T) {
	t.Parallel()
	c := e2e.New(t, 3)
	disks := make(map[*e2e.Node]*disk)
	for _, n := range c.Nodes {
		disks[n] = newDisk(t, "64m")
		n.Dir = filepath.Join(disks[n].dir, "data")
	}
	c.Found()
	api, acknowledged := c.Client(), e2e.NewLedger()
	write(t, acknowledged, api, "before", 30)
	for name, choose := range map[string]func() *e2e.Node{
		"leader": c.Leader, "follower": func() *e2e.Node { return c.Followers()[0] },
	} {
		n := choose()
		disks[n].fill(t)
		e2e.Await(t, n.Name+" to end, as its disk is full", func() bool {
			write(t, acknowledged, api, name, 30)
			return !n.Running()
		})
		saysItsDiskIsFull(t, n)
		disks[n].empty(t)
		n.Start()
		n.AwaitReady()
		acknowledged.Check(t, c.Nodes...)
	}
	for _, n := range c.Nodes {
		disks[n].fill(t)
	}
	e2e.Await(t, "writes to fail, as all disks are full", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return acknowledged.Issue(ctx, api, "nobody", time.Hour) != nil
	})
	for _, n := range c.Nodes {
		n.Kill()
		disks[n].empty(t)
		n.Start()
	}
	for _, n := range c.Nodes {
		n.AwaitReady()
	}
	write(t, acknowledged, api, "after", 30)
	acknowledged.Check(t, c.Nodes...)
}

func saysItsDiskIsFull(t *testing.T, n *e2e.Node) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(n.Log()), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, "no space left on device") || !strings.HasPrefix(last, "keyquorum serve: ") {
		t.Errorf("the last that %s says is %q", n.Name, last)
	}
}

func TestADirectoryOnAReadOnlyDiskIsRefused(t *testing.T) {
	t.Parallel()
	c := e2e.New(t, 3)
	n := c.Nodes[2]
	d := newDisk(t, "64m")
	n.Dir = filepath.Join(d.dir, "data")
	c.Found()
	api, acknowledged := c.Client(), e2e.NewLedger()
	write(t, acknowledged, api, "before", 30)
	n.Kill()
	mount(t, "tmpfs", d.dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	if said := n.Refuses(); !strings.Contains(said, "read-only file system") {
		t.Errorf("it says\n%s", said)
	}
	write(t, acknowledged, api, "without", 30)
	mount(t, "tmpfs", d.dir, "tmpfs", syscall.MS_REMOUNT, "")
	n.Start()
	n.AwaitReady()
	acknowledged.Check(t, c.Nodes...)
}

// A command waits for its token, which it is never given, while its limits are looked at.
func TestNoCommandLeavesACoreDump(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), e2e.Binary(t), "verify", "-", "--addr", "127.0.0.1:1")
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait() // the empty token is refused
	})
	none := regexp.MustCompile(`(?m)^Max core file size +0 +0 `)
	e2e.Await(t, "the command to have no core dumps", func() bool {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid))
		return err == nil && none.Match(limits)
	})
}

//go:build unix

package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/keyquorum/keyquorum/test/e2e"
)

// building is the README's way to the binary, which the tests have made in the same way.
const building = "go build -o keyquorum ./cmd/keyquorum"

var (
	shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")
	// examplePort are the ports of the README's first cluster.
	examplePort = regexp.MustCompile(`127\.0\.0\.1:74\d\d`)
)

// What the README says under "A first cluster" is run as it stands there, but for the ports.
func TestTheReadmesFirstClusterWorks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink(e2e.Binary(t), filepath.Join(dir, "keyquorum")); err != nil {
		t.Fatal(err)
	}
	ports := make(elsewhere)
	started, said := false, ""
	for _, commands := range readmeCommands(t, "## A first cluster", ports) {
		if strings.Contains(commands, "./keyquorum serve") {
			background(t, dir, commands+"wait")
			started = true
			continue
		}
		said += foreground(t, dir, commands)
		if strings.Contains(commands, "keyquorum setup") {
			ports.settings(t, dir)
		}
	}
	if !started {
		t.Fatal("the README starts no servers")
	}
	if !strings.Contains(said, "Founded cluster") || strings.Count(said, "\nvalid\n") != 3 {
		t.Errorf("in the end it says\n%s", said)
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		if !regexp.MustCompile(`(?m)^` + name + ` +(leader|voter|joining) +yes`).MatchString(said) {
			t.Errorf("%s is not shown as ready:\n%s", name, said)
		}
	}
}

// readmeCommands are the blocks of shell commands in a section, with ports that nobody uses.
func readmeCommands(t *testing.T, heading string, ports elsewhere) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !found || !strings.Contains(section, building) {
		t.Fatalf("the README has no section %q with %q", heading, building)
	}
	section = ports.in(section)
	var blocks []string
	for _, block := range shellBlock.FindAllStringSubmatch(section, -1) {
		blocks = append(blocks, strings.Replace(block[1], building+"\n", "", 1))
	}
	return blocks
}

// elsewhere has a free address for each of the README's.
type elsewhere map[string]string

func (e elsewhere) in(text string) string {
	return examplePort.ReplaceAllStringFunc(text, func(address string) string {
		if e[address] == "" {
			e[address] = e2e.FreeAddress("127.0.0.1")
		}
		return e[address]
	})
}

// settings changes the addresses in the files of settings.
func (e elsewhere) settings(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "*", "*.yaml"))
	if err != nil || len(files) != 4 {
		t.Fatalf("there are the settings %q, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, []byte(e.in(string(text))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// foreground runs commands, none of which may fail, and gives what they print.
func foreground(t *testing.T, dir, commands string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), e2e.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-e", "-x", "-c", commands)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return string(out)
}

// background runs a command, and whatever that starts, until the test ends.
func background(t *testing.T, dir, command string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	log, err := os.CreateTemp(t.TempDir(), "*.log")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it was killed
		log.Close()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("%s\nprinted\n%s", command, text)
		}
	})
}

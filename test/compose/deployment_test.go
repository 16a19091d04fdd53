//go:build compose && linux

package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// project keeps what is made here apart from all else that the engine has.
	project = "keyquorum-test"
	// patience bounds each command, and each wait for a condition.
	patience = 60 * time.Second
)

var (
	nodes = []string{"node1", "node2", "node3"}
	once  = []string{"setup", "founder"}
)

// interrupted ends what is under way, so that an interrupted test still cleans up.
var interrupted, _ = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)

// deployment is docker-compose.yml under the name of project. Its methods fail the test where docker does not do its part.
type deployment struct {
	*testing.T
	image, keyquorum, file string
	compose                []string
	env                    []string
	// addresses are where this machine reaches the nodes.
	addresses map[string]string
	// operator are the flags of the command line that say who asks.
	operator []string
	// issued are all tokens so far.
	issued []string
	began  time.Time
	// last is what the last command left.
	last result
}

// deploy cleans up what a killed run may have left, and sees to it that nothing is left of this one.
func deploy(t *testing.T) *deployment {
	d := &deployment{T: t, image: required(t, "KEYQUORUM_IMAGE"), env: os.Environ(), addresses: map[string]string{}, began: time.Now()}
	d.file, d.keyquorum = d.path("docker-compose.yml"), d.path("bin/keyquorum")
	d.compose = append(strings.Fields(required(t, "COMPOSE")), "-p", project, "-f", d.file)
	for i, node := range nodes {
		port := freePort(t)
		d.addresses[node] = "127.0.0.1:" + port
		d.env = append(d.env, fmt.Sprintf("NODE%d_PORT=%s", i+1, port))
	}
	d.clean()
	t.Cleanup(func() { d.clean("--rmi", "all") })
	t.Cleanup(d.explain)
	return d
}

func required(t *testing.T, variable string) string {
	value := os.Getenv(variable)
	if value == "" {
		t.Fatalf("%s is not set: run this by \"make compose-test\"", variable)
	}
	return value
}

func (d *deployment) path(name string) string {
	path, err := filepath.Abs(filepath.Join("..", "..", name))
	if err != nil {
		d.Fatal(err)
	}
	return path
}

// freePort gives a port at which nobody listens right now.
func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// clean removes what has the project's name, also after an interrupt.
func (d *deployment) clean(more ...string) {
	command := slices.Concat(d.compose, []string{"down", "--volumes", "--remove-orphans"}, more)
	r := d.run(context.WithoutCancel(interrupted), "", command...)
	if r.code != 0 {
		d.Errorf("cleaning up exits %d: %s", r.code, r.errors)
	}
}

// explain shows, of a test that failed, what the containers said.
func (d *deployment) explain() {
	if !d.Failed() {
		return
	}
	for _, what := range [][]string{{"ps"}, {"logs", "--no-color"}} {
		r := d.run(context.WithoutCancel(interrupted), "", slices.Concat(d.compose, what)...)
		d.Logf("%s\n%s%s", what[0], r.out, r.errors)
	}
}

// step says what comes next, and when.
func (d *deployment) step(what string) {
	d.Logf("%5.1f s  %s", time.Since(d.began).Seconds(), what)
}

// result is what a command left.
type result struct {
	code        int
	out, errors string
}

// run runs a command to its end, which must come within patience.
func (d *deployment) run(ctx context.Context, stdin string, command ...string) result {
	d.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out, errors bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = d.env, strings.NewReader(stdin), &out, &errors
	err := cmd.Run()
	if cmd.ProcessState == nil || ctx.Err() != nil {
		d.Fatalf("%s: %v, %v", strings.Join(command, " "), err, context.Cause(ctx))
	}
	d.last = result{cmd.ProcessState.ExitCode(), out.String(), errors.String()}
	return d.last
}

// must runs a command that must exit 0, and gives what it printed.
func (d *deployment) must(command ...string) string {
	d.Helper()
	r := d.run(interrupted, "", command...)
	if r.code != 0 {
		d.Fatalf("%s exits %d: %s", strings.Join(command, " "), r.code, r.errors)
	}
	return r.out
}

func (d *deployment) docker(args ...string) string {
	d.Helper()
	return d.must(append([]string{"docker"}, args...)...)
}

func (d *deployment) composed(args ...string) string {
	d.Helper()
	return d.must(slices.Concat(d.compose, args)...)
}

// await waits for a condition.
func (d *deployment) await(what string, ok func() bool) {
	d.Helper()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-deadline:
			d.Fatalf("not within %v: %s; the last command exits %d: %s", patience, what, d.last.code, d.last.errors)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// container is what docker tells of one.
type container struct {
	ID    string `json:"Id"`
	State struct {
		Status, StartedAt string
		ExitCode, Pid     int
		Health            struct{ Status string }
	}
	Config     struct{ User string }
	HostConfig struct {
		ReadonlyRootfs, Privileged bool
		CapAdd, CapDrop            []string
		SecurityOpt                []string
	}
	Mounts []struct {
		Destination string
		RW          bool
	}
	NetworkSettings struct {
		Ports map[string][]struct {
			HostIP string `json:"HostIp"`
		}
	}
}

// container finds the one container of a service, also a stopped one.
func (d *deployment) container(service string) container {
	d.Helper()
	ids := strings.Fields(d.docker("ps", "--all", "--quiet", "--no-trunc",
		"--filter", "label=com.docker.compose.project="+project, "--filter", "label=com.docker.compose.service="+service))
	if len(ids) != 1 {
		d.Fatalf("%s has the containers %q, want one", service, ids)
	}
	return d.inspect(ids[0])
}

func (d *deployment) inspect(id string) container {
	d.Helper()
	var found []container
	if err := json.Unmarshal([]byte(d.docker("inspect", id)), &found); err != nil {
		d.Fatal(err)
	}
	return found[0]
}

// takeOperator takes an operator's certificate out of the volume that it is in.
func (d *deployment) takeOperator() {
	d.Helper()
	dir := d.TempDir()
	d.docker("cp", d.container("setup").ID+":/setup/operator/.", dir)
	for flag, name := range map[string]string{"--tls-ca": "ca.crt", "--tls-cert": "tls.crt", "--tls-key": "tls.key"} {
		path := filepath.Join(dir, name)
		if err := os.Chown(path, os.Getuid(), os.Getgid()); err != nil {
			d.Fatal(err)
		}
		d.operator = append(d.operator, flag, path)
	}
}

// awaitHealthy waits until docker calls the nodes healthy, and the one-shot services are done.
func (d *deployment) awaitHealthy() {
	d.Helper()
	for _, node := range nodes {
		d.await(node+" healthy", func() bool { return d.container(node).State.Health.Status == "healthy" })
	}
	for _, service := range once {
		d.await(service+" done", func() bool { return d.container(service).State.Status == "exited" })
		if code := d.container(service).State.ExitCode; code != 0 {
			d.Fatalf("%s exits %d", service, code)
		}
	}
}

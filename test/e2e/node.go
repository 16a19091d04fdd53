//go:build unix

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/internal/certs"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Node is one node, whether its process runs or not. The exported fields count from the next Start on.
type Node struct {
	Name string
	// Dir is the data directory.
	Dir string
	// Host is what the node listens at; loopback unless changed before the first start.
	Host string
	// Flags are further ones of "keyquorum serve".
	Flags []string
	// Env is all that is in the node's environment.
	Env []string
	// Setup is shell commands that come before the node, such as "umask 077".
	Setup string

	t       testing.TB
	ca      *authority
	keyring string
	log     string
	seeds   func() string
	// rpc, raft and gossip are where it listens.
	rpc, raft, gossip string
	proc              *process
	// files has the certificate for the hosts that the node has been at.
	files map[string]certs.Files
	api   *client.Client
}

// Addr is where the node takes requests; on loopback if it listens everywhere.
func (n *Node) Addr() string {
	host, port, err := net.SplitHostPort(n.rpc)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return n.rpc
}

// RaftAddr is where the node takes Raft's messages.
func (n *Node) RaftAddr() string { return n.raft }

// GossipAddr is where the node gossips, by TCP and UDP.
func (n *Node) GossipAddr() string { return n.gossip }

// LogFile is where what the node prints goes.
func (n *Node) LogFile() string { return n.log }

// Move gives the node other ports, from the next Start on.
func (n *Node) Move() {
	n.rpc, n.raft, n.gossip = FreeAddress(n.Host), FreeAddress(n.Host), FreeAddress(n.Host)
}

// Inside has the node run, from the next Start on, in the network namespace of that name, and listen at that host there.
func (n *Node) Inside(namespace, host string) {
	n.Host = host
	n.rpc, n.raft, n.gossip = net.JoinHostPort(host, "7400"), net.JoinHostPort(host, "7401"), net.JoinHostPort(host, "7402")
	n.Setup = fmt.Sprintf("set -- ip netns exec %s \"$@\"", namespace)
}

// PID is the id of the node's process.
func (n *Node) PID() int { return n.proc.cmd.Process.Pid }

// Running tells whether the node has a process.
func (n *Node) Running() bool { return n.proc != nil && !n.proc.ended() }

// Start starts the node's process and waits until it takes requests.
func (n *Node) Start() {
	n.t.Helper()
	n.launch()
	Await(n.t, n.Name+" to take requests", func() bool {
		if n.proc.ended() {
			n.t.Fatalf("%s has ended with exit code %d", n.Name, n.proc.exit(n.t, 0))
		}
		_, err := n.Status()
		return err == nil
	})
}

// Certificate gives the files of the node at the host that it listens at.
func (n *Node) Certificate() certs.Files {
	if n.files == nil {
		n.files = make(map[string]certs.Files)
	}
	hosts := []string{"127.0.0.1"}
	if ip := net.ParseIP(n.Host); ip == nil || !ip.IsUnspecified() {
		hosts = append(hosts, n.Host)
	}
	if i := slices.Index(n.Flags, "--advertise"); i >= 0 {
		hosts = append(hosts, n.Flags[i+1])
	}
	key := strings.Join(hosts, " ")
	files, ok := n.files[key]
	if !ok {
		files = n.ca.Node(n.t, n.Name, hosts...)
		n.files[key] = files
	}
	return files
}

func (n *Node) launch() {
	n.t.Helper()
	if n.Running() {
		n.t.Fatalf("%s runs already", n.Name)
	}
	if n.rpc == "" {
		n.Move()
	}
	api, err := client.New([]string{n.Addr()}, append(n.ca.options(), client.InOrder(), client.WithTimeout(2*time.Second))...)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(api.Close)
	n.api = api
	args := []string{
		"serve", "--name", n.Name, "--data-dir", n.Dir, "--keyring", n.keyring,
		"--listen", n.rpc, "--raft-listen", n.raft, "--gossip-listen", n.gossip, "--join", n.seeds(),
	}
	args = append(append(args, n.credentials()...), n.Flags...)
	n.proc = launch(n.t, n.log, n.Setup, n.Env, args...)
}

// credentials are the flags that say how the node's ports are secured.
func (n *Node) credentials() []string {
	if n.ca == nil {
		return []string{"--insecure"}
	}
	files := n.Certificate()
	return []string{"--tls-cert", files.Certificate, "--tls-key", files.Key, "--tls-ca", files.CA}
}

// Refuses starts the node's process, which has to end by itself with exit code 1, and gives what it said.
func (n *Node) Refuses() string {
	n.t.Helper()
	before := len(n.Log())
	n.launch()
	if code := n.proc.exit(n.t, Patience); code != 1 {
		n.t.Errorf("%s exits %d, want 1", n.Name, code)
	}
	return n.Log()[before:]
}

// Kill ends the process at once, as a power loss would.
func (n *Node) Kill() { n.proc.kill() }

// Terminate has the process end in good order, and waits for it: the exit code has to be 0.
func (n *Node) Terminate() {
	n.t.Helper()
	n.proc.signal(syscall.SIGTERM)
	if code := n.proc.exit(n.t, Patience); code != 0 {
		n.t.Errorf("%s exits %d after SIGTERM, want 0", n.Name, code)
	}
}

// Pause has the process stand still, with its connections open, until Resume.
func (n *Node) Pause() {
	n.t.Helper()
	n.proc.signal(syscall.SIGSTOP)
	Await(n.t, n.Name+" to stand still", func() bool { return standsStill(n.PID()) })
}

// Resume lets a paused process go on.
func (n *Node) Resume() { n.proc.signal(syscall.SIGCONT) }

// Empty removes all that is in the node's data directory. The node must not run.
func (n *Node) Empty() {
	n.t.Helper()
	entries, err := os.ReadDir(n.Dir)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(n.Dir, e.Name())); err != nil {
			n.t.Fatal(err)
		}
	}
}

// Log is all that the node has printed.
func (n *Node) Log() string {
	text, err := os.ReadFile(n.log)
	if err != nil && !os.IsNotExist(err) {
		n.t.Fatal(err)
	}
	return string(text)
}

// API is a client of this node alone, from its latest start.
func (n *Node) API() *client.Client { return n.api }

// Status is what the node says of itself.
func (n *Node) Status() (*v1.StatusResponse, error) {
	return n.api.Status(context.WithoutCancel(n.t.Context()))
}

// AwaitReady waits until the node serves as a member.
func (n *Node) AwaitReady() *v1.StatusResponse {
	n.t.Helper()
	var status *v1.StatusResponse
	Await(n.t, n.Name+" to be ready", func() bool {
		var err error
		status, err = n.Status()
		return err == nil && status.GetReady()
	})
	return status
}

// AwaitRevision waits until the node's state has come that far.
func (n *Node) AwaitRevision(revision uint64) {
	n.t.Helper()
	Await(n.t, n.Name+" to catch up", func() bool {
		status, err := n.Status()
		return err == nil && status.GetRevision() >= revision
	})
}

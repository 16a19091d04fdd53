//go:build compose && linux

// Package compose tests docker-compose.yml as a user would work with it: real containers, the command line, and the ports
// that are published. Its tests need docker, and "make compose-test" to run them.
package compose

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestAClusterInContainers(t *testing.T) {
	d := deploy(t)

	d.step("up")
	d.composed("up", "--no-build", "--detach")
	d.awaitHealthy()
	d.takeOperator()
	founded := d.awaitComplete()

	d.step("what the containers may do")
	for _, service := range slices.Concat(nodes, once) {
		d.checkConfined(service)
	}
	for _, node := range nodes {
		d.checkMounts(node)
		d.checkReach(node)
	}

	d.step("who may ask")
	d.checkAccess()

	d.step("issue on one node, verify on all; revoke on another, refused on all")
	alice, bob := d.issue("node1", "alice"), d.issue("node3", "bob")
	d.valid(alice, nodes...)
	d.valid(bob, nodes...)
	if r := d.ask("node2", "", "revoke", "bob"); r.code != 0 {
		t.Fatalf("revoke exits %d: %s", r.code, r.errors)
	}
	d.revoked(bob, nodes...)
	keep := func() {
		t.Helper()
		d.valid(alice, nodes...)
		d.revoked(bob, nodes...)
		if s := d.awaitComplete(); s.ClusterID != founded.ClusterID || !slices.EqualFunc(s.Members, founded.Members, sameMember) {
			t.Fatalf("the cluster was %+v, and is %+v", founded, s)
		}
	}

	d.step("docker stop of the leader")
	d.loseLeader(0, "stop")
	keep()

	d.step("docker kill -s KILL of the leader")
	d.loseLeader(137, "kill", "--signal", "KILL")
	keep()

	d.step("up again")
	before := d.starts()
	d.composed("up", "--no-build", "--detach")
	d.awaitHealthy()
	if after := d.starts(); !slices.Equal(before, after) {
		t.Fatalf("the nodes were started at %v, and at %v", before, after)
	}
	keep()

	d.step("restart")
	d.composed("restart")
	d.awaitHealthy()
	for i, at := range d.starts() {
		if at == before[i] {
			t.Fatalf("%s was not started again", nodes[i])
		}
	}
	keep()
	d.checkLogs()

	d.step("down, and up with the volumes that stayed")
	d.composed("down")
	d.composed("up", "--no-build", "--detach")
	d.awaitHealthy()
	keep()
	d.checkLogs()
	d.step("done")
}

func sameMember(a, b member) bool { return a == b }

// starts tells when each node was last started.
func (d *deployment) starts() (at []string) {
	for _, node := range nodes {
		at = append(at, d.container(node).State.StartedAt)
	}
	return at
}

// loseLeader ends the leader by a docker command and goes on at the others. Then it starts it again, and sees that it
// catches up.
func (d *deployment) loseLeader(code int, command ...string) {
	d.Helper()
	lost := d.awaitComplete().leader()
	others := slices.DeleteFunc(slices.Clone(nodes), func(node string) bool { return node == lost })
	c := d.container(lost)
	d.docker(append(command, c.ID)...)
	if s := d.inspect(c.ID).State; s.Status != "exited" || s.ExitCode != code {
		d.Fatalf("%s is %s with exit code %d, want %d", lost, s.Status, s.ExitCode, code)
	}
	for _, node := range others {
		d.valid(d.issue(node, "meanwhile-at-"+node), others...)
	}
	d.step(fmt.Sprintf("  %s is gone, and %s go on", lost, strings.Join(others, " and ")))
	reached := d.status(others[0]).applied()
	d.docker("start", c.ID)
	d.awaitHealthy()
	d.await(lost+" catches up", func() bool { return d.status(lost).applied() >= reached })
	d.valid(d.issued[len(d.issued)-1], lost)
	d.step(fmt.Sprintf("  %s is back", lost))
}

// checkConfined wants a service's container to have a user who is not root, and nothing that it does not need.
func (d *deployment) checkConfined(service string) {
	d.Helper()
	c := d.container(service)
	h := c.HostConfig
	if c.Config.User != "65532:65532" || !h.ReadonlyRootfs || h.Privileged || len(h.CapAdd) > 0 ||
		!slices.Equal(h.CapDrop, []string{"ALL"}) || !slices.Contains(h.SecurityOpt, "no-new-privileges:true") {
		d.Errorf("%s runs as user %q with %+v", service, c.Config.User, h)
	}
	for port, bound := range c.NetworkSettings.Ports {
		for _, b := range bound {
			if port != "7400/tcp" || b.HostIP != "127.0.0.1" {
				d.Errorf("%s publishes %s at %s", service, port, b.HostIP)
			}
		}
	}
	if c.State.Pid != 0 {
		d.checkProcess(service, c.State.Pid)
	}
}

// checkProcess looks at what the kernel made of it.
func (d *deployment) checkProcess(service string, pid int) {
	d.Helper()
	told, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		d.Fatal(err)
	}
	fields := strings.Fields(string(told))
	for name, want := range map[string]string{
		"Uid:": "65532", "Gid:": "65532", "CapPrm:": "0000000000000000", "CapEff:": "0000000000000000",
		"CapBnd:": "0000000000000000", "NoNewPrivs:": "1", "Seccomp:": "2",
	} {
		if at := slices.Index(fields, name); at < 0 || fields[at+1] != want {
			d.Errorf("%s: %s is not %s in\n%s", service, name, want, told)
		}
	}
}

// checkMounts wants a node to write to its data alone.
func (d *deployment) checkMounts(node string) {
	d.Helper()
	writable := map[string]bool{}
	for _, m := range d.container(node).Mounts {
		writable[m.Destination] = m.RW
	}
	if len(writable) != 2 || !writable["/data"] || writable["/secrets"] {
		d.Errorf("%s may write as %v", node, writable)
	}
}

// checkReach wants an application's container to reach a node's probes, and neither Raft nor gossip.
func (d *deployment) checkReach(node string) {
	d.Helper()
	for port, code := range map[string]int{"7403": 0, "7401": 3, "7402": 3} {
		r := d.run(interrupted, "", "docker", "run", "--rm", "--network", project+"_clients", d.image,
			"health", "--addr", node+":"+port)
		if r.code != code || code != 0 && !strings.Contains(r.errors, "connection refused") {
			d.Errorf("asked at %s from the clients' network, %s exits %d: %s", port, node, r.code, r.errors)
		}
	}
}

// checkLogs wants no part of any token in what the containers printed.
func (d *deployment) checkLogs() {
	d.Helper()
	logs := d.composed("logs", "--no-color")
	for _, node := range nodes {
		if !strings.Contains(logs, "name="+node) {
			d.Fatalf("the logs do not tell of %s:\n%s", node, logs)
		}
	}
	for _, token := range d.issued {
		parts := strings.Split(token, ".")
		if strings.Contains(logs, parts[1]) || strings.Contains(logs, parts[2]) {
			d.Error("a token is in the logs")
		}
	}
}

// checkAccess wants the operator's command line in a container to be answered, and who shows nothing not to be.
func (d *deployment) checkAccess() {
	d.Helper()
	out := d.composed("run", "--rm", "cli", "cluster", "status")
	if !strings.Contains(out, "node3") || strings.Contains(out, "no answer") {
		d.Errorf("the operator's command line in a container prints %q", out)
	}
	r := d.run(interrupted, "", d.keyquorum, "cluster", "status", "--addr", d.addresses["node1"], "--timeout", "5s")
	if r.code == 0 {
		d.Errorf("who shows nothing is told %q", r.out)
	}
}

//go:build compose && linux

package compose

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// ask runs this machine's own keyquorum against one node.
func (d *deployment) ask(node, stdin string, args ...string) result {
	d.Helper()
	r := d.run(interrupted, stdin, slices.Concat([]string{d.keyquorum}, args, []string{"--addr", d.addresses[node], "--timeout", "5s"})...)
	if r.code == 2 {
		d.Fatal(r.errors)
	}
	return r
}

// issue has a node issue a token; it is tried again while there is no leader.
func (d *deployment) issue(node, subject string) string {
	d.Helper()
	var r result
	d.await(node+" issues a token", func() bool {
		r = d.ask(node, "", "issue", subject, "--ttl", "1h")
		return r.code == 0
	})
	token := strings.TrimSpace(r.out)
	d.issued = append(d.issued, token)
	return token
}

// valid waits until each node has called a token valid. It may fail to answer first, and must not say anything else.
func (d *deployment) valid(token string, at ...string) {
	d.Helper()
	d.judged("valid", token, at...)
}

// revoked waits until each node has refused a token whose key was revoked. It may fail to answer first, and must not accept
// the token once.
func (d *deployment) revoked(token string, at ...string) {
	d.Helper()
	d.judged("KEY_NOT_FOUND", token, at...)
}

func (d *deployment) judged(want, token string, at ...string) {
	d.Helper()
	for _, node := range at {
		d.await(node+" judges a token", func() bool {
			verdict := d.verdict(node, token)
			if verdict != "" && verdict != want {
				d.Fatalf("%s calls a token %s, want %s", node, verdict, want)
			}
			return verdict != ""
		})
	}
}

// verdict is empty if there is none.
func (d *deployment) verdict(node, token string) string {
	d.Helper()
	r := d.ask(node, token, "verify", "--json", "-")
	if r.code == 3 {
		return ""
	}
	var v struct {
		Valid  bool
		Reason string
	}
	if err := json.Unmarshal([]byte(r.out), &v); err != nil || v.Valid != (r.code == 0) {
		d.Fatalf("%s: exit code %d, %s%s", node, r.code, r.out, r.errors)
	}
	if v.Valid {
		return "valid"
	}
	return v.Reason
}

// status is what a node tells of the cluster; its zero value is no answer.
type status struct {
	ClusterID    string `json:"clusterId"`
	LeaderID     string `json:"leaderId"`
	AppliedIndex string
	Members      []member
}

type member struct {
	ID   string `json:"nodeId"`
	Name string
	Role string
}

func (d *deployment) status(node string) (s status) {
	d.Helper()
	if r := d.ask(node, "", "cluster", "status", "--json"); r.code == 0 {
		if err := json.Unmarshal([]byte(r.out), &s); err != nil {
			d.Fatalf("%s: %v in %q", node, err, r.out)
		}
	}
	return s
}

func (s status) applied() uint64 {
	n, _ := strconv.ParseUint(s.AppliedIndex, 10, 64)
	return n
}

func (s status) leader() string {
	for _, m := range s.Members {
		if m.ID == s.LeaderID {
			return m.Name
		}
	}
	return ""
}

func (s status) voters() int {
	n := 0
	for _, m := range s.Members {
		if m.Role == "VOTER" {
			n++
		}
	}
	return n
}

// awaitComplete waits until every node is a voter, with one that leads, and gives the cluster as that one sees it.
func (d *deployment) awaitComplete() (s status) {
	d.Helper()
	d.await("three voters, one of which leads", func() bool {
		s = d.status("node1")
		return s.voters() == len(nodes) && s.leader() != ""
	})
	return s
}

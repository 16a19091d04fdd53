//go:build unix

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/certs/certstest"
	"github.com/keyquorum/keyquorum/internal/pki"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Cluster is some nodes with one keyring.
type Cluster struct {
	Nodes []*Node
	// Operator is the API token that founding gave; empty where there is no access control.
	Operator string

	t   testing.TB
	ca  *authority
	dir string
}

// authority is the cluster's CA, with one caller that may do everything.
type authority struct {
	*certstest.CA
	caller certs.Files
}

func newAuthority(t testing.TB) *authority {
	ca := certstest.New(t)
	return &authority{ca, ca.Client(t, "tests", pki.Operator, pki.Issuer, pki.Verifier, pki.Auditor)}
}

// options have a client call as the one who may do everything. Without an authority there is nothing to show.
func (a *authority) options() []client.Option {
	if a == nil {
		return nil
	}
	return []client.Option{client.WithTLS(client.TLSFiles{CA: a.caller.CA, Certificate: a.caller.Certificate, Key: a.caller.Key})}
}

// Start runs a cluster of that many nodes, all of them voters and ready.
func Start(t testing.TB, nodes int) *Cluster {
	t.Helper()
	c := New(t, nodes)
	c.Found()
	return c
}

// New makes a keyring and nodes, and starts nothing yet. Whatever of it runs at the end of the test is killed; where the
// test failed, what the nodes printed is shown.
func New(t testing.TB, nodes int) *Cluster {
	t.Helper()
	return prepare(t, nodes, newAuthority(t))
}

// NewInsecure is New for nodes without TLS and access control.
func NewInsecure(t testing.TB, nodes int) *Cluster {
	t.Helper()
	return prepare(t, nodes, nil)
}

func prepare(t testing.TB, nodes int, ca *authority) *Cluster {
	t.Helper()
	c := &Cluster{t: t, dir: t.TempDir(), ca: ca}
	t.Cleanup(c.end)
	making := launch(t, filepath.Join(c.dir, "keyring.log"), "", nil, "keyring", "init", c.Keyring())
	if code := making.exit(t, Patience); code != 0 {
		t.Fatalf("keyring init exits %d", code)
	}
	for range nodes {
		c.Add()
	}
	return c
}

// CA is what the certificates of a cluster with TLS come from.
func (c *Cluster) CA() *certstest.CA { return c.ca.CA }

// Keyring is the path of the master keyring, which all nodes read.
func (c *Cluster) Keyring() string { return filepath.Join(c.dir, "keyring") }

// Add makes one more node, and does not start it.
func (c *Cluster) Add() *Node {
	name := fmt.Sprintf("n%d", len(c.Nodes)+1)
	n := &Node{
		Name: name, Dir: filepath.Join(c.dir, name), Host: "127.0.0.1",
		t: c.t, ca: c.ca, keyring: c.Keyring(), log: filepath.Join(c.dir, name+".log"), seeds: c.seeds,
	}
	c.Nodes = append(c.Nodes, n)
	return n
}

// seeds are the gossip addresses of all nodes that have one.
func (c *Cluster) seeds() string {
	var seeds []string
	for _, n := range c.Nodes {
		if n.gossip != "" {
			seeds = append(seeds, n.gossip)
		}
	}
	return strings.Join(seeds, ",")
}

// Found starts the nodes, founds the cluster at the first, and waits until all are voters.
func (c *Cluster) Found() {
	c.t.Helper()
	for _, n := range c.Nodes {
		n.launch()
	}
	Await(c.t, "the cluster to be founded", func() bool {
		res, err := c.Nodes[0].API().Init(c.ctx(), &v1.InitRequest{})
		c.Operator = res.GetOperatorToken()
		return err == nil
	})
	c.AwaitVoters(len(c.Nodes))
	for _, n := range c.Nodes {
		n.AwaitReady()
	}
}

// Env has the command line call as the one who may do everything.
func (c *Cluster) Env() map[string]string {
	if c.ca == nil {
		return nil
	}
	return map[string]string{
		"KEYQUORUM_TLS_CA": c.ca.caller.CA, "KEYQUORUM_TLS_CERT": c.ca.caller.Certificate, "KEYQUORUM_TLS_KEY": c.ca.caller.Key,
	}
}

// AwaitVoters waits until the leader counts that many.
func (c *Cluster) AwaitVoters(want int) {
	c.t.Helper()
	Await(c.t, fmt.Sprintf("%d voters", want), func() bool {
		voters := 0
		for _, m := range c.Members() {
			if m.GetRole() == v1.Member_VOTER {
				voters++
			}
		}
		return voters == want
	})
}

// Members are the members as the leader has them.
func (c *Cluster) Members() []*v1.Member {
	c.t.Helper()
	var members []*v1.Member
	Await(c.t, "the leader to list the members", func() bool {
		res, err := c.Leader().API().Members(c.ctx())
		members = res.GetMembers()
		return err == nil
	})
	return members
}

// Leader waits until a node leads, and gives it.
func (c *Cluster) Leader() *Node {
	c.t.Helper()
	var leader *Node
	Await(c.t, "a leader", func() bool {
		leader = c.leading()
		return leader != nil
	})
	return leader
}

// leading is the node of the highest term that says that it leads.
func (c *Cluster) leading() *Node {
	var leader *Node
	var term uint64
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		status, err := n.Status()
		if err == nil && status.GetReady() && status.GetLeaderId() == status.GetNode().GetNodeId() && status.GetTerm() > term {
			leader, term = n, status.GetTerm()
		}
	}
	return leader
}

// Followers are the running nodes that do not lead.
func (c *Cluster) Followers() []*Node {
	c.t.Helper()
	leader := c.Leader()
	var followers []*Node
	for _, n := range c.Nodes {
		if n != leader && n.Running() {
			followers = append(followers, n)
		}
	}
	return followers
}

// Running are the nodes whose processes run.
func (c *Cluster) Running() []*Node {
	var running []*Node
	for _, n := range c.Nodes {
		if n.Running() {
			running = append(running, n)
		}
	}
	return running
}

// Client is an application's, which knows the addresses that the nodes have now.
func (c *Cluster) Client(opts ...client.Option) *client.Client {
	c.t.Helper()
	var addresses []string
	for _, n := range c.Nodes {
		addresses = append(addresses, n.Addr())
	}
	return c.ClientOf(addresses, opts...)
}

// ClientOf is an application's client that is given these addresses.
func (c *Cluster) ClientOf(addresses []string, opts ...client.Option) *client.Client {
	c.t.Helper()
	api, err := client.New(addresses, append(c.ca.options(), opts...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(api.Close)
	return api
}

// ctx is for calls that may come after the test's own context has ended.
func (c *Cluster) ctx() context.Context { return context.WithoutCancel(c.t.Context()) }

// shownLog is how much of a node's log a failed test shows, from its end.
const shownLog = 64 << 10

func (c *Cluster) end() {
	for _, n := range c.Nodes {
		if n.proc != nil {
			n.Kill()
		}
	}
	if !c.t.Failed() {
		return
	}
	for _, n := range c.Nodes {
		log := n.Log()
		c.t.Logf("what %s printed:\n%s", n.Name, log[max(0, len(log)-shownLog):])
	}
}

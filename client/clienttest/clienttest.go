// Package clienttest gives the tests of whoever uses Keyquorum a real cluster in one line: real nodes in the test's own
// process, on loopback sockets, with everything in memory. It is ready in a fraction of a second, and gone at the end of
// the test.
//
//	cluster := clienttest.New(t)
//	token := cluster.Issue("alice", nil)
//	v, err := cluster.Client().VerifyToken(ctx, token, "")
//
// NewCluster makes one of several nodes, which a test can stop and start, to see what its service makes of that.
//
// Time is real here: a cluster's tokens last a second at least.
package clienttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/internal/seal"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// patience is how long the cluster has for what it has to do; far longer than it takes.
const patience = 30 * time.Second

// Cluster is some nodes in this process. Its methods end the test where they fail, so they are for the test's own
// goroutine.
type Cluster struct {
	t       testing.TB
	keyring *seal.Keyring
	members []*member
	client  func() *client.Client
}

// New starts a cluster of one node, ended by the test's cleanup.
func New(t testing.TB) *Cluster {
	t.Helper()
	return NewCluster(t, 1)
}

// NewCluster starts a cluster of as many nodes, an odd number of which vote, ended by the test's cleanup. Three are the
// fewest of which one can be stopped.
func NewCluster(t testing.TB, nodes int) *Cluster {
	t.Helper()
	if nodes < 1 {
		t.Fatalf("clienttest: a cluster of %d nodes", nodes)
	}
	c := &Cluster{t: t}
	keyring, err := seal.NewKeyring()
	c.must("make a keyring", err)
	c.keyring = keyring
	c.client = sync.OnceValue(func() *client.Client { return c.NewClient() })
	t.Cleanup(c.end)
	for i := range nodes {
		m := newMember(fmt.Sprintf("n%d", i+1))
		c.members = append(c.members, m)
		c.must("listen", m.listen())
	}
	c.must("found the cluster", found(c.members, keyring))
	for _, m := range c.members {
		c.must("start "+m.name, m.start(keyring))
	}
	c.await("all nodes to be ready", c.ready)
	return c
}

func (c *Cluster) must(what string, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("clienttest: %s: %v", what, err)
	}
}

// ready tells whether all nodes that run can do all that they are there for.
func (c *Cluster) ready() bool {
	return !slices.ContainsFunc(c.running(), func(m *member) bool { return m.node.Ready() != nil })
}

func (c *Cluster) running() []*member {
	return slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return !m.running() })
}

// Addrs gives the nodes' addresses, HOST:PORT, in the order in which Stop and Start count them.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, m := range c.members {
		addrs = append(addrs, m.rpc)
	}
	return addrs
}

// Client gives a client of the cluster, the same one each time, closed by the test's cleanup.
func (c *Cluster) Client() *client.Client { return c.client() }

// NewClient gives another client, with options, closed by the test's cleanup.
func (c *Cluster) NewClient(opts ...client.Option) *client.Client {
	c.t.Helper()
	made, err := client.New(c.Addrs(), opts...)
	if err != nil {
		c.t.Fatalf("clienttest: %v", err)
	}
	c.t.Cleanup(made.Close)
	return made
}

// Issue gives a token for the subject, with the claims that client.Claims takes; nil for none.
func (c *Cluster) Issue(subject string, claims any) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	req := &v1.IssueRequest{Subject: subject}
	var err error
	if claims != nil {
		if req.Claims, err = client.Claims(claims); err != nil {
			c.t.Fatalf("clienttest: issue a token for %s: %v", subject, err)
		}
	}
	res, err := c.Client().Issue(ctx, req)
	if err != nil {
		c.t.Fatalf("clienttest: issue a token for %s: %v", subject, err)
	}
	return res.GetToken()
}

// Revoke ends all tokens of the subject, and waits until all nodes that run know. Where nobody could say whether it was
// done, as when a leader falls, it is done again.
func (c *Cluster) Revoke(subject string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	res, err := c.Client().Revoke(ctx, &v1.RevokeRequest{Subject: subject})
	for ctx.Err() == nil && (errors.Is(err, client.ErrOutcomeUnknown) || errors.Is(err, client.ErrUnavailable)) {
		res, err = c.Client().Revoke(ctx, &v1.RevokeRequest{Subject: subject})
	}
	if err != nil {
		c.t.Fatalf("clienttest: revoke %s: %v", subject, err)
	}
	c.await("all nodes to know of the revocation", func() bool {
		return !slices.ContainsFunc(c.running(), func(m *member) bool { return m.node.View().Revision() < res.GetRevision() })
	})
}

// Leader waits for a leader, and gives the index of its node.
func (c *Cluster) Leader() int {
	c.t.Helper()
	leader := -1
	c.await("a leader", func() bool {
		leader = slices.IndexFunc(c.members, func(m *member) bool { return m.running() && m.node.Leading() })
		return leader >= 0
	})
	return leader
}

// Stop stops a node in good order, as when its machine is taken down; it keeps what it had, for Start.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	c.must("stop "+c.members[i].name, c.members[i].stop())
}

// Start starts a stopped node again, at its address and with what it had, and waits until it is ready and has caught up.
func (c *Cluster) Start(i int) {
	c.t.Helper()
	m := c.members[i]
	if m.running() {
		return
	}
	c.must("start "+m.name, m.listen())
	c.must("start "+m.name, m.start(c.keyring))
	c.await(m.name+" to be ready", func() bool { return m.node.Ready() == nil && c.agreed() })
}

// agreed tells whether all nodes that run have the same state.
func (c *Cluster) agreed() bool {
	running := c.running()
	return !slices.ContainsFunc(running, func(m *member) bool {
		return m.node.View().Position() != running[0].node.View().Position()
	})
}

func (c *Cluster) await(what string, ok func() bool) {
	c.t.Helper()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			c.t.Fatalf("clienttest: waited %v in vain for %s", patience, what)
		}
		<-poll.C
	}
}

// end stops all nodes at once: none waits for another.
func (c *Cluster) end() {
	var all sync.WaitGroup
	for _, m := range c.members {
		all.Go(func() {
			if err := errors.Join(m.stop(), m.close()); err != nil {
				c.t.Errorf("clienttest: stop %s: %v", m.name, err)
			}
		})
	}
	all.Wait()
}

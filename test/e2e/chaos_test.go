//go:build unix

package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/test/e2e"
)

// callers is how many verify at the same time.
const callers = 32

// watched is how many calls of each caller a phase takes at least.
func watched() int {
	if *full {
		return 200
	}
	return 20
}

// verifying has callers verify valid tokens through api, until the load is stopped. None of them may fail.
func verifying(t *testing.T, c *e2e.Cluster, api *client.Client) *e2e.Load {
	t.Helper()
	acknowledged := e2e.NewLedger()
	for i := range callers {
		if err := acknowledged.Issue(t.Context(), c.Client(), fmt.Sprintf("user-%d", i), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	tokens := acknowledged.Tokens(time.Minute)
	load := e2e.StartLoad(t, callers, func(ctx context.Context, caller, _ int) error {
		_, err := api.VerifyToken(ctx, tokens[caller], "")
		return err
	})
	load.Await(watched())
	return load
}

func TestNoVerificationFailsWhileANodeIsKilled(t *testing.T) {
	t.Parallel()
	c := e2e.Start(t, 3)
	load := verifying(t, c, c.Client())
	for _, n := range []*e2e.Node{c.Followers()[0], c.Leader()} {
		load.Phase(n.Name + " is killed")
		n.Kill()
		load.Await(watched())
		load.Phase(n.Name + " is back")
		n.Start()
		n.AwaitReady()
		load.Await(watched())
	}
	load.Stop()
}

func TestNoVerificationFailsWhileANodeHangs(t *testing.T) {
	t.Parallel()
	c := e2e.Start(t, 3)
	load := verifying(t, c, c.Client())
	for _, n := range []*e2e.Node{c.Followers()[0], c.Leader()} {
		load.Phase(n.Name + " hangs")
		n.Pause()
		load.Await(watched())
		load.Phase(n.Name + " goes on")
		n.Resume()
		n.AwaitReady()
		load.Await(watched())
	}
	load.Stop()
}

func TestNoVerificationFailsWhileANodeIsSlow(t *testing.T) {
	t.Parallel()
	c := e2e.Start(t, 3)
	var addresses []string
	var slow *e2e.Proxy
	for _, n := range c.Nodes {
		slow = e2e.NewProxy(t, n.Addr())
		addresses = append(addresses, slow.Addr)
	}
	load := verifying(t, c, c.ClientOf(addresses, client.WithoutDiscovery()))
	load.Phase("n3 answers 200 ms late")
	slow.Delay(200 * time.Millisecond)
	load.Await(watched())
	load.Phase("n3 answers at once")
	slow.Delay(0)
	load.Await(watched())
	load.Stop()
}

func TestNoVerificationFailsWhileAllNodesAreRestartedInTurn(t *testing.T) {
	t.Parallel()
	c := e2e.Start(t, 3)
	load := verifying(t, c, c.Client())
	for _, n := range c.Nodes {
		load.Phase(n.Name + " is restarted")
		n.Terminate()
		n.Start()
		n.AwaitReady()
		load.Await(watched())
	}
	load.Stop()
}

// In the end, the client knows none of the addresses that work from its start.
func TestNoVerificationFailsWhileAllAddressesChangeButOne(t *testing.T) {
	t.Parallel()
	c := e2e.Start(t, 3)
	api := c.Client()
	load := verifying(t, c, api)
	for _, n := range c.Nodes[1:] {
		load.Phase(n.Name + " moves")
		n.Terminate()
		n.Move()
		n.Start()
		n.AwaitReady()
		e2e.Await(t, "the client to learn of "+n.Name+"'s new address", func() bool { return knows(api, n) })
		load.Await(watched())
	}
	load.Phase("n1, which stayed, is killed")
	c.Nodes[0].Kill()
	load.Await(watched())
	load.Stop()
}

func knows(api *client.Client, n *e2e.Node) bool {
	for _, address := range api.Addresses() {
		if address == "https://"+n.Addr() {
			return true
		}
	}
	return false
}

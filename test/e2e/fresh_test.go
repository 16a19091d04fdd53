//go:build unix

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/e2e"
)

// bound is how old the state may be that a node verifies on, as these clusters are founded.
const bound = 5 * time.Second

// Callers ask each node directly, so nothing hides a node that cannot tell.
func TestLosingTheLeaderInterruptsNoVerificationOnAnyNode(t *testing.T) {
	c := e2e.Start(t, 5)
	token := issue(t, c.Client(), "ada")
	for round := range rounds() {
		killed := c.Leader()
		var alive []*e2e.Node
		for _, n := range c.Nodes {
			n.AwaitReady()
			if n != killed {
				alive = append(alive, n)
			}
		}
		load := e2e.StartLoad(t, 2*len(alive), func(ctx context.Context, caller, _ int) error {
			res, err := alive[caller%len(alive)].API().Verify(ctx, &v1.VerifyRequest{Token: token, Consistency: v1.VerifyRequest_BOUNDED})
			if err == nil && !res.GetValid() {
				err = fmt.Errorf("it is not valid: %s", res.GetReason())
			}
			return err
		})
		load.Await(20)
		load.Phase(fmt.Sprintf("round %d: the leader is killed", round+1))
		killed.Kill()
		c.Leader()
		load.Await(200)
		load.Stop()
		killed.Start()
	}
}

// A paused process finds, when it goes on, its state and its proof as they were. Only its clocks have gone on.
func TestANodeThatStoodStillAcceptsNothingRevokedMeanwhile(t *testing.T) {
	t.Parallel()
	clusters, turns := 1, 2
	if *full {
		clusters, turns = 5, 20
	}
	for i := range clusters {
		t.Run(fmt.Sprint("cluster ", i+1), func(t *testing.T) {
			t.Parallel()
			c := e2e.Start(t, 3)
			for turn := range turns {
				n := c.Leader()
				if turn%2 == 1 {
					n = c.Followers()[0]
				}
				standStill(t, c, n, fmt.Sprint("user-", turn))
			}
		})
	}
}

func standStill(t *testing.T, c *e2e.Cluster, n *e2e.Node, subject string) {
	t.Helper()
	token := issue(t, c.Client(), subject)
	if res, err := n.API().Verify(t.Context(), &v1.VerifyRequest{Token: token}); err != nil || !res.GetValid() {
		t.Fatalf("before: %v, %v", res, err)
	}
	n.Pause()
	paused := time.Now()
	revokeElsewhere(t, c, n, subject)
	// What counts is from when it was last heard, which was before: the revocation can be final a little earlier than this.
	e2e.Await(t, "it to have stood still for longer than its state is fresh", func() bool { return time.Since(paused) > bound })
	stood := time.Since(paused)
	n.Resume()
	refused := 0
	for range 20 {
		res, err := n.API().Verify(t.Context(), &v1.VerifyRequest{Token: token})
		switch {
		case err == nil && res.GetValid():
			t.Errorf("a node that stood still for %v accepts what was revoked meanwhile", stood)
		case err == nil || errors.Is(err, client.ErrUnavailable):
			refused++
		default:
			t.Errorf("%v", err)
		}
	}
	if refused == 0 {
		t.Error("it refused nothing")
	}
	for _, n := range c.Nodes {
		n.AwaitReady()
	}
}

// revokeElsewhere has the other nodes revoke, and returns once they say that it is final.
func revokeElsewhere(t *testing.T, c *e2e.Cluster, paused *e2e.Node, subject string) {
	t.Helper()
	var addresses []string
	for _, n := range c.Nodes {
		if n != paused {
			addresses = append(addresses, n.Addr())
		}
	}
	api := c.ClientOf(addresses, client.WithoutDiscovery())
	defer api.Close()
	e2e.Await(t, "a revocation", func() bool {
		_, err := api.Revoke(t.Context(), &v1.RevokeRequest{Subject: subject})
		return err == nil
	})
}

func issue(t *testing.T, api *client.Client, subject string) string {
	t.Helper()
	var token string
	e2e.Await(t, "a token", func() bool {
		res, err := api.Issue(t.Context(), &v1.IssueRequest{Subject: subject})
		token = res.GetToken()
		return err == nil
	})
	return token
}

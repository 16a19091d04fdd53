package sim

import (
	"context"
	"testing"
	"time"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// Leadership is handed over, twice in vain, to a member that does not answer, and then the leader is deposed. What that
// leaves in hashicorp/raft 1.8.0 (issue 696) must not keep the cluster from its writes once that node leads again: seed
// 5138 found it. The goroutines that the library leaves are why the bubble may end with some.
func TestALeaderThatHandedOverInVainDoesNotStandInTheWayLater(t *testing.T) {
	_ = bubble(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		old, silent := c.Leader(), c.Follower()
		c.Net.Hold(old.Host, silent.Host)
		old.MustIssue(t, "ada", time.Hour)
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, _ = old.Node().TransferLeadership(ctx, cluster.Caller, &v1.TransferLeadershipRequest{Node: silent.UUID})
			cancel()
		}
		c.Partition(old)
		c.Await("another to lead", func() bool { return !old.Leading() && c.Leader() != old })
		c.Heal()
		c.AwaitSettled()
		_, err := c.Leader().Node().TransferLeadership(t.Context(), cluster.Caller, &v1.TransferLeadershipRequest{Node: old.UUID})
		if err != nil {
			t.Fatal(err)
		}
		c.Await("the old leader to be Raft's leader again", func() bool {
			status, err := old.Node().Status(t.Context())
			return err == nil && status.GetLeaderId() == old.UUID
		})
		c.Await("somebody to serve", func() bool {
			for _, m := range c.Members() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, err := m.Issue(ctx, "eve", time.Hour)
				cancel()
				if err == nil {
					return true
				}
			}
			return false
		})
	})
}

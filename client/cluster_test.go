package client_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyquorum/keyquorum/client/clienttest"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// The same with real nodes, on real sockets: each is stopped in its turn, while others verify and issue.
func TestCallersOfARealClusterNoticeNoRestart(t *testing.T) {
	cluster := clienttest.NewCluster(t, 3)
	c := cluster.NewClient()
	token := cluster.Issue("alice", nil)
	var done atomic.Bool
	var calls, issued atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for !done.Load() {
				calls.Add(1)
				if _, err := c.VerifyToken(t.Context(), token, ""); err != nil {
					t.Errorf("verify: %v", err)
				}
			}
		})
	}
	all.Go(func() {
		for !done.Load() {
			issued.Add(1)
			if _, err := c.Issue(t.Context(), &v1.IssueRequest{Subject: "bob"}); err != nil {
				t.Errorf("issue: %v", err)
			}
		}
	})
	for i := range cluster.Addrs() {
		cluster.Stop(i)
		cluster.Leader()
		cluster.Start(i)
	}
	done.Store(true)
	all.Wait()
	t.Logf("%d verified, %d issued", calls.Load(), issued.Load())
}

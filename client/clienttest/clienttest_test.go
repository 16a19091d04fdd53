package clienttest_test

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/client/clienttest"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

func TestOneNodeIssuesAndVerifies(t *testing.T) {
	cluster := clienttest.New(t)
	token := cluster.Issue("alice", map[string]any{"plan": "pro"})
	v, err := cluster.Client().VerifyToken(t.Context(), token, "")
	if err != nil || v.Subject() != "alice" {
		t.Fatal(v, err)
	}
	cluster.Revoke("alice")
	_, err = cluster.Client().VerifyToken(t.Context(), token, "")
	var invalid *client.InvalidTokenError
	if !errors.As(err, &invalid) || invalid.Reason != v1.VerifyResponse_KEY_NOT_FOUND {
		t.Error(err)
	}
}

func TestAClusterGoesOnWhileANodeIsStopped(t *testing.T) {
	cluster := clienttest.NewCluster(t, 3)
	token := cluster.Issue("alice", nil)
	for range 2 { // the second round stops the one that took over
		leader := cluster.Leader()
		cluster.Stop(leader)
		if _, err := cluster.Client().VerifyToken(t.Context(), token, ""); err != nil {
			t.Errorf("with node %d stopped: %v", leader, err)
		}
		if now := cluster.Leader(); now == leader {
			t.Errorf("node %d leads and is stopped", now)
		}
		later := cluster.Issue("bob", nil)
		cluster.Start(leader)
		only, err := client.New(cluster.Addrs()[leader:leader+1], client.InOrder())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := only.VerifyToken(t.Context(), later, ""); err != nil {
			t.Errorf("at the node that came back: %v", err)
		}
		only.Close()
	}
}

func TestEvenNumbersOfNodesWork(t *testing.T) {
	cluster := clienttest.NewCluster(t, 2)
	token := cluster.Issue("alice", nil)
	cluster.Stop(1)
	if _, err := cluster.Client().VerifyToken(t.Context(), token, ""); err != nil {
		t.Error(err)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("a cluster", func(t *testing.T) {
		cluster := clienttest.NewCluster(t, 3)
		cluster.Issue("alice", nil)
		cluster.Stop(0)
	})
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; <-poll.C {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

//go:build unix

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/e2e"
)

func TestMain(m *testing.M) { os.Exit(e2e.Main(m)) }

// write has users log in, and one in three of them out and in again.
func write(t *testing.T, l *e2e.Ledger, api *client.Client, users string, count int) {
	t.Helper()
	for i := range count {
		subject := fmt.Sprintf("%s-%d", users, i)
		if err := l.Issue(t.Context(), api, subject, time.Hour); err != nil {
			t.Fatal(err)
		}
		if i%3 != 0 {
			continue
		}
		revoke(t, l, api, subject)
		if err := l.Issue(t.Context(), api, subject, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
}

// revoke asks until it is done, as a caller does to whom nobody could say so: there was no leader, or it fell.
func revoke(t *testing.T, l *e2e.Ledger, api *client.Client, subject string) {
	t.Helper()
	e2e.Await(t, "a revocation", func() bool {
		err := l.Revoke(t.Context(), api, subject)
		if err != nil && !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, client.ErrOutcomeUnknown) {
			t.Fatal(err)
		}
		return err == nil
	})
}

func TestAKilledLeaderIsReplacedAndComesBack(t *testing.T) {
	t.Parallel()
	c := e2e.Start(t, 3)
	api, acknowledged := c.Client(), e2e.NewLedger()
	write(t, acknowledged, api, "before", 30)
	killed := c.Leader()
	killed.Kill()
	acknowledged.Check(t, c.Running()...)
	write(t, acknowledged, api, "without", 30)
	acknowledged.Check(t, c.Running()...)
	killed.Start()
	killed.AwaitReady()
	acknowledged.Check(t, c.Nodes...)
}

func TestNothingIsLostWhenAllNodesAreKilled(t *testing.T) {
	t.Parallel()
	c := e2e.Start(t, 3)
	api, acknowledged := c.Client(), e2e.NewLedger()
	write(t, acknowledged, api, "before", 30)
	for _, n := range c.Nodes {
		n.Kill()
	}
	first := c.Nodes[0]
	first.Start()
	if status, err := first.Status(); err != nil || !strings.Contains(status.GetNotReadyBecause(), "no leader") {
		t.Errorf("a member that is alone is not ready because %q, %v", status.GetNotReadyBecause(), err)
	}
	for _, n := range c.Nodes[1:] {
		n.Start()
	}
	c.Leader()
	acknowledged.Check(t, c.Nodes...)
	write(t, acknowledged, api, "after", 10)
	acknowledged.Check(t, c.Nodes...)
}

func TestAnEmptiedNodeIsANewMember(t *testing.T) {
	t.Parallel()
	c := e2e.Start(t, 3)
	api, acknowledged := c.Client(), e2e.NewLedger()
	write(t, acknowledged, api, "user", 30)
	n := c.Followers()[0]
	before := n.AwaitReady().GetNode().GetNodeId()
	n.Kill()
	n.Empty()
	n.Start()
	after := n.AwaitReady().GetNode().GetNodeId()
	if after == before {
		t.Fatal("the node has its old identity")
	}
	c.AwaitVoters(3)
	for _, m := range c.Members() {
		if m.GetNodeId() == before {
			t.Errorf("the old identity is still a member: %v", m)
		}
	}
	acknowledged.Check(t, c.Nodes...)
	write(t, acknowledged, api, "later", 10)
	acknowledged.Check(t, c.Nodes...)
}

// A member that has lost its log, and might vote as if it had never voted, does not come back as who it was: not with its
// identity alone, nor with its old directory once it has joined anew.
func TestAnEmptiedNodeIsRefusedUnderItsOldIdentity(t *testing.T) {
	t.Parallel()
	c := e2e.Start(t, 3)
	api, acknowledged := c.Client(), e2e.NewLedger()
	write(t, acknowledged, api, "user", 10)
	n := c.Followers()[0]
	n.Kill()
	old := n.Dir + "-old"
	if err := os.CopyFS(old, os.DirFS(n.Dir)); err != nil {
		t.Fatal(err)
	}
	identity, err := os.ReadFile(filepath.Join(n.Dir, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	n.Empty()
	if err := os.WriteFile(filepath.Join(n.Dir, "node.json"), identity, 0o600); err != nil {
		t.Fatal(err)
	}
	if said := n.Refuses(); !strings.Contains(said, "empty the directory and let it join anew") {
		t.Errorf("with its identity alone, it says\n%s", said)
	}
	n.Empty()
	n.Start()
	n.AwaitReady()
	c.AwaitVoters(3)
	n.Kill()
	anew := n.Dir
	n.Dir = old
	n.Start()
	awaitRemoved(t, n)
	n.Kill()
	n.Dir = anew
	n.Start()
	n.AwaitReady()
	c.AwaitVoters(3)
	acknowledged.Check(t, c.Nodes...)
}

func TestARemovedNodeIsRefused(t *testing.T) {
	t.Parallel()
	c := e2e.Start(t, 3)
	api, acknowledged := c.Client(), e2e.NewLedger()
	write(t, acknowledged, api, "user", 10)
	n := c.Followers()[0]
	n.Kill()
	if _, err := c.Leader().API().Remove(t.Context(), &v1.RemoveRequest{Node: n.Name}); err != nil {
		t.Fatal(err)
	}
	n.Start()
	awaitRemoved(t, n)
	for _, m := range c.Members() {
		if m.GetName() == n.Name {
			t.Errorf("it is a member again: %v", m)
		}
	}
	n.Kill()
	acknowledged.Check(t, c.Running()...)
}

// awaitRemoved waits until a node says, in its status and in its log, that it was removed, and sees that it serves nothing.
func awaitRemoved(t *testing.T, n *e2e.Node) {
	t.Helper()
	const why = "this node was removed from its cluster: stop it, empty its data directory, and let it join as a new member"
	e2e.Await(t, n.Name+" to say that it was removed", func() bool {
		status, err := n.Status()
		return err == nil && !status.GetReady() && status.GetNotReadyBecause() == why
	})
	if !strings.Contains(n.Log(), "this node no longer serves") || !strings.Contains(n.Log(), why) {
		t.Errorf("the log of %s does not say that it was removed", n.Name)
	}
	if _, err := n.API().Issue(t.Context(), &v1.IssueRequest{Subject: "mallory"}); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("it issues: %v", err)
	}
	if _, err := n.API().VerifyToken(t.Context(), "e30.e30.c2ln", ""); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("it verifies: %v", err)
	}
}

func TestADirectoryInUseIsRefused(t *testing.T) {
	t.Parallel()
	c := e2e.Start(t, 1)
	second := c.Add()
	second.Dir = c.Nodes[0].Dir
	if said := second.Refuses(); !strings.Contains(said, "in use by process") {
		t.Errorf("it says\n%s", said)
	}
}

// A machine is cloned with its disk, and both run: whichever comes second ends, and says why.
func TestACopyOfARunningNodeEnds(t *testing.T) {
	t.Parallel()
	c := e2e.Start(t, 3)
	api, acknowledged := c.Client(), e2e.NewLedger()
	write(t, acknowledged, api, "before", 30)
	original := c.Followers()[0]
	original.Kill()
	twin := c.Add()
	if err := os.CopyFS(twin.Dir, os.DirFS(original.Dir)); err != nil {
		t.Fatal(err)
	}
	const why = "another process runs under this node's identity"
	original.Start()
	original.AwaitReady()
	if said := twin.Refuses(); !strings.Contains(said, why) {
		t.Errorf("the copy says\n%s", said)
	}
	write(t, acknowledged, api, "original", 30)
	acknowledged.Check(t, c.Running()...)
	original.Kill()
	twin.Start()
	twin.AwaitReady()
	if said := original.Refuses(); !strings.Contains(said, why) {
		t.Errorf("the original says\n%s", said)
	}
	write(t, acknowledged, api, "copy", 30)
	acknowledged.Check(t, c.Running()...)
}

func TestANodeFarBehindIsSentASnapshot(t *testing.T) {
	t.Parallel()
	c := e2e.New(t, 3)
	for _, n := range c.Nodes {
		n.Flags = []string{"--snapshot-threshold", "40", "--trailing-logs", "5", "--snapshot-interval", "1s"}
	}
	c.Found()
	api, acknowledged := c.Client(), e2e.NewLedger()
	write(t, acknowledged, api, "before", 30)
	behind := c.Followers()[0]
	behind.Kill()
	write(t, acknowledged, api, "without", 60)
	before := newestSnapshot(t, c.Leader())
	e2e.Await(t, "the log to be compacted", func() bool {
		write(t, acknowledged, api, "without", 5)
		return newestSnapshot(t, c.Leader()) > before
	})
	had := newestSnapshot(t, behind)
	behind.Start()
	acknowledged.Check(t, c.Nodes...)
	if got := newestSnapshot(t, behind); got <= had {
		t.Errorf("the newest snapshot of the node that was behind is %q, it had %q before", got, had)
	}
	behind.Kill()
	behind.Start()
	acknowledged.Check(t, c.Nodes...)
}

// newestSnapshot is the name of the last snapshot in a node's directory; names are in order of term and index.
func newestSnapshot(t *testing.T, n *e2e.Node) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(n.Dir, "snapshots", "*", "state.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1]
}

// A revocation waits for a node that stands still, and the node that was asked, whether it leads or not, is told to end
// meanwhile: it answers first.
func TestANodeThatEndsFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	for _, leads := range []bool{true, false} {
		t.Run(fmt.Sprintf("leads=%t", leads), func(t *testing.T) {
			t.Parallel()
			c := e2e.Start(t, 3)
			token := issue(t, c.Client(), "ada")
			leader, followers := c.Leader(), c.Followers()
			asked, stands := followers[0], followers[1]
			if leads {
				asked = leader
			}
			before := leader.AwaitReady().GetRevision()
			stands.Pause()
			api := c.ClientOf([]string{asked.Addr()}, client.InOrder(), client.WithoutDiscovery(), client.WithTimeout(e2e.Patience))
			revoked := make(chan error, 1)
			go func() {
				res, err := api.Revoke(t.Context(), &v1.RevokeRequest{Subject: "ada"})
				if err == nil && res.GetFinality().GetExpiredNodes() != 1 {
					err = fmt.Errorf("it did not wait: %v", res.GetFinality())
				}
				revoked <- err
			}()
			leader.AwaitRevision(before + 1)
			asked.Terminate()
			if err := <-revoked; err != nil {
				t.Errorf("the answer of the node that ended: %v", err)
			}
			if log := asked.Log(); !strings.Contains(log, "stopped in good order") || strings.Contains(log, "cut off") {
				t.Error("it does not say that it stopped in good order")
			}
			stands.Resume()
			asked.Start()
			for _, n := range c.Nodes {
				n.AwaitReady()
				if _, err := n.API().VerifyToken(t.Context(), token, ""); !errors.Is(err, client.ErrTokenKeyNotFound) {
					t.Errorf("%s: %v", n.Name, err)
				}
			}
		})
	}
}

// An upgrade: one node after another is ended in good order and started again, and no caller notices.
func TestARollingRestartFailsNoCall(t *testing.T) {
	t.Parallel()
	c := e2e.Start(t, 3)
	api, acknowledged := c.Client(), e2e.NewLedger()
	load := e2e.StartLoad(t, 8, func(ctx context.Context, caller, count int) error {
		return acknowledged.Issue(ctx, api, fmt.Sprintf("user-%d-%d", caller, count%10), time.Hour)
	})
	load.Await(10)
	for _, n := range c.Nodes {
		load.Phase(n.Name + " is restarted")
		n.Terminate()
		load.Await(5)
		n.Start()
		n.AwaitReady()
		load.Await(5)
	}
	load.Stop()
	acknowledged.Check(t, c.Nodes...)
}

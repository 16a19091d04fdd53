package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// role gives what the leader says that a member is.
func role(t *testing.T, c *cluster.Cluster, id string) v1.Member_Role {
	t.Helper()
	res, err := c.Leader().Node().Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range res.GetMembers() {
		if m.GetNodeId() == id {
			return m.GetRole()
		}
	}
	return v1.Member_ABSENT
}

func TestEveryMemberNamesItsClusterToThoseWhoAskForTheMembers(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		status, err := c.Leader().Node().Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range c.Members() {
			if res, err := m.Node().Members(t.Context()); err != nil || res.GetClusterId() == "" || res.GetClusterId() != status.GetClusterId() {
				t.Errorf("%s names cluster %q, want %q: %v", m.UUID, res.GetClusterId(), status.GetClusterId(), err)
			}
		}
	})
}

func TestAClusterGrowsToTheWantedNumberOfVoters(t *testing.T) {
	in(t, func(t *testing.T) {
		three := uint32(3)
		c := cluster.New(t, 1, cluster.Options{Settings: &v1.Settings{WantedVoters: &three}})
		second := c.Add()
		c.Await("the second to be a member", func() bool { return second.Ready() == nil })
		time.Sleep(10 * time.Second)
		if got := role(t, c, second.UUID); got != v1.Member_NON_VOTER {
			t.Errorf("the second of two is %v; two voters survive no more failures than one", got)
		}
		third, fourth := c.Add(), c.Add()
		c.AwaitSettled()
		time.Sleep(10 * time.Second)
		voters := 0
		for _, m := range []*cluster.Member{second, third, fourth} {
			if role(t, c, m.UUID) == v1.Member_VOTER {
				voters++
			}
		}
		if voters != 2 {
			t.Errorf("%d of the three that joined vote; want 2", voters)
		}
	})
}

func TestAReplicaNeverVotes(t *testing.T) {
	in(t, func(t *testing.T) {
		started := 0
		c := cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) {
			if started++; started > 3 {
				cfg.Replica = true
			}
		}})
		for _, replica := range []*cluster.Member{c.Add(), c.Add()} {
			c.Await("the replica to be a member", func() bool { return replica.Ready() == nil })
			time.Sleep(10 * time.Second)
			if got := role(t, c, replica.UUID); got != v1.Member_NON_VOTER {
				t.Errorf("the replica is %v", got)
			}
			if got := replica.MustVerify(t, c.Leader().MustIssue(t, "ada", time.Minute)); got != valid {
				t.Errorf("a token at the replica: %v", got)
			}
		}
	})
}

func TestInitFoundsOnceOnly(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		for _, m := range c.Members() {
			res, err := m.Node().Init(t.Context(), cluster.Caller, &v1.InitRequest{})
			if err != nil || !res.GetAlreadyFounded() || res.GetClusterId() != m.View().ClusterID() {
				t.Errorf("init at %s of a founded cluster: %v, %v", m.Host, res, err)
			}
		}
	})
}

func TestANodeBesideAClusterDoesNotFoundAnother(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		victim := c.Follower()
		c.Kill(victim)
		c.Empty(victim)
		c.Start(victim)
		res, err := victim.Node().Init(t.Context(), cluster.Caller, &v1.InitRequest{})
		if err == nil && res.GetClusterId() != c.Leader().View().ClusterID() {
			t.Error("an emptied node founded a second cluster")
		}
	})
}

func TestAnEmptiedNodeComesBackAsANewMember(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		token := c.Leader().MustIssue(t, "ada", time.Hour)
		victim := c.Follower()
		old := victim.UUID
		c.Kill(victim)
		c.Empty(victim)
		c.Restart(victim)
		c.Await("the emptied node to be admitted", func() bool { return victim.Ready() == nil })
		if got := victim.MustVerify(t, token); got != valid {
			t.Errorf("the new member: %v", got)
		}
		if got := role(t, c, old); got != v1.Member_ABSENT {
			t.Errorf("the old identity is still %v", got)
		}
		c.AwaitSettled()
		if got := role(t, c, victim.UUID); got != v1.Member_VOTER {
			t.Errorf("the new member is %v", got)
		}
	})
}

func TestARemovedMemberDoesNotComeBack(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		victim := c.Follower()
		if _, err := c.Leader().Node().Remove(t.Context(), cluster.Caller, &v1.RemoveRequest{Node: victim.Host}); err != nil {
			t.Fatal(err)
		}
		c.Kill(victim)
		c.Restart(victim)
		c.Await("the removed node to learn it", func() bool { return errors.Is(victim.Ready(), fault.ErrRemoved) })
		if got := role(t, c, victim.UUID); got != v1.Member_ABSENT {
			t.Errorf("the removed node is %v", got)
		}
		if _, err := victim.Verify(t.Context(), "token"); !errors.Is(err, fault.ErrRemoved) {
			t.Errorf("a removed node judges tokens: %v", err)
		}
		if _, err := victim.Issue(t.Context(), "ada", time.Minute); !errors.Is(err, fault.ErrRemoved) {
			t.Errorf("a removed node takes writes: %v", err)
		}
	})
}

func TestTheLastVoterStays(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 1, cluster.Options{})
		if _, err := c.Leader().Node().TransferLeadership(t.Context(), cluster.Caller, &v1.TransferLeadershipRequest{}); !isInvalid(err, "node") {
			t.Errorf("leadership is handed to nobody: %v", err)
		}
		if _, err := c.Leader().Node().Remove(t.Context(), cluster.Caller, &v1.RemoveRequest{Node: "n1"}); !errors.Is(err, fault.ErrLastVoter) {
			t.Errorf("got %v", err)
		}
	})
}

func TestALeaderThatResignsIsGoneForGood(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		old := c.Leader()
		ctx, cancel := context.WithTimeout(t.Context(), cluster.Patience)
		defer cancel()
		c.Await("the leader to resign", func() bool { return old.Node().Resign(ctx) == nil })
		c.Kill(old)
		if got := role(t, c, old.UUID); got != v1.Member_ABSENT {
			t.Errorf("the node that resigned is %v", got)
		}
		c.Leader().MustIssue(t, "ada", time.Minute)
	})
}

func TestANodeWithAnotherKeyringStops(t *testing.T) {
	in(t, func(t *testing.T) {
		other, err := seal.NewKeyring()
		if err != nil {
			t.Fatal(err)
		}
		started := 0
		c := cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) {
			if started++; started == 4 {
				cfg.Keyring = other
			}
		}})
		stranger := c.Add()
		if err := stranger.Ended(); !errors.Is(err, fault.ErrKeyring) {
			t.Errorf("it ended with %v", err)
		}
		if got := role(t, c, stranger.UUID); got != v1.Member_ABSENT {
			t.Errorf("it was admitted as %v", got)
		}
	})
}

func TestLeadershipGoesWhereItIsAskedTo(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		to := c.Follower()
		res, err := to.Node().TransferLeadership(t.Context(), cluster.Caller, &v1.TransferLeadershipRequest{Node: to.Host})
		if err != nil || res.GetLeaderId() != to.UUID {
			t.Fatalf("%v, %v; want leader %s", res, err, to.UUID)
		}
		c.Await("it to lead", to.Leading)
		if _, err := to.Node().TransferLeadership(t.Context(), cluster.Caller, &v1.TransferLeadershipRequest{Node: "nobody"}); !errors.Is(err, fault.ErrNoSuchMember) {
			t.Errorf("to nobody: %v", err)
		}
	})
}

func TestANewcomerWhoseAdmissionWasLostIsAdmitted(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		old := c.Leader()
		token := old.MustIssue(t, "ada", time.Hour)
		newcomer := c.Prepare()
		c.Partition(old, newcomer)
		c.Start(newcomer)
		c.Await("the old leader to give up", func() bool { return !old.Leading() })
		c.Kill(old)
		c.Heal()
		c.Await("the newcomer to be admitted after all", func() bool { return newcomer.Ready() == nil })
		c.AwaitAgreed()
		if got := newcomer.MustVerify(t, token); got != valid {
			t.Errorf("at the newcomer: %v", got)
		}
	})
}

func TestOfSeveralInitsAtOnceOneFounds(t *testing.T) {
	for seed := range 30 {
		in(t, func(t *testing.T) {
			c := cluster.New(t, 3, cluster.Options{Unfounded: true})
			founded := make(chan string, 3)
			for i, m := range c.Members() {
				go func() {
					time.Sleep(time.Duration(seed*i) * time.Millisecond)
					res, err := m.Node().Init(t.Context(), cluster.Caller, &v1.InitRequest{})
					if err != nil && !errors.Is(err, fault.ErrNotFounded) {
						t.Errorf("init at %s: %v", m.Host, err)
					}
					founded <- res.GetClusterId()
				}()
			}
			ids := make(map[string]bool)
			for range 3 {
				if id := <-founded; id != "" {
					ids[id] = true
				}
			}
			if len(ids) != 1 {
				t.Fatalf("%d clusters were founded, want 1", len(ids))
			}
			c.AwaitSettled()
			for _, m := range c.Members() {
				if !ids[m.View().ClusterID()] {
					t.Errorf("%s is in cluster %q, founded were %v", m.Host, m.View().ClusterID(), ids)
				}
			}
		})
	}
}

func TestNoRemovalCostsTheQuorum(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 5, cluster.Options{})
		var lost, alive []*cluster.Member
		for _, m := range c.Members() {
			switch {
			case m.Leading():
			case len(lost) < 2:
				lost = append(lost, m)
			default:
				alive = append(alive, m)
			}
		}
		for _, m := range lost {
			c.Kill(m)
		}
		remove := func(m *cluster.Member) error {
			_, err := c.Leader().Node().Remove(t.Context(), cluster.Caller, &v1.RemoveRequest{Node: m.UUID})
			return err
		}
		if err := remove(alive[0]); !errors.Is(err, fault.ErrQuorumAtRisk) || !strings.Contains(err.Error(), lost[0].Host) {
			t.Errorf("removal of a voter that is needed: %v", err)
		}
		if err := remove(c.Leader()); !errors.Is(err, fault.ErrQuorumAtRisk) {
			t.Errorf("removal of the leader, which is needed: %v", err)
		}
		if err := remove(lost[0]); err != nil {
			t.Errorf("removal of a voter that is lost: %v", err)
		}
		if err := remove(lost[1]); err != nil {
			t.Errorf("removal of the other: %v", err)
		}
		if err := remove(alive[0]); err != nil {
			t.Errorf("removal of a voter that is needed no more: %v", err)
		}
		c.Leader().MustIssue(t, "ada", time.Minute)
	})
}

func TestFewerVotersAreWantedWhileSomeAreGone(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 5, cluster.Options{})
		killed := 0
		for _, m := range c.Members() {
			if !m.Leading() && killed < 2 {
				c.Kill(m)
				killed++
			}
		}
		three := uint32(3)
		_, err := c.Leader().Node().UpdateSettings(t.Context(), cluster.Caller, &v1.UpdateSettingsRequest{Settings: &v1.Settings{WantedVoters: &three}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		token := c.Leader().MustIssue(t, "ada", time.Minute)
		if got := c.Follower().MustVerify(t, token); got != valid {
			t.Errorf("with three of five up: %v", got)
		}
		for _, m := range c.Members() {
			if !slices.Contains(c.Running(), m) {
				c.Restart(m)
			}
		}
		c.Await("two of five to be voters no more", func() bool {
			voters := 0
			for _, m := range c.Members() {
				if role(t, c, m.UUID) == v1.Member_VOTER {
					voters++
				}
			}
			return voters == 3
		})
	})
}

func TestANodeThatCannotSeeWhetherThereIsAClusterFoundsNone(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		emptied := c.Follower()
		c.Kill(emptied)
		c.Empty(emptied)
		c.Partition(emptied)
		c.Start(emptied)
		if res, err := emptied.Node().Init(t.Context(), cluster.Caller, &v1.InitRequest{}); !errors.Is(err, fault.ErrNotFounded) {
			t.Errorf("init while nobody answers: %v, %v", res, err)
		}
		c.Heal()
		c.AwaitSettled()
		if got, want := emptied.View().ClusterID(), c.Leader().View().ClusterID(); got != want {
			t.Errorf("it is in cluster %q, not %q", got, want)
		}
	})
}

// A follower has one entry behind the snapshot that it was sent, which is lost, and so does not have the snapshot's
// last entry in its log.
func TestAFollowerWhoseLogBeginsBehindItsSnapshotGoesOn(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 5, cluster.Options{Config: func(cfg *node.Config) {
			cfg.SnapshotThreshold, cfg.SnapshotInterval, cfg.TrailingLogs = 20, time.Second, 4
		}})
		leader, follower := c.Leader(), c.Follower()
		c.Kill(follower)
		end := issueUntilASnapshotEndsTheLog(t, leader)
		c.Start(follower)
		c.Await("the follower to install the snapshot", func() bool {
			metas, err := follower.Snapshots.List()
			return err == nil && len(metas) > 0 && metas[0].Index == end && follower.View().Position() == leader.View().Position()
		})
		c.Partition(leader, follower)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := leader.Issue(ctx, "lost", time.Hour); err == nil {
			t.Error("two of five committed")
		}
		c.Kill(leader)
		c.Heal()
		c.Leader().MustIssue(t, "zoe", time.Hour)
		c.AwaitAgreed()
		c.Await("the follower to be fresh", func() bool { return follower.Ready() == nil })
	})
}

func issueUntilASnapshotEndsTheLog(t *testing.T, leader *cluster.Member) uint64 {
	t.Helper()
	for i := range 200 {
		leader.MustIssue(t, fmt.Sprintf("user-%d", i), time.Hour)
		if i < 40 {
			continue
		}
		time.Sleep(4 * time.Second)
		metas, err := leader.Snapshots.List()
		if err != nil {
			t.Fatal(err)
		}
		if last, err := leader.Logs.LastIndex(); err == nil && len(metas) > 0 && metas[0].Index == last {
			return last
		}
	}
	t.Fatal("no snapshot ended where the log did")
	return 0
}

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
	"github.com/keyquorum/keyquorum/rpc"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
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
		c.Await("the removed node to learn it", func() bool { return errors.Is(victim.Ready(), fault.ErrNoSuchMember) })
		if got := role(t, c, victim.UUID); got != v1.Member_ABSENT {
			t.Errorf("the removed node is %v", got)
		}
		if _, err := victim.Verify(t.Context(), "token"); err == nil {
			t.Error("a removed node judges tokens")
		}
	})
}

func TestTheLastVoterStays(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 1, cluster.Options{})
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

func TestAnOverheardProofMovesNobody(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		victim := c.Follower()
		member, _ := c.Leader().View().Member(victim.UUID)
		proof, err := c.Keyring.Prove("join", fmt.Sprintf("%q %q %q", member.ID, member.RaftAddress, member.RPCAddress))
		if err != nil {
			t.Fatal(err)
		}
		req := &peerv1.JoinRequest{Member: rpc.MemberMessage(member), KeyringProof: proof, WasMember: true}
		if _, err := c.Leader().Node().Join(t.Context(), req); err != nil {
			t.Errorf("the member itself: %v", err)
		}
		req.Member.RaftAddress = "elsewhere:7401"
		if _, err := c.Leader().Node().Join(t.Context(), req); !errors.Is(err, fault.ErrKeyring) {
			t.Errorf("the same proof for another address: %v", err)
		}
	})
}

// Without the greeting on Raft's connections, the emptied node would vote for the one that missed the write.
func TestAnEmptiedNodeDoesNotVoteAsWhoItWas(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		a := c.Leader()
		var others []*cluster.Member
		for _, m := range c.Members() {
			if m != a {
				others = append(others, m)
			}
		}
		b, missing := others[0], others[1]
		c.Partition(missing)
		token := a.MustIssue(t, "ada", time.Hour)
		c.Kill(a)
		c.Kill(b)
		c.Empty(b)
		c.Restart(b)
		c.Heal()
		time.Sleep(30 * time.Second)
		if missing.Leading() || b.Leading() {
			t.Error("a node leads that one voter of three stands behind")
		}
		c.Restart(a)
		c.Await("the emptied node to be admitted", func() bool { return b.Ready() == nil })
		c.AwaitAgreed()
		for _, m := range c.Members() {
			if got := m.MustVerify(t, token); got != valid {
				t.Errorf("an acknowledged token at %s: %v", m.Host, got)
			}
		}
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

func TestNobodyIsEvictedByWhoeverNamesItsAddress(t *testing.T) {
	for _, reachable := range []bool{true, false} {
		t.Run(fmt.Sprintf("reachable=%v", reachable), func(t *testing.T) {
			in(t, func(t *testing.T) {
				c := cluster.New(t, 3, cluster.Options{})
				victim, newcomer := c.Follower(), c.Add()
				record, _ := c.Leader().View().Member(victim.UUID)
				if !reachable {
					c.Partition(victim)
				}
				member := fsm.Member{ID: newcomer.UUID, Name: "n4", RPCAddress: "n4:7400", RaftAddress: record.RaftAddress, Format: fsm.Format}
				proof, err := c.Keyring.Prove("join", fmt.Sprintf("%q %q %q", member.ID, member.RaftAddress, member.RPCAddress))
				if err != nil {
					t.Fatal(err)
				}
				_, err = c.Leader().Node().Join(t.Context(), &peerv1.JoinRequest{Member: rpc.MemberMessage(member), KeyringProof: proof})
				if _, ok := errors.AsType[*fault.InvalidError](err); !ok {
					t.Errorf("a node that names a voter's address: %v", err)
				}
				if got := role(t, c, victim.UUID); got != v1.Member_VOTER {
					t.Errorf("the voter whose address it named is %v", got)
				}
			})
		})
	}
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

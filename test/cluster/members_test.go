package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
	"github.com/keyquorum/keyquorum/rpc"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1/peerv1connect"
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

// joinRequest is what the member of that record sends the leader.
func joinRequest(t *testing.T, c *cluster.Cluster, member fsm.Member) *peerv1.JoinRequest {
	t.Helper()
	res, err := c.Leader().Node().Challenge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%q %q %q %q %q %q %d %t %x", member.ID, member.Name, member.Region, member.RPCAddress,
		member.RaftAddress, member.Version, member.Format, member.Replica, res.GetChallenge())
	proof, err := c.Keyring.Prove("join", text)
	if err != nil {
		t.Fatal(err)
	}
	return &peerv1.JoinRequest{Member: rpc.MemberMessage(member), Challenge: res.GetChallenge(), KeyringProof: proof}
}

func TestAnOverheardProofMovesNobody(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		member, _ := c.Leader().View().Member(c.Follower().UUID)
		req := joinRequest(t, c, member)
		if _, err := c.Leader().Node().Join(t.Context(), req); err != nil {
			t.Errorf("the member itself: %v", err)
		}
		for what, change := range map[string]func(*v1.Member){
			"address": func(m *v1.Member) { m.RaftAddress = "elsewhere:7401" },
			"format":  func(m *v1.Member) { m.Format = 99 },
			"replica": func(m *v1.Member) { m.Replica = true },
		} {
			other := &peerv1.JoinRequest{Member: rpc.MemberMessage(member), Challenge: req.GetChallenge(), KeyringProof: req.GetKeyringProof()}
			change(other.GetMember())
			if res, err := c.Leader().Node().Join(t.Context(), other); err != nil || !res.GetOtherKeyring() {
				t.Errorf("the same proof for another %s: %v, %v", what, res, err)
			}
		}
		time.Sleep(time.Minute)
		if _, err := c.Leader().Node().Join(t.Context(), req); !errors.Is(err, fault.ErrChallenge) {
			t.Errorf("the same request a minute later: %v", err)
		}
		forged := joinRequest(t, c, member)
		forged.Challenge[3] ^= 1
		if _, err := c.Leader().Node().Join(t.Context(), forged); !errors.Is(err, fault.ErrChallenge) {
			t.Errorf("with a challenge that nobody gave: %v", err)
		}
	})
}

func isInvalid(err error, field string) bool {
	invalid, ok := errors.AsType[*fault.InvalidError](err)
	return ok && invalid.Field == field
}

func TestWhoWasRemovedIsNotTakenInAgain(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 4, cluster.Options{})
		victim := c.Follower()
		member, _ := c.Leader().View().Member(victim.UUID)
		replayed := joinRequest(t, c, member)
		if _, err := c.Leader().Node().Remove(t.Context(), cluster.Caller, &v1.RemoveRequest{Node: victim.UUID}); err != nil {
			t.Fatal(err)
		}
		if res, err := c.Leader().Node().Join(t.Context(), replayed); err != nil || !res.GetRemoved() {
			t.Errorf("the join of a member that was removed, again: %v, %v", res, err)
		}
		c.Await("the removed node to say so", func() bool { return errors.Is(victim.Ready(), fault.ErrRemoved) })
		if got := role(t, c, victim.UUID); got != v1.Member_ABSENT {
			t.Errorf("it is %v", got)
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
				if _, err := c.Leader().Node().Join(t.Context(), joinRequest(t, c, member)); !isInvalid(err, "member.raftAddress") {
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

func TestMembersThatAllMovedFindEachOther(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		token := c.Leader().MustIssue(t, "ada", time.Hour)
		c.AwaitAgreed()
		for _, m := range c.Members() {
			c.Kill(m)
		}
		for _, m := range c.Members() {
			c.Move(m, "moved-"+m.Host)
			c.Restart(m)
		}
		c.AwaitSettled()
		for _, m := range c.Members() {
			record, _ := c.Leader().View().Member(m.UUID)
			if want := m.Host + ":7401"; record.RaftAddress != want {
				t.Errorf("the record of %s says %s, want %s", m.Host, record.RaftAddress, want)
			}
			if got := m.MustVerify(t, token); got != valid {
				t.Errorf("at %s: %v", m.Host, got)
			}
		}
		c.Leader().MustIssue(t, "bob", time.Hour)
	})
}

// A machine is cloned with its disk, and both run.
func TestACopyOfARunningMemberEnds(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		for _, original := range []*cluster.Member{c.Follower(), c.Leader()} {
			twin := c.Prepare()
			twin.UUID = original.UUID
			c.Start(twin)
			if err := twin.Ended(); !errors.Is(err, fault.ErrTwin) {
				t.Errorf("a copy of %s ends with %v, want %v", original.Host, err, fault.ErrTwin)
			}
			if record, _ := c.Leader().View().Member(original.UUID); record.RPCAddress != original.Host+":7400" {
				t.Errorf("the record of %s says %s", original.Host, record.RPCAddress)
			}
			c.Leader().MustIssue(t, "ada", time.Hour)
			if err := original.Ready(); err != nil {
				t.Error(err)
			}
		}
	})
}

// An address pool gives the machines each other's addresses.
func TestMembersThatExchangedAddressesFindEachOther(t *testing.T) {
	for _, moved := range []int{2, 3} {
		in(t, func(t *testing.T) {
			c := cluster.New(t, 3, cluster.Options{})
			token := c.Leader().MustIssue(t, "ada", time.Hour)
			c.AwaitAgreed()
			members := c.Members()
			var hosts []string
			for _, m := range members {
				c.Kill(m)
				hosts = append(hosts, m.Host)
			}
			for i, m := range members[:moved] {
				c.Move(m, hosts[(i+1)%moved])
			}
			for _, m := range members {
				c.Restart(m)
			}
			c.AwaitSettled()
			c.Await("the records to be true", func() bool {
				for _, m := range members {
					if record, _ := c.Leader().View().Member(m.UUID); record.RaftAddress != m.Host+":7401" {
						return false
					}
				}
				return true
			})
			for _, m := range members {
				if got := m.MustVerify(t, token); got != valid {
					t.Errorf("at %s: %v", m.Host, got)
				}
				m.MustIssue(t, "bob", time.Hour)
			}
			newcomer := c.Add()
			c.Await("a newcomer to be admitted", func() bool { return newcomer.Ready() == nil })
		})
	}
}

// A vote that is remembered by an address would be given to both, in one term.
func TestMembersThatExchangedAddressesDoNotShareAVote(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) {
			if cfg.Name == "n3" { // it votes, and does not stand
				cfg.Timing.Heartbeat, cfg.Timing.Lease = 20*time.Second, 200*time.Millisecond
			}
		}})
		b, a, voter := c.Members()[0], c.Members()[1], c.Members()[2]
		term := leaderTerm(t, b)
		c.Net.Delay(a.Host, voter.Host, 60*time.Millisecond)
		c.Kill(voter)
		c.Kill(b)
		c.Restart(voter)
		c.Await("the second to win", func() bool {
			status, err := a.Node().Status(t.Context())
			return err == nil && status.GetLeaderId() == a.UUID
		})
		won := leaderTerm(t, a)
		if won != term+1 {
			t.Fatalf("the second won in term %d, not in %d: the test shows nothing", won, term+1)
		}
		c.Net.Cut(a.Host, voter.Host) // nothing that it writes gets there
		c.Kill(a)
		c.Heal()
		hostA, hostB := a.Host, b.Host
		c.Move(a, hostB)
		c.Move(b, hostA)
		c.Net.Delay(b.Host, voter.Host, 0)
		c.Restart(b)
		if got := leaderTerm(t, c.Leader()); got <= won {
			t.Errorf("another leads in term %d, which was won before", got)
		}
	})
}

// rogue answers whoever asks to join, and holds no keyring.
type rogue struct {
	peerv1connect.UnimplementedPeerServiceHandler
	answer func() (*connect.Response[peerv1.JoinResponse], error)
}

func (rogue) Challenge(context.Context, *connect.Request[peerv1.ChallengeRequest]) (*connect.Response[peerv1.ChallengeResponse], error) {
	return connect.NewResponse(&peerv1.ChallengeResponse{Challenge: []byte("x")}), nil
}

func (r rogue) Join(context.Context, *connect.Request[peerv1.JoinRequest]) (*connect.Response[peerv1.JoinResponse], error) {
	return r.answer()
}

// serve runs the rogue at a host's RPC address.
func (r rogue) serve(t *testing.T, c *cluster.Cluster, host string) {
	t.Helper()
	l, err := c.Net.Listen(host + ":7400")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(peerv1connect.NewPeerServiceHandler(r))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: mux, Protocols: protocols}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

func TestNobodyIsTalkedOutOfItsCluster(t *testing.T) {
	for what, answer := range map[string]func() (*connect.Response[peerv1.JoinResponse], error){
		"you were removed": func() (*connect.Response[peerv1.JoinResponse], error) {
			return connect.NewResponse(&peerv1.JoinResponse{Removed: true}), nil
		},
		"not found": func() (*connect.Response[peerv1.JoinResponse], error) {
			return nil, connect.NewError(connect.CodeNotFound, errors.New("no"))
		},
		"your keyring is wrong": func() (*connect.Response[peerv1.JoinResponse], error) {
			return connect.NewResponse(&peerv1.JoinResponse{OtherKeyring: true}), nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			in(t, func(t *testing.T) {
				c := cluster.New(t, 3, cluster.Options{})
				c.AwaitAgreed()
				rogue{answer: answer}.serve(t, c, c.Prepare().Host) // only discovery tells of it
				c.Kill(c.Leader())
				c.Partition(c.Running()[0])
				time.Sleep(5 * time.Second) // without a leader they ask everybody
				c.Heal()
				c.Await("those left to serve", func() bool {
					return !slices.ContainsFunc(c.Running(), func(m *cluster.Member) bool { return m.Ready() != nil })
				})
				c.Leader().MustIssue(t, "ada", time.Minute)
			})
		})
	}
}

// A record that the state refuses leaves nothing behind that would block the address.
func TestARefusedNewcomerLeavesItsAddressFree(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		bad := fsm.Member{ID: "ghost", Name: strings.Repeat("x", 300), RPCAddress: "n4:7400", RaftAddress: "n4:7401", Format: fsm.Format}
		if _, err := c.Leader().Node().Join(t.Context(), joinRequest(t, c, bad)); err == nil {
			t.Error("a record with an endless name was taken")
		}
		newcomer := c.Add() // n4
		c.Await("it to be admitted", func() bool { return newcomer.Ready() == nil })
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
		if err := follower.Ready(); err != nil {
			t.Errorf("the follower: %v", err)
		}
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

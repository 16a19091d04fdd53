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
	"github.com/keyquorum/keyquorum/node"
	"github.com/keyquorum/keyquorum/rpc"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1/peerv1connect"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// Who a node is, where it is, and whom it believes: moves, exchanged addresses, copies, proofs and rogues.

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

func TestNobodyIsEvictedByWhoeverNamesItsAddress(t *testing.T) {
	for _, reachable := range []bool{true, false} {
		t.Run(fmt.Sprintf("reachable=%v", reachable), func(t *testing.T) {
			in(t, func(t *testing.T) {
				c := cluster.New(t, 3, cluster.Options{})
				victim, newcomer := c.Follower(), c.Prepare() // which does not join by itself meanwhile
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

// The log can hold what all members of a version to come read, and a newcomer of this one does not. Nobody is taken in, or
// recorded, below that.
func TestWhoCannotReadTheLogIsNotTakenIn(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 1, cluster.Options{})
		newer, _ := c.Leader().View().Member(c.Leader().UUID)
		newer.Format = fsm.Format + 1
		if _, err := c.Leader().Node().Join(t.Context(), joinRequest(t, c, newer)); err != nil {
			t.Fatal(err)
		}
		older := fsm.Member{ID: "older", Name: "older", RPCAddress: "n2:7400", RaftAddress: "n2:7401", Format: fsm.Format}
		if _, err := c.Leader().Node().Join(t.Context(), joinRequest(t, c, older)); !isInvalid(err, "member.format") {
			t.Errorf("a member that reads up to format %d: %v", older.Format, err)
		}
		newcomer := c.Add()
		time.Sleep(time.Minute)
		if newcomer.View().Founded() || role(t, c, newcomer.UUID) != v1.Member_ABSENT {
			t.Error("the newcomer was taken in")
		}
		if now, _ := c.Leader().View().Member(newer.ID); now != newer {
			t.Errorf("the member's record has become %+v", now)
		}
		older.Format = newer.Format
		if _, err := c.Leader().Node().Join(t.Context(), joinRequest(t, c, older)); err != nil {
			t.Errorf("one that reads the log: %v", err)
		}
	})
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

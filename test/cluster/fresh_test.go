package cluster_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

const (
	bound  = 5 * time.Second // fsm.DefaultSettings().MaxStaleness
	window = bound + bound/4
)

func TestARevocationIsFinalOnAllNodesAtOnce(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 5, cluster.Options{})
		for _, at := range c.Members() {
			token := at.MustIssue(t, "ada", time.Hour)
			start := time.Now()
			res, err := at.Revoke(t.Context(), "ada")
			took := time.Since(start)
			if err != nil || res.GetFinality().GetAppliedNodes() != 5 || res.GetFinality().GetExpiredNodes() != 0 {
				t.Errorf("at %s: %v, %v", at.Host, res, err)
			}
			if took > 10*time.Millisecond { // an idle leader tells of commits every 50 to 100 ms
				t.Errorf("at %s it took %v", at.Host, took)
			}
			for _, m := range c.Members() {
				if got := m.MustVerify(t, token); got != v1.VerifyResponse_KEY_NOT_FOUND {
					t.Errorf("revoked at %s, %s says %v", at.Host, m.Host, got)
				}
			}
		}
	})
}

// whileCutOff has the leader's side revoke a token while others are cut off from it, and watches what these say all the
// while, step by step.
func whileCutOff(t *testing.T, c *cluster.Cluster, cut []*cluster.Member, end func(leader *cluster.Member) (*v1.Finality, error)) {
	t.Helper()
	leader := c.Leader()
	token := leader.MustIssue(t, "ada", time.Hour)
	for _, m := range c.Members() {
		if got := m.MustVerify(t, token); got != valid {
			t.Fatalf("%s says %v", m.Host, got)
		}
	}
	c.Partition(cut...)
	gone := time.Now()
	var mu sync.Mutex
	var acknowledged time.Time
	accepted := 0
	done := make(chan struct{})
	var watchers sync.WaitGroup
	for _, m := range cut {
		watchers.Go(func() {
			for {
				start := time.Now()
				res, err := m.Verify(context.Background(), token)
				mu.Lock()
				late := !acknowledged.IsZero() && start.After(acknowledged)
				if err == nil && res.GetValid() {
					accepted++
				}
				mu.Unlock()
				if late && err == nil && res.GetValid() {
					t.Errorf("%s accepted the token %v after the revocation had returned", m.Host, start.Sub(acknowledged))
				}
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
	time.Sleep(time.Second)
	finality, err := end(leader)
	mu.Lock()
	acknowledged = time.Now()
	mu.Unlock()
	// The last question that the leader heard from them was up to a round before they were gone.
	if took := acknowledged.Sub(gone); err != nil || int(finality.GetExpiredNodes()) != len(cut) || took <= window-bound/4 || took > window+100*time.Millisecond {
		t.Errorf("it was done %v after they were cut off: %v, %v", took, finality, err)
	}
	time.Sleep(time.Second)
	c.Heal()
	time.Sleep(10 * time.Second)
	close(done)
	watchers.Wait()
	if accepted == 0 {
		t.Error("those that were cut off accepted nothing from the start: the test shows nothing")
	}
	for _, m := range c.Members() {
		if got := m.MustVerify(t, token); got != v1.VerifyResponse_KEY_NOT_FOUND {
			t.Errorf("once healed, %s says %v", m.Host, got)
		}
	}
}

func TestARevocationHoldsAlsoWhereItCannotBeHeard(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 5, cluster.Options{})
		cut := c.Followers()[:2]
		whileCutOff(t, c, cut, func(leader *cluster.Member) (*v1.Finality, error) {
			res, err := leader.Revoke(context.Background(), "ada")
			return res.GetFinality(), err
		})
		whileCutOff(t, c, cut[:1], func(leader *cluster.Member) (*v1.Finality, error) {
			res, err := leader.Node().Delete(context.Background(), cluster.Caller, &v1.DeleteRequest{Subject: "ada"})
			return res.GetFinality(), err
		})
	})
}

// Replicas verify like the others, so they are waited for like the others.
func TestARevocationWaitsForAReplica(t *testing.T) {
	in(t, func(t *testing.T) {
		three := uint32(3)
		c := cluster.New(t, 5, cluster.Options{
			Settings: &v1.Settings{WantedVoters: &three},
			Config:   func(cfg *node.Config) { cfg.Replica = cfg.Name == "n4" || cfg.Name == "n5" },
		})
		replicas := c.Members()[3:]
		for _, m := range replicas {
			if record, ok := c.Leader().View().Member(m.UUID); !ok || !record.Replica {
				t.Fatalf("%s is no replica: %+v", m.Host, record)
			}
		}
		whileCutOff(t, c, replicas[:1], func(leader *cluster.Member) (*v1.Finality, error) {
			res, err := leader.Revoke(context.Background(), "ada")
			return res.GetFinality(), err
		})
		far := replicas[1]
		for _, m := range c.Members() {
			if m != far {
				c.Net.Delay(far.Host, m.Host, 200*time.Millisecond)
			}
		}
		token := c.Leader().MustIssue(t, "eve", time.Hour)
		time.Sleep(time.Second)
		res, err := c.Leader().Revoke(t.Context(), "eve")
		if err != nil || res.GetFinality().GetAppliedNodes() != 5 {
			t.Errorf("%v, %v", res, err)
		}
		if got := far.MustVerify(t, token); got != v1.VerifyResponse_KEY_NOT_FOUND {
			t.Errorf("revoked, and a replica that is far away says %v", got)
		}
	})
}

// One caller gives up a revocation early, and another asks again: it finds it done, and must not take that for final.
func TestARevocationThatWasDoneAlreadyWaitsAsWell(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 5, cluster.Options{})
		leader, cut := c.Leader(), c.Follower()
		token := leader.MustIssue(t, "ada", time.Hour)
		c.AwaitAgreed()
		if got := cut.MustVerify(t, token); got != valid {
			t.Fatal(got)
		}
		c.Partition(cut)
		gone := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := leader.Node().Delete(ctx, cluster.Caller, &v1.DeleteRequest{Subject: "ada"}); !errors.Is(err, fault.ErrOutcomeUnknown) {
			t.Errorf("a deletion that was given up: %v", err)
		}
		if got := cut.MustVerify(t, token); got != valid {
			t.Errorf("the node that has not heard of it says %v", got)
		}
		_, err := leader.Node().Delete(t.Context(), cluster.Caller, &v1.DeleteRequest{Subject: "ada"})
		if took := time.Since(gone); !errors.Is(err, &fsm.Refusal{Code: fsm.CodeUnknownSubject}) || took <= window-bound/4 {
			t.Errorf("again: %v after %v", err, took)
		}
		if res, err := cut.Verify(t.Context(), token); !errors.Is(err, fault.ErrStale) {
			t.Errorf("%v, %v", res, err)
		}
	})
}

// Who has been away for longer than anybody can be fresh costs no revocation any time, until there is another leader: that
// one does not know for how long.
func TestAMemberThatHasBeenAwayForLongIsNotWaitedFor(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 5, cluster.Options{})
		leader, away := c.Leader(), c.Follower()
		revoke := func(leader *cluster.Member) (time.Duration, *v1.Finality) {
			t.Helper()
			token := leader.MustIssue(t, "ada", time.Hour)
			start := time.Now()
			res, err := leader.Revoke(t.Context(), "ada")
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range c.Members() {
				if res, err := m.Verify(t.Context(), token); err == nil && res.GetValid() {
					t.Errorf("%s accepts what was revoked", m.Host)
				}
			}
			return time.Since(start), res.GetFinality()
		}
		c.Partition(away)
		time.Sleep(window + time.Second)
		if took, f := revoke(leader); took > 100*time.Millisecond || f.GetAppliedNodes() != 4 || f.GetExpiredNodes() != 1 {
			t.Errorf("it took %v: %v", took, f)
		}
		next := c.Followers()[0]
		if next == away {
			next = c.Followers()[1]
		}
		if _, err := leader.Node().TransferLeadership(t.Context(), cluster.Caller, &v1.TransferLeadershipRequest{Node: next.Host}); err != nil {
			t.Fatal(err)
		}
		c.Await("the new leader", func() bool { return c.Leader() == next })
		if took, f := revoke(next); took < bound || took > window+time.Second || f.GetExpiredNodes() != 1 {
			t.Errorf("with a new leader it took %v: %v", took, f)
		}
		if took, f := revoke(next); took > 100*time.Millisecond || f.GetExpiredNodes() != 1 {
			t.Errorf("once that has led for long enough it took %v: %v", took, f)
		}
		c.Heal()
		c.Await("all to be fresh", func() bool {
			_, f := revoke(next)
			return f.GetAppliedNodes() == 5 && f.GetExpiredNodes() == 0
		})
	})
}

func TestALeaderThatIsCutOffNeverSaysThatARevocationIsFinal(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 5, cluster.Options{})
		old := c.Leader()
		token := old.MustIssue(t, "ada", time.Hour)
		c.AwaitAgreed()
		c.Partition(old)
		if res, err := old.Revoke(t.Context(), "ada"); err == nil {
			t.Errorf("%v", res)
		}
		if got := old.MustVerify(t, token); got != valid {
			t.Errorf("what was not revoked: %v", got)
		}
		time.Sleep(bound)
		if _, err := old.Verify(t.Context(), token); !errors.Is(err, fault.ErrStale) {
			t.Errorf("the old leader: %v", err)
		}
	})
}

func TestLosingTheLeaderInterruptsNoVerification(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 5, cluster.Options{})
		token := c.Leader().MustIssue(t, "ada", 24*time.Hour)
		c.AwaitAgreed()
		for range 20 {
			c.AwaitSettled()
			leader := c.Leader()
			c.Kill(leader)
			for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(7 * time.Millisecond) {
				for _, m := range c.Running() {
					if got := m.MustVerify(t, token); got != valid {
						t.Errorf("%s says %v", m.Host, got)
					}
				}
			}
			c.Restart(leader)
		}
	})
}

func TestANodeIsReadyWhileItsStateIsFresh(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		cut := c.Follower()
		c.Partition(cut)
		start := time.Now()
		c.Await("the node to say that it is stale", func() bool { return errors.Is(cut.Ready(), fault.ErrStale) })
		if took := time.Since(start); took > bound+10*time.Millisecond || took < bound-2*time.Second {
			t.Errorf("it said so after %v", took)
		}
		c.Heal()
		start = time.Now()
		c.Await("the node to be ready", func() bool { return cut.Ready() == nil })
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it was ready after %v", took)
		}
	})
}

func TestAWallClockThatJumpsMakesAStateOldForAMoment(t *testing.T) {
	in(t, func(t *testing.T) {
		var jump time.Duration
		var mu sync.Mutex
		c := cluster.New(t, 3, cluster.Options{Wall: func(name string) func() time.Time {
			if name != "n3" {
				return nil
			}
			return func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				return time.Now().Add(jump)
			}
		}})
		token := c.Leader().MustIssue(t, "ada", time.Hour)
		c.AwaitAgreed()
		n3 := c.Members()[2]
		mu.Lock()
		jump = time.Hour
		mu.Unlock()
		if _, err := n3.Verify(t.Context(), token); !errors.Is(err, fault.ErrStale) {
			t.Errorf("right after the jump: %v", err)
		}
		time.Sleep(3 * time.Second)
		if got := n3.MustVerify(t, token); got != valid {
			t.Errorf("after a round: %v", got)
		}
		if err := n3.Ready(); !errors.Is(err, fault.ErrClockOff) {
			t.Errorf("a node whose clock is an hour off: %v", err)
		}
	})
}

// Whoever forges key ids from the future makes a node ask the leader, at most once in 20 ms.
func TestForgedKeyIDsCostLittleHoweverManyTheyAre(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		token := c.Leader().MustIssue(t, "ada", time.Hour)
		c.AwaitAgreed()
		follower := c.Follower()
		forged := withKeyID(token, fsm.KeyID{Revision: 1 << 40, Random: 7})
		before := follower.View().Position()
		start := time.Now()
		for time.Since(start) < 4*time.Second {
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					if got := follower.MustVerify(t, forged); got != v1.VerifyResponse_KEY_NOT_FOUND {
						t.Errorf("a forged key id: %v", got)
					}
				})
			}
			all.Wait()
		}
		// A round is a tick, and one more that says that it is committed; the nodes' own rounds come on top.
		if entries, most := follower.View().Position()-before, uint64(2*4000/20+40); entries > most || entries < most/4 {
			t.Errorf("%d log entries in 4 s, where %d are allowed", entries, most)
		}
	})
}

func withKeyID(token string, id fsm.KeyID) string {
	_, rest, _ := strings.Cut(token, ".")
	return encodeHeader(fmt.Sprintf(`{"alg":"HS256","kid":%q,"typ":"JWT"}`, id.String())) + "." + rest
}

// A node that was removed while it was cut off may be fresh for a while, and does not know.
func TestAFormerMemberCountsUntilItCannotBeFresh(t *testing.T) {
	for _, failover := range []bool{false, true} {
		t.Run(fmt.Sprintf("failover=%v", failover), func(t *testing.T) {
			in(t, func(t *testing.T) {
				c := cluster.New(t, 5, cluster.Options{})
				leader, cut := c.Leader(), c.Follower()
				token := leader.MustIssue(t, "ada", time.Hour)
				c.AwaitAgreed()
				c.Partition(cut)
				if err := remove(t, leader, cut); err != nil {
					t.Fatal(err)
				}
				if failover {
					c.Kill(leader)
					leader = c.Leader()
				}
				start := time.Now()
				res, err := leader.Revoke(t.Context(), "ada")
				took := time.Since(start)
				if err != nil || res.GetFinality().GetExpiredNodes() == 0 || took < bound-3*time.Second || took > window+time.Second {
					t.Errorf("it took %v: %v, %v", took, res, err)
				}
				if res, err := cut.Verify(t.Context(), token); !errors.Is(err, fault.ErrStale) {
					t.Errorf("the former member says %v, %v", res, err)
				}
				c.Await("the former member to be forgotten", func() bool { return len(leader.View().Holders().Former) == 0 })
				if failover {
					return // one of four is dead
				}
				if res, err := leader.Revoke(t.Context(), "ada"); err != nil || res.GetFinality().GetExpiredNodes() != 0 || res.GetFinality().GetAppliedNodes() != 4 {
					t.Errorf("once it is forgotten: %v, %v", res, err)
				}
			})
		})
	}
}

func TestANewTokenIsValidEverywhereAtOnce(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 5, cluster.Options{})
		for i := range 20 {
			token := c.Members()[i%5].MustIssue(t, fmt.Sprint("user-", i), time.Hour)
			for _, m := range c.Members() {
				start := time.Now()
				if got := m.MustVerify(t, token); got != valid {
					t.Errorf("%s says %v", m.Host, got)
				}
				if took := time.Since(start); took > 50*time.Millisecond {
					t.Errorf("%s took %v to say so", m.Host, took)
				}
			}
		}
	})
}

func encodeHeader(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func remove(t *testing.T, at, member *cluster.Member) error {
	t.Helper()
	_, err := at.Node().Remove(t.Context(), cluster.Caller, &v1.RemoveRequest{Node: member.UUID})
	return err
}

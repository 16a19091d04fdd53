package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

func TestTheOtherNodesAreLearntOfAndFollowed(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		c := f.clientOf(f.nodes[:1])
		if got := c.Addresses(); len(got) != 1 {
			t.Errorf("before the first call it knows %v", got)
		}
		verify(t, c)
		rest(time.Second)
		want := []string{"http://n1:7400", "http://n2:7400", "http://n3:7400"}
		if got := c.Addresses(); !slices.Equal(got, want) {
			t.Errorf("it knows %v, want %v", got, want)
		}
		f.enlist(f.nodes[1], f.launch("n4"))
		rest(10 * time.Second)
		want = []string{"http://n2:7400", "http://n4:7400", "http://n1:7400"} // what was given comes last
		if got := c.Addresses(); !slices.Equal(got, want) {
			t.Errorf("after the members changed it knows %v, want %v", got, want)
		}
	})
}

func TestAFailureHasTheMembersLookedUpAtOnce(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		c := f.client()
		stop := f.load(c)
		rest(time.Second)
		f.enlist(f.nodes[1], f.launch("n3"))
		f.nodes[0].kill()
		rest(500 * time.Millisecond)
		stop()
		if got := c.Addresses(); !slices.Contains(got, "http://n3:7400") {
			t.Errorf("half a second after a failure it knows %v", got)
		}
	})
}

// What has the address of a node that was stopped may answer, and name itself alone.
func TestOneAnswerDoesNotTakeTheOtherNodesAway(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		c := f.clientOf(f.nodes)
		stop := f.load(c)
		rest(2 * time.Second)
		f.nodes[1].believe(f.nodes[1].alone(""))
		want := []string{"http://n1:7400", "http://n2:7400", "http://n3:7400"}
		for range 120 {
			rest(time.Second)
			if got := c.Addresses(); !slices.Equal(got, want) {
				t.Fatalf("it knows %v, want %v", got, want)
			}
			for _, n := range f.nodes {
				if n.took() == 0 {
					t.Fatalf("%s was not asked any more", n.host)
				}
			}
		}
		stop()
	})
}

// A client that was told of a stranger alone is told better by the addresses that it was given.
func TestTheSeedsAreAskedForTheMembersToo(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		f.enlist(f.nodes[2])
		c := f.client()
		verify(t, c)
		rest(time.Second)
		f.enlist(f.nodes[0], f.nodes[1])
		f.nodes[2].believe(f.nodes[2].alone(""))
		stop := f.load(c)
		rest(20 * time.Second)
		stop()
		if got := c.Addresses(); !slices.Equal(got, []string{"http://n1:7400", "http://n2:7400"}) {
			t.Errorf("it knows %v", got)
		}
	})
}

func TestANodeOfAnotherClusterIsNotAskedUntilItIsBack(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		f.members.ClusterId = "c-1"
		c := f.clientOf(f.nodes)
		stop := f.load(c)
		rest(2 * time.Second)
		f.nodes[1].believe(f.nodes[1].alone("c-2"))
		rest(40 * time.Second)
		f.forgetCounts()
		rest(30 * time.Second)
		if n := f.nodes[1].took(); n > 3 {
			t.Errorf("another cluster's node was asked %d times", n)
		}
		f.nodes[1].believe(nil)
		rest(40 * time.Second)
		f.forgetCounts()
		rest(10 * time.Second)
		stop()
		if mine, other := f.nodes[1].took(), f.nodes[0].took(); mine*3 < other {
			t.Errorf("the node that came back was asked %d times, another %d times", mine, other)
		}
	})
}

func TestAnAnswerThatNamesNoClusterIsNotBelievedOnceOneIsKnown(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		f.members.ClusterId = "c-1"
		c := f.clientOf(f.nodes[:1])
		verify(t, c)
		rest(time.Second)
		f.enlist(f.nodes[0], f.launch("n3"))
		rest(20 * time.Second)
		if got := c.Addresses(); slices.Contains(got, "http://n3:7400") {
			t.Errorf("it knows %v", got)
		}
	})
}

func TestOnlySoManyMembersAreBelieved(t *testing.T) {
	for _, c := range []struct{ members, text, believed int }{
		{256, 200, 256}, {257, 200, 0}, {20000, 200, 0}, {256, 8 << 10, 0},
	} {
		sail(t, 1, func(t *testing.T, f *fleet) {
			lore, text := &v1.MembersResponse{LeaderId: "id-0"}, strings.Repeat("x", 200)
			for i := range c.members {
				lore.Members = append(lore.Members, &v1.Member{
					NodeId: fmt.Sprintf("id-%d", i), RpcAddress: fmt.Sprintf("%s-%d:1", text, i), RaftAddress: text, Region: text,
					Name: strings.Repeat("x", c.text), Role: v1.Member_VOTER,
				})
			}
			f.nodes[0].believe(lore)
			app := f.client()
			verify(t, app)
			rest(time.Second)
			if got := len(app.Addresses()) - 1; got != c.believed {
				t.Errorf("of %d members with names of %d bytes it knows %d, want %d", c.members, c.text, got, c.believed)
			}
		})
	}
}

func TestAMemberThatIsNotInTheClusterIsNotAsked(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		f.members.Members[2].Role = v1.Member_ABSENT
		c := f.client()
		verify(t, c)
		rest(time.Second)
		if got := c.Addresses(); slices.Contains(got, "http://n3:7400") {
			t.Errorf("it knows %v", got)
		}
	})
}

func TestANodeThatLeftIsNotAskedWhetherItIsBack(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		stop := f.load(f.clientOf(f.nodes[:1]))
		rest(time.Second)
		f.nodes[1].kill()
		rest(2 * time.Second)
		f.enlist(f.nodes[0], f.nodes[2])
		rest(40 * time.Second)
		f.nodes[1].start()
		asked := f.nodes[1].counter(keyquorumv1connect.ClusterServiceMembersProcedure)
		asked.Store(0)
		rest(time.Minute)
		stop()
		if n := asked.Load(); n != 0 {
			t.Errorf("it was asked %d times", n)
		}
	})
}

// Else all services that start at the same time would begin with the same node.
func TestClientsThatKnowNothingYetBeginAnywhere(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		for range 90 {
			verify(t, f.clientOf(f.nodes, client.WithoutDiscovery()))
		}
		for _, n := range f.nodes {
			if got := n.took(); got < 10 {
				t.Errorf("%d of 90 began with %s", got, n.host)
			}
		}
	})
}

func TestWithoutDiscoveryOnlyWhatWasGivenIsAsked(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		stop := f.load(f.client(client.WithoutDiscovery()))
		rest(20 * time.Second)
		stop()
		if n := f.nodes[2].took(); n != 0 {
			t.Errorf("a node that was not given was asked %d times", n)
		}
		if f.nodes[0].took() == 0 || f.nodes[1].took() == 0 {
			t.Error("not all that were given were asked")
		}
	})
}

func TestNodesOfTheOwnRegionArePreferredWhileTheyAreUsable(t *testing.T) {
	sail(t, 4, func(t *testing.T, f *fleet) {
		f.nodes[2].region, f.nodes[3].region = "west", "west"
		f.enlist(f.nodes...)
		c := f.client(client.WithRegion("west"))
		stop := f.load(c)
		rest(2 * time.Second)
		f.forgetCounts()
		rest(10 * time.Second)
		if far := f.nodes[0].took() + f.nodes[1].took(); far != 0 {
			t.Errorf("nodes elsewhere were asked %d times", far)
		}
		f.nodes[2].kill()
		f.nodes[3].kill()
		rest(5 * time.Second)
		if far := f.nodes[0].took() + f.nodes[1].took(); far == 0 {
			t.Error("nodes elsewhere were not asked when the region had none left")
		}
		f.nodes[2].start()
		rest(40 * time.Second)
		f.forgetCounts()
		rest(5 * time.Second)
		stop()
		if far := f.nodes[0].took() + f.nodes[1].took(); far != 0 {
			t.Errorf("nodes elsewhere were asked %d times once the region was back", far)
		}
	})
}

func TestAFailingNodeIsSparedAndComesBackWithoutACallerPaying(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		c := f.client()
		stop := f.load(c)
		rest(2 * time.Second)
		f.nodes[1].fail(refusal(t, connect.CodeUnavailable, "this node is behind"))
		rest(time.Second)
		f.forgetCounts()
		rest(28 * time.Second)
		// After each probe one call tries it and fails, however many callers there are, and the ejections get longer: 1, 2,
		// 4, 8, 16 s, or half of that.
		if n := f.nodes[1].took(); n > 8 {
			t.Errorf("the failing node was asked %d times in 28 s, of some 3580", n)
		}
		f.nodes[1].fail(nil)
		rest(31 * time.Second)
		f.forgetCounts()
		rest(10 * time.Second)
		stop()
		if mine, other := f.nodes[1].took(), f.nodes[0].took(); mine*3 < other {
			t.Errorf("the node that came back was asked %d times, another %d times", mine, other)
		}
	})
}

// While there is no leader, no node can judge a token that somebody made up to be ahead of it. They judge all others, so
// whoever sends such tokens must not have nodes spared.
func TestATokenAheadOfANodeTellsNothingOfIt(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		c := f.client()
		stop := f.load(c)
		rest(2 * time.Second)
		stop()
		f.forgetCounts()
		f.nodes[1].fail(refusal(t, connect.CodeUnavailable, "the token is ahead of this node's state", &v1.TokenAhead{}))
		for range 1000 {
			_, _ = c.Verify(t.Context(), &v1.VerifyRequest{Token: "ahead"}) // which fails where no other node may be asked
			rest(10 * time.Millisecond)
		}
		if mine, other := f.nodes[1].took(), f.nodes[0].took(); mine*3 < other {
			t.Errorf("the node was asked %d times, another %d times", mine, other)
		}
	})
}

func TestWhetherANodeIsBackIsNotFoundOutByCallers(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		var paid atomic.Int32
		c := f.client(client.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
				if req.Peer().Addr == "n2:7400" && req.Spec().Procedure == keyquorumv1connect.TokenServiceVerifyProcedure {
					paid.Add(1)
				}
				return next(ctx, req)
			}
		})))
		stop := f.load(c)
		rest(time.Second)
		f.nodes[1].kill()
		rest(2 * time.Second)
		paid.Store(0)
		rest(30 * time.Second)
		stop()
		if n := paid.Load(); n != 0 {
			t.Errorf("%d verifications went to the dead node first", n)
		}
	})
}

func TestNodesThatAllFailAreTriedAllTheSame(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		c := f.client()
		for _, n := range f.nodes {
			n.kill()
		}
		begun := time.Now()
		if _, err := c.Verify(t.Context(), &v1.VerifyRequest{Token: "good"}); !errors.Is(err, client.ErrUnavailable) {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("that nobody is there was known after %v", took)
		}
		f.nodes[1].start()
		verify(t, c)
	})
}

func TestWritesGoToTheLeader(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		c := f.client()
		verify(t, c)
		rest(time.Second)
		issue := func(want *ship) {
			t.Helper()
			for range 10 {
				if res, err := c.Issue(t.Context(), &v1.IssueRequest{Subject: "alice"}); err != nil || res.GetToken() != want.host {
					t.Fatalf("issued by %q, want %s: %v", res.GetToken(), want.host, err)
				}
			}
		}
		issue(f.nodes[0])
		f.enlist(f.nodes[2], f.nodes[0], f.nodes[1])
		rest(10 * time.Second)
		issue(f.nodes[2])
		f.nodes[2].kill()
		if _, err := c.Issue(t.Context(), &v1.IssueRequest{Subject: "alice"}); err != nil {
			t.Errorf("with the leader gone: %v", err)
		}
	})
}

func TestANodeThatKnowsNoLeaderDoesNotKeepWritesFromIt(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		cutOff := f.nodes[2]
		cutOff.region = "west"
		f.enlist(f.nodes...)
		cutOff.believe(&v1.MembersResponse{Members: f.members.GetMembers()})
		c := f.client(client.WithRegion("west"))
		verify(t, c)
		rest(2 * time.Second)
		for range 30 {
			rest(time.Second)
			if res, err := c.Revoke(t.Context(), &v1.RevokeRequest{Subject: "alice"}); err != nil || res.GetKeyId() != f.nodes[0].host {
				t.Errorf("revoked by %q, want the leader: %v", res.GetKeyId(), err)
			}
		}
	})
}

func TestAWriteWaitsForALeaderToBeElected(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		for _, n := range f.nodes {
			n.fail(refusal(t, connect.CodeUnavailable, "the cluster has no leader"))
		}
		time.AfterFunc(time.Second, func() {
			for _, n := range f.nodes {
				n.fail(nil)
			}
		})
		if _, err := f.client().Issue(t.Context(), &v1.IssueRequest{Subject: "alice"}); err != nil {
			t.Error(err)
		}
	})
}

func TestANodesTimeToRetryIsWaitedFor(t *testing.T) {
	sail(t, 1, func(t *testing.T, f *fleet) {
		free := time.Now().Add(3 * time.Second)
		f.nodes[0].fail(refusal(t, connect.CodeUnavailable, "not now", &v1.RetryAt{Time: timestamp(free)}))
		time.AfterFunc(2*time.Second, func() { f.nodes[0].fail(nil) })
		c := f.client()
		if _, err := c.Issue(t.Context(), &v1.IssueRequest{Subject: "alice"}); err != nil || time.Now().Before(free) {
			t.Errorf("%v before the time: %v", time.Until(free), err)
		}
		f.nodes[0].fail(refusal(t, connect.CodeUnavailable, "not now", &v1.RetryAt{Time: timestamp(time.Now().Add(time.Hour))}))
		begun := time.Now()
		_, err := c.Issue(t.Context(), &v1.IssueRequest{Subject: "alice"})
		if took := time.Since(begun); !errors.Is(err, client.ErrUnavailable) || took > time.Second {
			t.Errorf("a time after the deadline was waited for: %v, %v", took, err)
		}
	})
}

// A limit is no refusal for good where the node says when it ends, and nothing was done: so all calls may wait for that.
func TestALimitIsWaitedFor(t *testing.T) {
	for name, call := range methods {
		sail(t, 1, func(t *testing.T, f *fleet) {
			limit := func(until time.Duration) {
				f.nodes[0].fail(refusal(t, connect.CodeResourceExhausted, "too many requests", &v1.RetryAt{Time: timestamp(time.Now().Add(until))}))
			}
			if name == "Members" {
				return // the fleet answers it
			}
			free := time.Now().Add(3 * time.Second)
			limit(3 * time.Second)
			time.AfterFunc(2*time.Second, func() { f.nodes[0].fail(nil) })
			c := f.client()
			if err := call(t.Context(), c, ""); err != nil || time.Now().Before(free) {
				t.Errorf("%s: %v before the time: %v", name, time.Until(free), err)
			}
			limit(time.Hour)
			begun := time.Now()
			if err := call(t.Context(), c, ""); !errors.Is(err, client.ErrResourceExhausted) || time.Since(begun) > time.Second {
				t.Errorf("%s: a time after the deadline was waited for: %v, %v", name, time.Since(begun), err)
			}
			f.nodes[0].fail(refusal(t, connect.CodeResourceExhausted, "too long"))
			f.forgetCounts()
			if err := call(t.Context(), c, ""); !errors.Is(err, client.ErrResourceExhausted) || f.nodes[0].took() > 1 {
				t.Errorf("%s: a limit without an end was not left at that: %v", name, err)
			}
		})
	}
}

func TestALimitsOtherNodesAreAskedWhenItEnds(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		for _, n := range f.nodes {
			n.fail(refusal(t, connect.CodeResourceExhausted, "too many requests", &v1.RetryAt{Time: timestamp(time.Now().Add(time.Second))}))
		}
		if err := methods["Verify"](t.Context(), f.client(), ""); !errors.Is(err, client.ErrResourceExhausted) {
			t.Error(err)
		}
		if n := f.nodes[0].took() + f.nodes[1].took() + f.nodes[2].took(); n > 8 {
			t.Errorf("it was sent %d times", n)
		}
	})
}

// The cluster must not be sent a multiple of its load by those who find it in trouble.
func TestTheBudgetBoundsWhatIsSentAgain(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		for _, n := range f.nodes {
			n.fail(refusal(t, connect.CodeUnavailable, "the cluster has no leader"))
		}
		c := f.client(client.WithRetryBudget(0.2, 1), client.WithoutDiscovery())
		const calls = 500
		for range calls {
			if _, err := c.Issue(t.Context(), &v1.IssueRequest{Subject: "alice"}); !errors.Is(err, client.ErrUnavailable) {
				t.Fatal(err)
			}
			rest(10 * time.Millisecond)
		}
		var sent int
		for _, n := range f.nodes {
			sent += int(n.calls.Load())
		}
		// 0.2 each, ten saved up, and one for each second that it took.
		elapsed := 0.01*calls + 10 // what it slept, and what it backed off at the beginning
		if most := calls + int(0.2*calls+10+elapsed); sent > most || sent < calls+10 {
			t.Errorf("%d requests were sent for %d calls, want at most %d", sent, calls, most)
		}
	})
}

func TestWithAnEmptyBudgetNothingIsSentAgain(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		for _, n := range f.nodes {
			n.fail(refusal(t, connect.CodeUnavailable, "this node is behind"))
		}
		c := f.client(client.WithRetryBudget(0, 0))
		if _, err := c.Verify(t.Context(), &v1.VerifyRequest{Token: "good"}); !errors.Is(err, client.ErrUnavailable) {
			t.Error(err)
		}
		if n := f.nodes[0].took() + f.nodes[1].took(); n != 1 {
			t.Errorf("it was sent %d times", n)
		}
	})
}

// A gateway's refusal may be a stranger's, so others are asked. But there is no use in asking the same one again.
func TestAStrangersRefusalIsNotAskedForAgain(t *testing.T) {
	sail(t, 1, func(t *testing.T, f *fleet) {
		var asked atomic.Int32
		l, err := f.net.Listen("gateway:7400")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
		})}
		go s.Serve(l)
		defer s.Close()
		c := f.clientOf([]*ship{{host: "gateway"}}, client.WithoutDiscovery())
		if _, err := c.Verify(t.Context(), &v1.VerifyRequest{Token: "good"}); !errors.Is(err, client.ErrUnauthenticated) || asked.Load() != 1 {
			t.Errorf("%v, after %d requests", err, asked.Load())
		}
	})
}

func TestWhatRequestsAllowForIsForgotten(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		c := f.client(client.WithRetryBudget(0.2, 0), client.WithoutDiscovery())
		for range 500 {
			verify(t, c)
		}
		rest(2 * time.Minute)
		f.forgetCounts()
		for _, n := range f.nodes {
			n.fail(refusal(t, connect.CodeUnavailable, "this node is behind"))
		}
		for range 4 {
			if _, err := c.Verify(t.Context(), &v1.VerifyRequest{Token: "good"}); !errors.Is(err, client.ErrUnavailable) {
				t.Error(err)
			}
		}
		if n := f.nodes[0].took() + f.nodes[1].took(); n != 4 {
			t.Errorf("4 calls were sent %d times, by the leave of those of two minutes ago", n)
		}
	})
}

func TestRefusalsAreNotSentAgain(t *testing.T) {
	for _, code := range []connect.Code{connect.CodeInvalidArgument, connect.CodeNotFound, connect.CodePermissionDenied, connect.CodeUnauthenticated} {
		sail(t, 3, func(t *testing.T, f *fleet) {
			for _, n := range f.nodes {
				n.fail(refusal(t, code, "no", &v1.RetryAt{Time: timestamp(time.Now().Add(time.Second))}))
			}
			if err := methods["Verify"](t.Context(), f.client(), ""); err == nil {
				t.Error("no error")
			}
			if n := f.nodes[0].took() + f.nodes[1].took() + f.nodes[2].took(); n != 1 {
				t.Errorf("%s: it was sent %d times", code, n)
			}
		})
	}
}

// What was sent without an expected key may have happened: it is left at that, whoever else might be asked.
func TestAWriteThatMayHaveHappenedIsNotSentAgain(t *testing.T) {
	for name, call := range methods {
		for _, expected := range []string{"", "key-1"} {
			sail(t, 2, func(t *testing.T, f *fleet) {
				for _, n := range f.nodes {
					n.fail(refusal(t, connect.CodeUnknown, "leadership was lost", &v1.OutcomeUnknown{}))
				}
				if name == "Members" {
					return // the fleet answers it
				}
				if err := call(t.Context(), f.client(client.WithoutDiscovery()), expected); err == nil {
					t.Fatal("no error")
				}
				sent := f.nodes[0].calls.Load() + f.nodes[1].calls.Load()
				if lone := once(name) && expected == ""; lone != (sent == 1) {
					t.Errorf("%s expecting %q was sent %d times", name, expected, sent)
				}
			})
		}
	}
}

func TestAHangingNodeDoesNotEatTheDeadline(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		c := f.client()
		for range 20 {
			verify(t, c)
		}
		rest(time.Second)
		f.nodes[0].hang()
		f.nodes[1].hang()
		defer f.nodes[0].resume()
		defer f.nodes[1].resume()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := c.Verify(ctx, &v1.VerifyRequest{Token: "good"}); err != nil {
			t.Error(err)
		}
	})
}

// What was given up on says nothing of how long an answer takes: a node is not given longer for not answering.
func TestANodeThatDidNotAnswerIsNotGivenLonger(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		c := f.client(client.WithoutDiscovery())
		free := time.Now().Add(2 * time.Second)
		for _, n := range f.nodes {
			n.stall = func(ctx context.Context) {
				if time.Now().Before(free) {
					<-ctx.Done()
				}
			}
		}
		verify(t, c)
		if late := time.Since(free); late > time.Second {
			t.Errorf("the answer came %v after the nodes began to answer", late)
		}
	})
}

// Revoking waits for nodes that do not answer, for up to 25 s: it is neither given up for that nor sent again, and the
// leader is not thought slow.
func TestARevocationTakesItsTime(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		for _, opts := range [][]client.Option{nil, {client.InOrder()}} {
			c := f.client(opts...)
			for _, key := range []string{"", "key-1"} {
				var sent int32
				for _, n := range f.nodes {
					sent -= n.calls.Load()
					n.stall = func(context.Context) { rest(25 * time.Second) }
				}
				res, err := c.Revoke(t.Context(), &v1.RevokeRequest{Subject: "alice", ExpectedKeyId: key})
				for _, n := range f.nodes {
					sent += n.calls.Load()
					n.stall = nil
				}
				if err != nil || sent != 1 {
					t.Errorf("%v, %v; it was sent %d times", res, err, sent)
				}
			}
		}
		c := f.client(client.WithTimeout(3 * time.Second))
		for _, n := range f.nodes {
			n.stall = func(context.Context) { rest(10 * time.Second) }
		}
		start := time.Now()
		if _, err := c.Revoke(t.Context(), &v1.RevokeRequest{Subject: "alice"}); !errors.Is(err, client.ErrOutcomeUnknown) || time.Since(start) != 3*time.Second {
			t.Errorf("with a timeout of its own: %v after %v", err, time.Since(start))
		}
		rest(10 * time.Second)
	})
}

func TestAWriteThatNamesItsKeyIsGivenTime(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		for _, n := range f.nodes {
			n.stall = func(context.Context) { rest(4 * time.Second) }
		}
		res, err := f.client().Rotate(t.Context(), &v1.RotateRequest{Subject: "alice", ExpectedKeyId: "key-1"})
		sent := f.nodes[0].calls.Load() + f.nodes[1].calls.Load()
		if err != nil || sent != 1 {
			t.Errorf("%v, %v; it was sent %d times", res, err, sent)
		}
	})
}

func TestInitGoesToTheFirstAddressOnly(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		c := f.client()
		verify(t, c)
		rest(time.Second)
		f.nodes[0].kill()
		if _, err := c.Init(t.Context(), &v1.InitRequest{}); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("%v, want %v", err, client.ErrUnavailable)
		}
	})
}

// A bubble whose goroutines are not all gone at its end fails its test.
func TestCloseLeavesNothingBehind(t *testing.T) {
	sail(t, 3, func(t *testing.T, f *fleet) {
		c := f.client(client.WithHedging(time.Millisecond))
		verify(t, c)
		rest(time.Second)
		f.nodes[0].kill()
		f.nodes[1].hang()
		defer f.nodes[1].resume()
		for range 20 {
			verify(t, c)
		}
		rest(3 * time.Second) // probes and look-ups are on their way
		c.Close()
		verify(t, c) // and it still works
	})
}

func TestCloseWaitsForWhatGoesOnInTheBackground(t *testing.T) {
	sail(t, 1, func(t *testing.T, f *fleet) {
		var working atomic.Int32
		c := f.client(client.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
				working.Add(1)
				defer working.Add(-1)
				defer rest(time.Millisecond) // as if there were something to write down
				return next(ctx, req)
			}
		})))
		verify(t, c)
		f.nodes[0].hang()
		defer f.nodes[0].resume()
		for working.Load() == 0 {
			rest(100 * time.Millisecond)
		}
		c.Close()
		if n := working.Load(); n != 0 {
			t.Errorf("%d requests were still on their way", n)
		}
	})
}

// A tool may have no Close at all.
func TestInOrderNothingGoesOnInTheBackground(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		c, err := client.New([]string{"n1:7400", "n2:7400"}, client.InOrder(), client.WithHTTPClient(&http.Client{Transport: f.http}))
		if err != nil {
			t.Fatal(err)
		}
		f.nodes[0].kill()
		for range 5 {
			verify(t, c)
		}
	})
}

func TestBadOptionsAreNamedAllAtOnce(t *testing.T) {
	_, err := client.New(nil, client.WithHedging(-1), client.WithHedgingAt(95), client.WithRetryBudget(-1, 0))
	for _, part := range []string{"no address", "WithHedging:", "WithHedgingAt:", "WithRetryBudget:"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not tell %q", err, part)
		}
	}
}

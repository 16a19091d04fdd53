package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

func TestASecondNodeIsAskedWhenTheFirstIsSlow(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		c := f.client(client.WithHedging(10*time.Millisecond), client.WithoutDiscovery())
		f.net.Delay("app", "n1", time.Second)
		for range 10 { // whichever is first
			begun := time.Now()
			verify(t, c)
			if took := time.Since(begun); took > 20*time.Millisecond {
				t.Errorf("it took %v", took)
			}
		}
		if f.nodes[1].took() != 10 {
			t.Error("the answers did not come from the quick node")
		}
	})
}

func TestTheSlowerAttemptIsGivenUp(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		c := f.client(client.WithHedging(10*time.Millisecond), client.WithoutDiscovery())
		gone := make(chan struct{}, 1)
		f.nodes[0].stall = func(ctx context.Context) { <-ctx.Done(); gone <- struct{}{} }
		for f.nodes[0].took() == 0 {
			verify(t, c)
		}
		select {
		case <-gone:
		case <-time.After(100 * time.Millisecond):
			t.Error("the node that lost still works on it")
		}
	})
}

func TestARefusalIsAFirstAnswerToo(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		c := f.client(client.WithHedging(10*time.Millisecond), client.WithoutDiscovery())
		f.nodes[0].stall = func(ctx context.Context) { <-ctx.Done() }
		f.nodes[1].fail(refusal(t, connect.CodeInvalidArgument, "audience: too long"))
		for range 5 {
			begun := time.Now()
			_, err := c.Verify(t.Context(), &v1.VerifyRequest{Token: "good"})
			if took := time.Since(begun); !errors.Is(err, client.ErrInvalidArgument) || took > 20*time.Millisecond {
				t.Errorf("%v, after %v", err, took)
			}
		}
	})
}

func TestHedgesComeOutOfTheBudget(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		c := f.client(client.WithHedging(time.Millisecond), client.WithRetryBudget(0.1, 0), client.WithoutDiscovery())
		const calls = 200
		for range calls {
			verify(t, c)
		}
		if sent := f.nodes[0].took() + f.nodes[1].took(); sent <= calls || sent > calls*11/10 {
			t.Errorf("%d calls were sent %d times", calls, sent)
		}
	})
}

func TestWritesAreNotHedged(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		c := f.client(client.WithHedging(time.Millisecond), client.WithoutDiscovery())
		if _, err := c.Issue(t.Context(), &v1.IssueRequest{Subject: "alice"}); err != nil {
			t.Fatal(err)
		}
		if sent := f.nodes[0].calls.Load() + f.nodes[1].calls.Load(); sent != 1 {
			t.Errorf("it was sent %d times", sent)
		}
	})
}

func TestAHedgeAtAPercentileFollowsTheAnswers(t *testing.T) {
	sail(t, 2, func(t *testing.T, f *fleet) {
		c := f.client(client.WithHedgingAt(0.95), client.WithoutDiscovery())
		for range 100 {
			verify(t, c)
		}
		f.forgetCounts()
		const calls = 20
		for i := range calls { // in about half of them, the slow node comes first
			f.net.Delay("app", f.nodes[i%2].host, time.Second)
			f.net.Delay("app", f.nodes[1-i%2].host, time.Millisecond)
			begun := time.Now()
			verify(t, c)
			if took := time.Since(begun); took > 20*time.Millisecond {
				t.Errorf("it took %v", took)
			}
			rest(2 * time.Minute) // so that what was seen is forgotten
		}
	})
}

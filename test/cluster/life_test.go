package cluster_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

const (
	valid       = v1.VerifyResponse_NONE
	expired     = v1.VerifyResponse_EXPIRED
	keyNotFound = v1.VerifyResponse_KEY_NOT_FOUND
)

// in runs a test in a bubble of virtual time.
func in(t *testing.T, test func(*testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func TestEveryNodeIssuesAndVerifies(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		for _, issuer := range c.Members() {
			token := issuer.MustIssue(t, "ada", time.Minute)
			for _, verifier := range c.Members() {
				if got := verifier.MustVerify(t, token); got != valid {
					t.Errorf("issued at %s, verified at %s: %v", issuer.Host, verifier.Host, got)
				}
			}
		}
		user, _ := c.Leader().View().User("ada")
		if len(user.Retiring) != 0 || c.Leader().View().KeyCount() != 1 {
			t.Error("later tokens did not use the key that was made with the first")
		}
	})
}

func TestAKeyIsRotatedWithinASecondOfItsTokensExpiry(t *testing.T) {
	for _, mode := range []v1.Settings_Mode{v1.Settings_OVERLAP, v1.Settings_STRICT} {
		t.Run(mode.String(), func(t *testing.T) {
			in(t, func(t *testing.T) {
				c := cluster.New(t, 3, cluster.Options{Settings: &v1.Settings{Mode: mode}})
				short := c.Follower().MustIssue(t, "ada", 5*time.Second)
				long := c.Follower().MustIssue(t, "ada", time.Minute)
				user, _ := c.Leader().View().User("ada")
				old := user.Active.ID

				time.Sleep(6 * time.Second)
				c.AwaitAgreed()
				user, _ = c.Leader().View().User("ada")
				if user.Active.ID == old {
					t.Error("the key was not rotated within a second of its first token's expiry")
				}
				for _, m := range c.Members() {
					if got := m.MustVerify(t, short); got != expired {
						t.Errorf("the expired token at %s: %v", m.Host, got)
					}
					want := map[v1.Settings_Mode]v1.VerifyResponse_Reason{v1.Settings_OVERLAP: valid, v1.Settings_STRICT: keyNotFound}[mode]
					if got := m.MustVerify(t, long); got != want {
						t.Errorf("the other token of the rotated key at %s: %v, want %v", m.Host, got, want)
					}
				}
				if got := c.Follower().MustVerify(t, c.Follower().MustIssue(t, "ada", time.Minute)); got != valid {
					t.Errorf("a token of the new key: %v", got)
				}
				time.Sleep(56 * time.Second)
				c.AwaitAgreed()
				if _, there := c.Leader().View().Key("ada", old); there {
					t.Error("the retiring key outlived its last token")
				}
			})
		})
	}
}

func TestAnIdleUserIsForgotten(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{Settings: &v1.Settings{ForgetAfter: durationpb.New(2 * time.Minute)}})
		c.Leader().MustIssue(t, "ada", time.Minute)
		time.Sleep(2*time.Minute + 58*time.Second)
		if c.Leader().View().UserCount() != 1 {
			t.Error("forgotten too early")
		}
		time.Sleep(5 * time.Second)
		if c.Leader().View().UserCount() != 0 {
			t.Error("not forgotten")
		}
	})
}

func TestARevokedUsersTokensAreRefusedEverywhere(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		token, other := c.Leader().MustIssue(t, "ada", time.Minute), c.Leader().MustIssue(t, "bob", time.Minute)
		if _, err := c.Follower().Revoke(t.Context(), "ada"); err != nil {
			t.Fatal(err)
		}
		c.AwaitAgreed()
		for _, m := range c.Members() {
			if got := m.MustVerify(t, token); got != keyNotFound {
				t.Errorf("the revoked token at %s: %v", m.Host, got)
			}
			if got := m.MustVerify(t, other); got != valid {
				t.Errorf("another user's token at %s: %v", m.Host, got)
			}
		}
	})
}

func TestARefusalOfTheStateReachesTheCallerThroughAFollower(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		_, local := c.Leader().Revoke(t.Context(), "nobody")
		if !errors.Is(local, &fsm.Refusal{Code: fsm.CodeUnknownSubject}) {
			t.Errorf("at the leader: %v", local)
		}
		_, forwarded := c.Follower().Revoke(t.Context(), "nobody")
		if connect.CodeOf(forwarded) != connect.CodeNotFound {
			t.Errorf("at a follower: %v", forwarded)
		}
	})
}

func TestWhatFellDueWithoutALeaderIsRotatedByTheNext(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		for _, user := range []string{"ada", "bob", "eve"} {
			c.Leader().MustIssue(t, user, 10*time.Second)
		}
		c.AwaitAgreed()
		before := keysOf(c.Leader())
		for _, m := range c.Members()[1:] {
			c.Kill(m)
		}
		time.Sleep(30 * time.Second)
		for _, m := range c.Members()[1:] {
			c.Restart(m)
		}
		c.AwaitSettled()
		time.Sleep(time.Second)
		for user, old := range before {
			if now, _ := c.Leader().View().User(user); now.Active.ID == old {
				t.Errorf("%s's key fell due without a leader and was not rotated", user)
			}
		}
	})
}

func keysOf(m *cluster.Member) map[string]fsm.KeyID {
	ids := make(map[string]fsm.KeyID)
	for _, u := range m.View().Users("", 1000) {
		ids[u.Subject] = u.Active.ID
	}
	return ids
}

func TestWithoutAQuorumWritesFailInTimeAndVerificationsOnceTheStateIsOld(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		token := c.Leader().MustIssue(t, "ada", time.Hour)
		c.AwaitAgreed()
		survivor := c.Leader()
		for _, m := range c.Members() {
			if m != survivor {
				c.Kill(m)
			}
		}
		for range 5 {
			const patience = 3 * time.Second
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			start := time.Now()
			_, err := survivor.Issue(ctx, "bob", time.Minute)
			cancel()
			if !errors.Is(err, fault.ErrOutcomeUnknown) && !errors.Is(err, fault.ErrNoLeader) && !errors.Is(err, fault.ErrNotLeader) && !errors.Is(err, fault.ErrTimeUnknown) {
				t.Errorf("a write without a quorum: %v", err)
			}
			if took := time.Since(start); took > patience {
				t.Errorf("it took %v of the caller's %v", took, patience)
			}
			if res, err := survivor.VerifyAt(v1.VerifyRequest_STALE_OK, token); err != nil || !res.GetValid() {
				t.Errorf("a verification without a quorum that may be stale: %v, %v", res, err)
			}
			time.Sleep(10 * time.Second)
			if res, err := survivor.VerifyAt(v1.VerifyRequest_BOUNDED, token); !errors.Is(err, fault.ErrStale) {
				t.Errorf("a verification without a quorum: %v, %v", res, err)
			}
		}
	})
}

func TestANodeThatIsBehindCatchesUpOrSaysThatItCannotTell(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		behind := c.Follower()
		c.Partition(behind)
		token := c.Leader().MustIssue(t, "ada", time.Hour)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if res, err := behind.Verify(ctx, token); !errors.Is(err, fault.ErrBehind) {
			t.Errorf("a token that the node cannot have heard of: %v, %v", res, err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), cluster.Patience)
		defer cancel()
		verdict := make(chan *v1.VerifyResponse, 1)
		go func() {
			res, err := behind.Verify(ctx, token)
			if err != nil {
				t.Error(err)
			}
			verdict <- res
		}()
		time.Sleep(time.Second)
		c.Heal()
		if res := <-verdict; !res.GetValid() {
			t.Errorf("once it had caught up: %v", res)
		}
	})
}

func TestAnOrderlyShutdownHandsLeadershipOverFirst(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		old := c.Leader()
		start := time.Now()
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			c.Shutdown(old)
		}()
		c.Await("another to lead", func() bool { return c.Leader() != old })
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("another led after %v: that is an election, not a hand-over", took)
		}
		<-gone
		c.Leader().MustIssue(t, "ada", time.Minute)
	})
}

func TestALeaderThatIsCutOffStopsLeading(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		c.Leader().MustIssue(t, "ada", 10*time.Second)
		c.AwaitAgreed()
		old := c.Leader()
		position := old.View().Position()
		c.Partition(old)
		c.Await("the old leader to notice", func() bool { return !old.Leading() })
		time.Sleep(20 * time.Second)
		if old.View().Position() != position {
			t.Error("a leader without a quorum changed its state")
		}
		next := c.Leader()
		if user, _ := next.View().User("ada"); user.Active.Latest != 0 {
			t.Error("the next leader did not rotate what fell due")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := old.Issue(ctx, "bob", time.Minute); !errors.Is(err, fault.ErrNoLeader) {
			t.Errorf("a write at the old leader: %v", err)
		}
		c.Heal()
		c.AwaitSettled()
		if old.Leading() && next.Leading() {
			t.Error("two lead")
		}
	})
}

func TestANodeThatMissedAChangeOfIssuerCallsNoTokenAnothers(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		c.Leader().MustIssue(t, "ada", time.Hour)
		c.AwaitAgreed()
		behind := c.Follower()
		c.Partition(behind)
		issuer := "https://login.example"
		_, err := c.Leader().Node().UpdateSettings(t.Context(), cluster.Caller, &v1.UpdateSettingsRequest{Settings: &v1.Settings{Issuer: &issuer}})
		if err != nil {
			t.Fatal(err)
		}
		token := c.Leader().MustIssue(t, "ada", time.Hour) // of the key that the node behind has
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if res, err := behind.Verify(ctx, token); !errors.Is(err, fault.ErrBehind) {
			t.Errorf("behind: %v, %v", res, err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), cluster.Patience)
		defer cancel()
		c.Heal()
		if res, err := behind.Verify(ctx, token); err != nil || !res.GetValid() {
			t.Errorf("once it can catch up: %v, %v", res, err)
		}
	})
}

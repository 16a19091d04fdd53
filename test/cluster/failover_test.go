package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// user is one user's history, as the one worker that writes it knows it.
type user struct {
	subject string
	// live tokens must verify; dead ones, of revoked keys, must not; the others may go either way.
	live, dead []string
	expiries   map[string]time.Time
}

func (u *user) issue(ctx context.Context, at *cluster.Member, ttl time.Duration) {
	res, err := at.Issue(ctx, u.subject, ttl)
	if err != nil {
		return // an open outcome gave no token to anybody
	}
	u.live = append(u.live, res.GetToken())
	u.expiries[res.GetToken()] = res.GetExpiresAt().AsTime()
}

// revoke kills the user's tokens if it is acknowledged, and leaves them open if its outcome is.
func (u *user) revoke(ctx context.Context, at *cluster.Member) {
	_, err := at.Revoke(ctx, u.subject)
	if err == nil {
		u.dead = append(u.dead, u.live...)
	}
	u.live = nil
}

// check judges every token at a member, by the time now.
func (u *user) check(t *testing.T, at *cluster.Member) {
	t.Helper()
	for _, token := range u.live {
		if expiry := u.expiries[token]; time.Now().Before(expiry.Add(-time.Second)) {
			if got := at.MustVerify(t, token); got != valid {
				t.Errorf("%s at %s: an acknowledged token that lives until %v: %v", u.subject, at.Host, expiry, got)
			}
		}
	}
	for _, token := range u.dead {
		if got := at.MustVerify(t, token); got == valid {
			t.Errorf("%s at %s: a revoked token is valid again", u.subject, at.Host)
		}
	}
}

// work writes one user's history until ctx ends.
func (u *user) work(ctx context.Context, c *cluster.Cluster, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	ttls := []time.Duration{time.Second, 3 * time.Second, time.Hour}
	for ctx.Err() == nil {
		at := c.Members()[rng.IntN(len(c.Members()))]
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		if rng.IntN(5) == 0 {
			u.revoke(attempt, at)
		} else {
			u.issue(attempt, at, ttls[rng.IntN(len(ttls))])
		}
		cancel()
		pause(ctx, time.Duration(rng.IntN(200))*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func TestLeadersKilledUnderLoadLoseNothing(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			in(t, func(t *testing.T) { killLeaders(t, seed) })
		})
	}
}

func killLeaders(t *testing.T, seed uint64) {
	c := cluster.New(t, 3, cluster.Options{})
	rng := rand.New(rand.NewPCG(seed, 0))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var users []*user
	var workers sync.WaitGroup
	for i := range 8 {
		u := &user{subject: fmt.Sprintf("user-%d", i), expiries: make(map[string]time.Time)}
		users = append(users, u)
		workers.Go(func() { u.work(ctx, c, seed<<8|uint64(i)) })
	}
	for range 3 {
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
		leader := c.Leader()
		term := leaderTerm(t, leader)
		c.Kill(leader)
		if next := c.Leader(); next == leader || leaderTerm(t, next) <= term {
			t.Error("the kill did not bite: no new leader came of it")
		}
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
		c.Restart(leader)
	}
	time.Sleep(2 * time.Second) // the last restart is not the end of the load either
	stop()
	workers.Wait()
	c.AwaitSettled()
	time.Sleep(2 * time.Second)
	c.AwaitAgreed()
	acknowledged := 0
	for _, u := range users {
		acknowledged += len(u.live) + len(u.dead)
		for _, m := range c.Members() {
			u.check(t, m)
		}
	}
	if acknowledged < 50 {
		t.Errorf("only %d acknowledged tokens to check: the load did not get through", acknowledged)
	}
	nothingOverdue(t, c)
}

func leaderTerm(t *testing.T, m *cluster.Member) uint64 {
	t.Helper()
	status, err := m.Node().Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return status.GetTerm()
}

// nothingOverdue checks that what fell due was rotated or deleted within a second.
func nothingOverdue(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	for _, m := range c.Members() {
		for _, due := range m.View().Due(time.Now().Add(-time.Second), 1000) {
			t.Errorf("%s at %s: a key has been due since %v", due.Subject, m.Host, due.At)
		}
	}
}

// aYear is how wrong a clock is that is very wrong.
const aYear = 365 * 24 * time.Hour

// wrongClocks are the wall clocks of a cluster's nodes, some of them a year ahead.
type wrongClocks struct{ hosts sync.Map }

func (w *wrongClocks) wall(host string) func() time.Time {
	return func() time.Time {
		if _, wrong := w.hosts.Load(host); wrong {
			return time.Now().Add(aYear)
		}
		return time.Now()
	}
}

func (w *wrongClocks) set(m *cluster.Member) { w.hosts.Store(m.Host, true) }

func (w *wrongClocks) mend() { w.hosts.Clear() }

func TestOneClockAYearAheadChangesNothing(t *testing.T) {
	for _, where := range []string{"leader", "follower"} {
		t.Run(where, func(t *testing.T) {
			in(t, func(t *testing.T) {
				var ahead wrongClocks
				c := cluster.New(t, 3, cluster.Options{Wall: ahead.wall})
				token := c.Leader().MustIssue(t, "ada", time.Hour)
				c.AwaitAgreed()
				key := keysOf(c.Leader())["ada"]
				wrong := c.Leader()
				if where == "follower" {
					wrong = c.Follower()
				}
				ahead.set(wrong)

				time.Sleep(10 * time.Minute)
				for _, m := range c.Members() {
					if got := m.MustVerify(t, token); got != valid {
						t.Errorf("at %s: a clock a year ahead made the token %v", m.Host, got)
					}
				}
				if keysOf(c.Leader())["ada"] != key {
					t.Error("a clock a year ahead rotated a key early")
				}
				if c.Leader() == wrong {
					t.Error("a node leads whose clock is a year ahead")
				}
				laterTokensExpireOnTime(t, c, wrong)
			})
		})
	}
}

func laterTokensExpireOnTime(t *testing.T, c *cluster.Cluster, issuer *cluster.Member) {
	t.Helper()
	issued := time.Now()
	token := issuer.MustIssue(t, "bob", 10*time.Second)
	time.Sleep(9*time.Second - time.Since(issued))
	for _, m := range c.Members() {
		if got := m.MustVerify(t, token); got != valid {
			t.Errorf("at %s: a token of 10 s after 9 s: %v", m.Host, got)
		}
	}
	time.Sleep(2500 * time.Millisecond) // to whole seconds, and the clock bound
	for _, m := range c.Members() {
		if got := m.MustVerify(t, token); got != expired {
			t.Errorf("at %s: a token of 10 s after 11.5 s: %v", m.Host, got)
		}
	}
	nothingOverdue(t, c)
}

func TestWithoutTheTimeNothingIsIssuedAndRevocationGoesOn(t *testing.T) {
	in(t, func(t *testing.T) {
		var apart sync.Map // by how much each node's clock is wrong
		c := cluster.New(t, 3, cluster.Options{Wall: func(name string) func() time.Time {
			return func() time.Time {
				off, _ := apart.LoadOrStore(name, time.Duration(0))
				return time.Now().Add(off.(time.Duration))
			}
		}})
		token := c.Leader().MustIssue(t, "ada", time.Hour)
		for i, m := range c.Members() {
			apart.Store(m.Host, time.Duration(i)*time.Hour)
		}
		time.Sleep(30 * time.Second)
		leader := c.Leader()
		if _, err := leader.Issue(t.Context(), "bob", time.Minute); !errors.Is(err, fault.ErrTimeUnknown) {
			t.Errorf("issue while no two clocks agree: %v", err)
		}
		if got := leader.MustVerify(t, token); got != valid {
			t.Errorf("verify while no two clocks agree: %v", got)
		}
		if _, err := leader.Revoke(t.Context(), "ada"); err != nil {
			t.Errorf("revoke while no two clocks agree: %v", err)
		}
		if got := leader.MustVerify(t, token); got != keyNotFound {
			t.Errorf("after the revocation: %v", got)
		}
	})
}

func TestRetiringKeysAreLimited(t *testing.T) {
	in(t, func(t *testing.T) {
		two := uint32(2)
		c := cluster.New(t, 3, cluster.Options{Settings: &v1.Settings{MaxRetiringKeys: &two}})
		var tokens []string
		for range 2 {
			tokens = append(tokens, c.Leader().MustIssue(t, "ada", time.Hour))
			if _, err := c.Leader().Rotate(t.Context(), "ada"); err != nil {
				t.Fatal(err)
			}
		}
		tokens = append(tokens, c.Leader().MustIssue(t, "ada", time.Hour))
		_, err := c.Leader().Rotate(t.Context(), "ada")
		var refusal *fsm.Refusal
		if !errors.As(err, &refusal) || refusal.Code != fsm.CodeTooManyRetiring || refusal.RetryAt.IsZero() {
			t.Errorf("a third retiring key: %v", err)
		}
		c.AwaitAgreed()
		for _, token := range tokens {
			if got := c.Follower().MustVerify(t, token); got != valid {
				t.Errorf("a token of a retiring key: %v", got)
			}
		}
	})
}

func TestALeaderWithAWrongClockOutlivesATransferToNobody(t *testing.T) {
	in(t, func(t *testing.T) {
		var ahead wrongClocks
		c := cluster.New(t, 3, cluster.Options{Wall: ahead.wall})
		c.Leader().MustIssue(t, "ada", time.Hour)
		wrong := c.Leader()
		c.Partition(c.Follower()) // the likely successor
		ahead.set(wrong)
		time.Sleep(30 * time.Second)
		c.Heal()
		ahead.mend()
		c.AwaitSettled() // all three run still
		c.Await("tokens to be issued again", func() bool {
			_, err := c.Leader().Issue(t.Context(), "bob", time.Minute)
			return err == nil
		})
	})
}

// A follower with a wrong clock does not stand, and lets go of a leader that died as quickly as the others.
func TestAWrongClockHoldsUpNoElection(t *testing.T) {
	in(t, func(t *testing.T) {
		var ahead wrongClocks
		c := cluster.New(t, 3, cluster.Options{Wall: ahead.wall})
		wrong := c.Follower()
		ahead.set(wrong)
		time.Sleep(10 * time.Second)
		c.Kill(c.Leader()) // the third needs the vote of the one with the wrong clock
		lost := time.Now()
		if c.Leader() == wrong {
			t.Error("a node leads whose clock is wrong")
		}
		if took := time.Since(lost); took > 3*time.Second {
			t.Errorf("with a wrong clock among the followers, another led after %v only", took)
		}
	})
}

func TestLeadershipComesToRestWithAClockThatIsRight(t *testing.T) {
	in(t, func(t *testing.T) {
		var ahead wrongClocks
		c := cluster.New(t, 5, cluster.Options{Wall: ahead.wall})
		ahead.set(c.Follower())
		ahead.set(c.Leader())
		time.Sleep(20 * time.Second)
		leader := c.Leader()
		term := leaderTerm(t, leader)
		if _, wrong := ahead.hosts.Load(leader.Host); wrong {
			t.Error("a node leads whose clock is wrong, though three are right")
		}
		time.Sleep(5 * time.Minute)
		if c.Leader() != leader || leaderTerm(t, leader) != term {
			t.Error("leadership goes on changing hands")
		}
	})
}

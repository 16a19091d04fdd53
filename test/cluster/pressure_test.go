package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/node"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1/peerv1connect"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// stranger speaks HTTP/2 to the members from a host that is none.
func stranger(t *testing.T, c *cluster.Cluster) *http.Client {
	t.Helper()
	dial := c.Net.Dialer("stranger")
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return dial(ctx, network, address)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func urlOf(m *cluster.Member) string { return "http://" + m.Host + ":7400" }

// Whoever asks the leader, in vain, how far it has applied the log must not take the places of the members' own questions.
func TestQuestionsForAPositionThatNeverComesLeaveTheNodesFresh(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		token := c.Leader().MustIssue(t, "ada", time.Hour)
		c.AwaitAgreed()
		ctx, cancel := context.WithCancel(t.Context())
		var askers sync.WaitGroup
		defer askers.Wait()
		defer cancel()
		asks := peerv1connect.NewPeerServiceClient(stranger(t, c), urlOf(c.Leader()))
		for range 256 {
			askers.Go(func() {
				for ctx.Err() == nil {
					_, _ = asks.Applied(ctx, connect.NewRequest(&peerv1.AppliedRequest{Position: 1 << 60}))
				}
			})
		}
		time.Sleep(bound + time.Second)
		for _, m := range c.Members() {
			if res, err := m.Verify(t.Context(), token); err != nil || !res.GetValid() {
				t.Errorf("%s: %v, %v", m.Host, res, err)
			}
		}
	})
}

// A member that is down makes revocations slow. They must not take the places of all other writes meanwhile.
func TestRevocationsThatAreWaitedOutLeaveRoomForOtherWrites(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		leader := c.Leader()
		leader.MustIssue(t, "ada", time.Hour)
		c.Kill(c.Follower())
		api := stranger(t, c)
		keys := keyquorumv1connect.NewKeyServiceClient(api, urlOf(leader))
		tokens := keyquorumv1connect.NewTokenServiceClient(api, urlOf(leader))
		var revokers sync.WaitGroup
		defer revokers.Wait()
		for i := range 1024 { // 164 a second, say
			revokers.Go(func() {
				_, _ = keys.Revoke(t.Context(), connect.NewRequest(&v1.RevokeRequest{Subject: fmt.Sprint("user-", i)}))
			})
		}
		time.Sleep(time.Second)
		if _, err := tokens.Issue(t.Context(), connect.NewRequest(&v1.IssueRequest{Subject: "eve"})); err != nil {
			t.Errorf("a token for somebody else: %v", err)
		}
	})
}

func slowLinks(c *cluster.Cluster, d time.Duration) {
	for _, a := range c.Members() {
		for _, b := range c.Members() {
			if a != b {
				c.Net.Delay(a.Host, b.Host, d)
			}
		}
	}
}

// Whoever is no member gets no tick, and has none committed either.
func TestAStrangerHasNoTicksCommitted(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		slowLinks(c, time.Millisecond)
		leader := c.Leader()
		asks := peerv1connect.NewPeerServiceClient(stranger(t, c), urlOf(leader))
		before := leader.View().Position()
		for start := time.Now(); time.Since(start) < 4*time.Second; {
			_, err := asks.Tick(t.Context(), connect.NewRequest(&peerv1.TickRequest{NodeId: "nobody", Waited: true}))
			if err == nil {
				t.Error("it was answered")
			}
			time.Sleep(time.Millisecond)
		}
		entries := leader.View().Position() - before
		t.Logf("%d log entries a second", entries/4)
		if entries > 100 {
			t.Errorf("%d log entries in 4 s", entries)
		}
	})
}

// slow is a store whose writes take a while.
type slow struct {
	*raft.InmemStore
	takes *atomic.Int64
}

func (d *slow) StoreLogs(logs []*raft.Log) error {
	time.Sleep(time.Duration(d.takes.Load()))
	return d.InmemStore.StoreLogs(logs)
}

func (d *slow) StoreLog(log *raft.Log) error { return d.StoreLogs([]*raft.Log{log}) }

// A leader's disk that takes a while, and stays within the bound, makes writes slow and leaves verification as it is.
func TestALeaderWhoseDiskIsSlowLeavesTheNodesFresh(t *testing.T) {
	for _, takes := range []time.Duration{700 * time.Millisecond, time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			in(t, func(t *testing.T) {
				disks := make(map[string]*atomic.Int64)
				c := cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) {
					d := &slow{InmemStore: cfg.Logs.(*raft.InmemStore), takes: new(atomic.Int64)}
					disks[cfg.Name] = d.takes
					cfg.Logs = d
				}})
				leader := c.Leader()
				token := leader.MustIssue(t, "ada", time.Hour)
				c.AwaitAgreed()
				disks[leader.Host].Store(int64(takes))
				asked, failed := 0, 0
				var why error
				for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(100 * time.Millisecond) {
					for _, m := range c.Members() {
						asked++
						if _, err := m.Verify(t.Context(), token); err != nil {
							failed++
							why = err
						}
					}
				}
				disks[leader.Host].Store(0)
				t.Logf("leader still leads: %v", leader.Leading())
				if failed > 0 {
					t.Errorf("%d of %d verifications failed: %v", failed, asked, why)
				}
			})
		})
	}
}

// With ErrConflict nothing was revoked: the key that the caller saw may be retiring, and its tokens are as good as before.
func TestARevocationThatConflictsRevokesNothing(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		leader := c.Leader()
		token := leader.MustIssue(t, "ada", time.Hour)
		user, _ := leader.View().User("ada")
		if _, err := leader.Rotate(t.Context(), "ada"); err != nil {
			t.Fatal(err)
		}
		_, err := leader.Node().Revoke(t.Context(), cluster.Caller, &v1.RevokeRequest{Subject: "ada", ExpectedKeyId: user.Active.ID.String()})
		if !errors.Is(err, &fsm.Refusal{Code: fsm.CodeKeyMismatch}) {
			t.Fatal(err)
		}
		if got := leader.MustVerify(t, token); got != valid {
			t.Errorf("after a conflict the token is %v", got)
		}
	})
}

// A founder that was started with a long heartbeat, and asked for nothing, is told what is wrong with its heartbeat.
func TestAFounderWithALongHeartbeat(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 1, cluster.Options{Unfounded: true, Config: func(cfg *node.Config) { cfg.Timing.Heartbeat = 3 * time.Second }})
		_, err := c.Members()[0].Node().Init(t.Context(), cluster.Caller, &v1.InitRequest{})
		if err == nil || !strings.Contains(err.Error(), "heartbeat") {
			t.Errorf("it asked for no setting, and is told %q", err)
		}
	})
}

package bench

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// BenchmarkRevoke has callers revoke users' keys at the leader of five members, each as soon as its last one has returned,
// which says that no member accepts the key any more. Every member, and every caller, shares the machine and its disk.
//
//   - callers=N: all is well.
//   - gone: a follower has been cut off for longer than it can be fresh. What the first revocation after the cut took, which
//     had to wait for that, is first-ms.
func BenchmarkRevoke(b *testing.B) {
	c := newCluster(b, 5)
	const known = 1000
	issueAll(b, c.tokens(c.leader()), 64, known, func(i int) *v1.IssueRequest { return request(user(i), time.Hour) })
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { c.benchRevoke(b, callers, 5) })
	}
	c.notLeading(c.leader()).seat.cfg.Plug.Pull()
	leader := c.leader()
	start := time.Now()
	if _, err := c.keys(leader).Revoke(b.Context(), connect.NewRequest(&v1.RevokeRequest{Subject: user(0)})); err != nil {
		b.Fatal(err)
	}
	first := time.Since(start)
	b.Run("gone/callers=16", func(b *testing.B) {
		c.benchRevoke(b, 16, 4)
		b.ReportMetric(ms(first), "first-ms")
	})
}

func (c *cluster) keys(m *member) keyquorumv1connect.KeyServiceClient {
	return keyquorumv1connect.NewKeyServiceClient(c.http, "http://"+m.RPCAddress)
}

// benchRevoke wants each revocation to be applied by so many members.
func (c *cluster) benchRevoke(b *testing.B, callers, applied int) {
	to := c.keys(c.leader())
	disk := fsyncs(b)
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	for range min(callers, b.N) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < b.N; i = int(next.Add(1)) - 1 {
				start := time.Now()
				res, err := to.Revoke(b.Context(), connect.NewRequest(&v1.RevokeRequest{Subject: user(i % 1000)}))
				took[i] = time.Since(start)
				if err != nil || int(res.Msg.GetFinality().GetAppliedNodes()) != applied {
					b.Errorf("%v, %v; it took %v", res, err, took[i])
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "revocations/s")
	b.ReportMetric(ms(quantile(took, .5)), "p50-ms")
	b.ReportMetric(ms(quantile(took, .99)), "p99-ms")
	b.ReportMetric(ms(slices.Max(took)), "max-ms")
	b.ReportMetric(disk, "fsyncs/s")
}

// BenchmarkConsistency verifies at one member of three, by turns of a hundred, from its own state (BOUNDED) and after a
// round (LINEARIZABLE). An operation is one of each.
func BenchmarkConsistency(b *testing.B) {
	c := newCluster(b, 3)
	leader := c.leader()
	raw := c.someTokens(leader, 1000)
	for _, at := range []*member{leader, c.notLeading(leader)} {
		where := "leader"
		if at != leader {
			where = "follower"
		}
		tokens := c.tokens(at)
		ask := func(level v1.VerifyRequest_Consistency) func(i int) error {
			return func(i int) error {
				res, err := tokens.Verify(b.Context(), connect.NewRequest(&v1.VerifyRequest{
					Token: raw[i%len(raw)], Consistency: level, OmitClaims: true,
				}))
				if err == nil && !res.Msg.GetValid() {
					err = fmt.Errorf("a good token was called %s", res.Msg.GetReason())
				}
				return err
			}
		}
		for _, callers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/callers=%d", where, callers), func(b *testing.B) {
				c.benchConsistency(b, callers, ask(v1.VerifyRequest_LINEARIZABLE), ask(v1.VerifyRequest_BOUNDED))
			})
		}
	}
}

func (c *cluster) benchConsistency(b *testing.B, callers int, linearizable, bounded func(i int) error) {
	const turn = 100
	var total [2]cost
	entries := c.leader().View().Position()
	for i := 0; i < b.N && !b.Failed(); i += turn {
		for k, do := range []func(int) error{linearizable, bounded} {
			took := round(b, callers, i, min(turn, b.N-i), do)
			total[k].time += took.time
			total[k].cpu += took.cpu
		}
	}
	entries = c.leader().View().Position() - entries
	n := float64(b.N)
	b.ReportMetric(0, "ns/op") // of both together: it says nothing
	b.ReportMetric(n/total[0].time.Seconds(), "linearizable/s")
	b.ReportMetric(n/total[1].time.Seconds(), "bounded/s")
	b.ReportMetric(float64(total[0].time)/float64(total[1].time), "x-bounded")
	b.ReportMetric(float64(total[0].cpu)/float64(max(1, total[1].cpu)), "x-bounded-cpu")
	b.ReportMetric(float64(entries)/n, "entries/op")
}

package tokens_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/node/freshness"
	"github.com/keyquorum/keyquorum/node/tokens"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// BenchmarkVerify is all that a member does between two RPCs: it finds the key among those of so many users, opens it,
// checks the token, and reads the claims for the answer. The tokens are of users picked at random, so the processor's
// caches hold no more of the state than they would.
func BenchmarkVerify(b *testing.B) {
	for _, users := range []int{1, 100_000, 1_000_000} {
		r := newCrowd(b, users)
		raw := r.sample(b, min(users, 10_000))
		for _, omit := range []bool{false, true} {
			name := fmt.Sprintf("users=%d/claims=%t", users, !omit)
			b.Run(name, func(b *testing.B) { r.benchVerify(b, raw, omit) })
		}
	}
}

// benchVerify runs on as many cores as -cpu says, each with a caller of its own.
func (c *crowd) benchVerify(b *testing.B, raw []string, omit bool) {
	b.ReportAllocs()
	var callers atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for i := int(callers.Add(1)) * 5003; pb.Next(); i++ {
			req := v1.VerifyRequest{Token: raw[i%len(raw)], OmitClaims: omit}
			if res, err := c.Verify(b.Context(), &req); err != nil || !res.GetValid() {
				b.Error(res.GetReason(), err)
				return
			}
		}
	})
}

// BenchmarkVerifyAge tells what it costs a verification to know how old the state is. By turns, a hundred at a time, it
// verifies at BOUNDED with the two clocks of a node, at STALE_OK with the same, and at BOUNDED by an age that is read from
// no clock. An operation is one of each; the ratios are of one run, and of the median turn.
func BenchmarkVerifyAge(b *testing.B) {
	c := newCrowd(b, 100_000)
	raw := c.sample(b, 10_000)
	clocked := c.withClocks(b)
	for _, omit := range []bool{false, true} {
		b.Run(fmt.Sprintf("claims=%t", !omit), func(b *testing.B) {
			ask := func(s *tokens.Service, level v1.VerifyRequest_Consistency) func(int) {
				return func(i int) {
					req := v1.VerifyRequest{Token: raw[i%len(raw)], OmitClaims: omit, Consistency: level}
					if res, err := s.Verify(b.Context(), &req); err != nil || !res.GetValid() {
						b.Fatal(res.GetReason(), err)
					}
				}
			}
			took := inTurns(b, ask(clocked, bounded), ask(clocked, staleOK), ask(c.Service, bounded))
			b.ReportMetric(0, "ns/op") // of the three together: it says nothing
			b.ReportMetric(took[0], "bounded-ns")
			b.ReportMetric(took[0]/took[1], "x-stale-ok")
			b.ReportMetric(took[0]/took[2], "x-no-clock")
		})
	}
}

// inTurns does each a hundred times, and so on, and gives the nanoseconds of one in each one's median turn. Each is given
// other numbers than the one before it: the processor's caches would hold what that has just used.
func inTurns(b *testing.B, what ...func(i int)) (median []float64) {
	const turn = 100
	took := make([][]float64, len(what))
	for first := 0; first < b.N; first += turn {
		for k, do := range what {
			start := time.Now()
			for i := range turn {
				do((first+i)*5003 + k*3331)
			}
			took[k] = append(took[k], float64(time.Since(start))/turn)
		}
	}
	for _, t := range took {
		slices.Sort(t)
		median = append(median, t[len(t)/2])
	}
	return median
}

// withClocks is the crowd's service with a Freshness that reads a node's clocks.
func (c *crowd) withClocks(b *testing.B) *tokens.Service {
	b.Helper()
	f := freshness.New(freshness.Config{
		State: c.fsm.State, Wait: c.fsm.Wait, Mono: bootTime, Wall: time.Now,
		Tick: func(context.Context, bool) (uint64, error) { return c.fsm.View().Position(), nil },
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	if err := f.Round(b.Context(), true); err != nil {
		b.Fatal(err)
	}
	cfg := c.cfg
	cfg.Freshness = f
	return tokens.New(cfg)
}

// BenchmarkIssue is all that the leader does for an Issue, with a log that is a function call.
func BenchmarkIssue(b *testing.B) {
	r := newCrowd(b, 100_000)
	requests := make([]*v1.IssueRequest, 1000)
	for i := range requests {
		requests[i] = r.request(b, i*97)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.issue(b, requests[i%len(requests)])
		r.commands = r.commands[:0]
	}
}

// crowd is a rig with many users who have a key each.
type crowd struct {
	*rig
	cfg   tokens.Config
	users int
}

func newCrowd(b *testing.B, users int) *crowd {
	b.Helper()
	c := &crowd{users: users}
	c.rig = newRig(b, func(cfg *tokens.Config) { c.cfg = *cfg })
	var batch []fsm.Command
	for i := range users {
		random, sealed, err := c.cfg.Keyring.NewKey(subject(i))
		if err != nil {
			b.Fatal(err)
		}
		batch = append(batch, fsm.Command{Op: fsm.Issue{
			Subject: subject(i), TTL: time.Hour, Candidate: &fsm.Candidate{Random: random, Sealed: sealed},
		}})
		if len(batch) == 1000 || i == users-1 {
			c.apply(b, batch)
			batch = batch[:0]
		}
	}
	return c
}

func (c *crowd) apply(b *testing.B, commands []fsm.Command) {
	b.Helper()
	data, err := fsm.EncodeEntry(fsm.Entry{Time: time.Now(), Commands: commands})
	if err != nil {
		b.Fatal(err)
	}
	c.index++
	for _, res := range c.fsm.Apply(&raft.Log{Index: c.index, Type: raft.LogCommand, Data: data}).([]fsm.Result) {
		if res.Err != nil {
			b.Fatal(res.Err)
		}
	}
}

// sample gives tokens of n users.
func (c *crowd) sample(b *testing.B, n int) []string {
	b.Helper()
	raw := make([]string, n)
	for i, u := range rand.New(rand.NewPCG(1, 2)).Perm(c.users)[:n] {
		raw[i] = c.issue(b, c.request(b, u)).GetToken()
	}
	return raw
}

// request asks for a token with an application's claims.
func (c *crowd) request(b *testing.B, i int) *v1.IssueRequest {
	b.Helper()
	claims, err := structpb.NewStruct(map[string]any{"role": "admin", "tenant": "blue", "level": 7})
	if err != nil {
		b.Fatal(err)
	}
	return &v1.IssueRequest{Subject: subject(i), Ttl: durationpb.New(time.Hour), Claims: claims}
}

func subject(i int) string { return fmt.Sprintf("user-%08d", i) }

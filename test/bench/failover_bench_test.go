package bench

import (
	"context"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
)

// BenchmarkFailover cuts the leader of three members off, from one moment to the next, and sees how long it takes until
// another issues a token. An operation is one such kill; the killed member's return is not timed. A time of 20x gives
// twenty.
func BenchmarkFailover(b *testing.B) {
	c := newCluster(b, 3)
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		c.awaitComplete()
		victim := c.leader()
		c.issueAnywhere(c.members)
		b.StartTimer()
		start := time.Now()
		victim.seat.cfg.Plug.Pull()
		c.issueAnywhere(slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return m == victim }))
		took = append(took, time.Since(start))
		b.StopTimer()
		c.restart(victim)
		b.StartTimer()
	}
	b.ReportMetric(ms(quantile(took, 0)), "min-ms")
	b.ReportMetric(ms(quantile(took, .5)), "p50-ms")
	b.ReportMetric(ms(quantile(took, 1)), "max-ms")
}

// issueAnywhere asks one member after the other, every few milliseconds, until one has issued a token.
func (c *cluster) issueAnywhere(members []*member) {
	c.b.Helper()
	next := 0
	c.await("token issued", func() bool {
		ctx, cancel := context.WithTimeout(c.b.Context(), 250*time.Millisecond)
		defer cancel()
		to := c.tokens(members[next%len(members)])
		next++
		_, err := to.Issue(ctx, connect.NewRequest(request("ada", time.Hour)))
		return err == nil
	})
}

// restart ends a member and starts it again on what it kept.
func (c *cluster) restart(m *member) {
	c.b.Helper()
	if err := m.end(); err != nil {
		c.b.Fatalf("end %s: %v", m.Name(), err)
	}
	c.members[slices.Index(c.members, m)] = m.seat.start(c.b)
}

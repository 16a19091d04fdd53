package bench

import (
	"flag"
	"testing"
	"time"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

var wave = flag.Int("wave", 20_000, "users whose tokens expire in the same second, for BenchmarkRotation")

// BenchmarkRotation has the tokens of many users expire in one and the same second, on three members that share the
// machine and its disk, and sees how fast the keys are rotated. An operation is one such wave; issuing the tokens is
// not timed.
//
// The lag is from the expiry until the rotation is applied at the leader. Nearly all of it is the wave itself: the last
// key waits for all others.
func BenchmarkRotation(b *testing.B) {
	c := newCluster(b, 3)
	leader := c.leader()
	var lags []time.Duration
	disk, total, first := 0.0, time.Duration(0), time.Duration(0)
	for b.Loop() {
		b.StopTimer()
		disk = fsyncs(b)
		expiry := c.issueWave(leader, *wave)
		rotated := leader.rotations(b)
		c.awaitTime(expiry)
		b.StartTimer()
		w := leader.watchWave(b, expiry, rotated, *wave)
		lags, total, first = append(lags, w...), total+w[len(w)-1], first+w[0]
	}
	b.ReportMetric(float64(len(lags))/total.Seconds(), "rotations/s")
	b.ReportMetric(ms(first)/float64(b.N), "first-ms")
	b.ReportMetric(ms(quantile(lags, .5)), "lag-p50-ms")
	b.ReportMetric(ms(quantile(lags, .99)), "lag-p99-ms")
	b.ReportMetric(ms(quantile(lags, 1)), "lag-max-ms")
	b.ReportMetric(disk, "fsyncs/s")
}

// issueWave gives n users a token each that expires at the time it gives. It first finds out how long that will take.
func (c *cluster) issueWave(leader *member, n int) time.Time {
	c.b.Helper()
	issue := func(first, n int, ttl func() time.Duration) time.Duration {
		start := time.Now()
		issueAll(c.b, c.tokens(leader), 256, n, func(i int) *v1.IssueRequest { return request(user(first+i), ttl()) })
		return time.Since(start)
	}
	const trial = 2000
	took := issue(n, trial, func() time.Duration { return time.Hour })
	expiry := time.Now().Add(2*took*time.Duration(n)/trial + 5*time.Second).Truncate(time.Second)
	// An expiry rounds up to the second, and counts from when the log has the request.
	const onTheWay = 800 * time.Millisecond
	issue(0, n, func() time.Duration { return (time.Until(expiry) - onTheWay).Truncate(time.Millisecond) })
	if left := time.Until(expiry); left < 2*time.Second {
		c.b.Fatalf("issuing %d tokens was slower than the trial: %s left until they expire", n, left)
	}
	return expiry
}

func (c *cluster) awaitTime(t time.Time) {
	c.b.Helper()
	c.await("expiry", func() bool { return !time.Now().Before(t) })
}

func (m *member) rotations(b *testing.B) int {
	sum, _ := m.seat.counter(b, "keyquorum_rotations_total")
	return int(sum)
}

// watchWave gives for each of n rotations how long after the expiry it was seen, in order, to some milliseconds.
func (m *member) watchWave(b *testing.B, expiry time.Time, before, n int) []time.Duration {
	b.Helper()
	lags := make([]time.Duration, 0, n)
	seen := func() bool {
		done := min(n, m.rotations(b)-before)
		for at := time.Since(expiry); len(lags) < done; {
			lags = append(lags, at)
		}
		return len(lags) == n
	}
	if !within(b.Context(), patience, seen) {
		b.Fatalf("%d of %d keys were rotated within %s; the member leads: %t", len(lags), n, patience, m.Leading())
	}
	return lags
}

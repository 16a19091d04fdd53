package cluster_test

import (
	"slices"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/test/cluster"
)

// TestWhatACutOffMemberCostsRevocations cuts one follower of five members off, again and again, and revokes at once, and once
// more. docs/PERFORMANCE.md has what this prints with -v.
func TestWhatACutOffMemberCostsRevocations(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 5, cluster.Options{})
		revoke := func(expired uint32) time.Duration {
			begun := time.Now()
			res, err := c.Leader().Revoke(t.Context(), "ada")
			took := time.Since(begun)
			if err != nil || res.GetFinality().GetExpiredNodes() != expired || res.GetFinality().GetAppliedNodes() != 5-expired {
				t.Errorf("%v, %v; it took %v", res, err, took)
			}
			return took
		}
		var healthy, first, later []time.Duration
		for i := range 100 {
			c.Leader().MustIssue(t, "ada", time.Hour)
			healthy = append(healthy, revoke(0))
			c.Partition(c.Followers()[i%4])
			time.Sleep(time.Duration(i) * 7 * ms) // not in step with anything
			first = append(first, revoke(1))
			later = append(later, revoke(1))
			c.Heal()
			c.AwaitSettled()
		}
		for _, m := range []struct {
			when          string
			took          []time.Duration
			least, atMost time.Duration
		}{
			{"all is well", healthy, 0, 10 * ms},
			{"a follower was cut off just before", first, bound / 2, window + 10*ms},
			{"it has been for longer than it can be fresh", later, 0, 10 * ms},
		} {
			slices.Sort(m.took)
			t.Logf("%s: p50 %v, p99 %v, max %v", m.when, m.took[50], m.took[98], m.took[99])
			if m.took[0] < m.least || m.took[99] > m.atMost {
				t.Errorf("%s, revocations took from %v to %v, where %v to %v was expected", m.when, m.took[0], m.took[99], m.least, m.atMost)
			}
		}
	})
}

package cluster_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/node"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// A member that is far away, and not further than the bound allows, is fresh.
func TestAFarMemberIsFresh(t *testing.T) {
	for s, oneWays := range map[time.Duration][]time.Duration{
		2 * time.Second: {100 * time.Millisecond},
	} {
		for _, d := range oneWays {
			t.Run(fmt.Sprintf("S=%v,oneway=%v", s, d), func(t *testing.T) {
				in(t, func(t *testing.T) {
					c := cluster.New(t, 4, cluster.Options{
						Settings: &v1.Settings{MaxStaleness: durationpb.New(s)},
						Config: func(cfg *node.Config) {
							cfg.Timing.Heartbeat = s / 10
							cfg.Replica = cfg.Name == "n4"
						},
					})
					token := c.Leader().MustIssue(t, "ada", time.Hour)
					c.AwaitAgreed()
					far := c.Members()[3]
					for _, m := range c.Members()[:3] {
						c.Net.Delay(far.Host, m.Host, d)
					}
					asked, failed := 0, 0
					for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(50 * time.Millisecond) {
						asked++
						if _, err := far.Verify(t.Context(), token); err != nil {
							failed++
						}
					}
					if failed > 0 {
						t.Errorf("%d of %d verifications failed", failed, asked)
					}
				})
			})
		}
	}
}

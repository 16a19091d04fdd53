package cluster_test

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/node"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// forgotten is a connection that a box in between has forgotten: it takes what is written, and nothing comes any more.
type forgotten struct {
	net.Conn
	made  int64
	epoch *atomic.Int64
}

func (c *forgotten) gone() bool { return c.epoch.Load() != c.made }

func (c *forgotten) Write(b []byte) (int, error) {
	if c.gone() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *forgotten) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.gone() {
			return n, err
		}
	}
}

// A member whose connection to the leader is dead, and that could make another one, does so within the bound.
func TestAConnectionThatIsForgottenLeavesANodeFresh(t *testing.T) {
	in(t, func(t *testing.T) {
		var epoch atomic.Int64
		c := cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) {
			dial := cfg.Dial
			cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				if err != nil || !strings.HasSuffix(address, ":7400") {
					return conn, err
				}
				return &forgotten{Conn: conn, made: epoch.Load(), epoch: &epoch}, nil
			}
		}})
		token := c.Leader().MustIssue(t, "ada", time.Hour)
		c.AwaitAgreed()
		epoch.Add(1)
		asked, failed := 0, 0
		for start := time.Now(); time.Since(start) < 20*time.Second; time.Sleep(20 * time.Millisecond) {
			for _, m := range c.Followers() {
				asked++
				if _, err := m.Verify(t.Context(), token); err != nil {
					failed++
					if failed == 1 {
						t.Logf("%v after: %v", time.Since(start), err)
					}
				}
			}
		}
		if failed > 0 {
			t.Errorf("%d of %d verifications failed", failed, asked)
		}
	})
}

package cluster_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/node"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// A node that joins cannot be fresh until it has what was revoked before: it is no reason to wait.
func TestARevocationDoesNotWaitForANodeThatIsJoining(t *testing.T) {
	in(t, func(t *testing.T) {
		disks := make(map[string]*atomic.Int64)
		c := cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) {
			d := &slow{InmemStore: cfg.Logs.(*raft.InmemStore), takes: new(atomic.Int64)}
			if cfg.Name == "n4" { // as a large snapshot does, it takes a while
				d.takes.Store(int64(30 * time.Second))
			}
			disks[cfg.Name] = d.takes
			cfg.Logs = d
		}})
		leader := c.Leader()
		leader.MustIssue(t, "ada", time.Hour)
		joining := c.Add()
		c.Await("the record", func() bool { _, ok := leader.View().Member(joining.UUID); return ok })
		start := time.Now()
		res, err := leader.Revoke(t.Context(), "ada")
		if took := time.Since(start); err != nil || took > time.Second {
			t.Errorf("it took %v: %v, %v", took, res.GetFinality(), err)
		}
		disks["n4"].Store(0)
	})
}

// A member that is far away, and not further than the bound allows, is fresh.
func TestAFarMemberIsFresh(t *testing.T) {
	for s, oneWays := range map[time.Duration][]time.Duration{
		time.Second:     {75 * time.Millisecond, 100 * time.Millisecond},
		2 * time.Second: {150 * time.Millisecond},
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

// blind is a discovery that knows no Raft addresses: they come from the records.
type blind struct{ hosts []string }

func (b blind) Peers() []string {
	var all []string
	for _, h := range b.hosts {
		all = append(all, h+":7400")
	}
	return all
}
func (blind) RaftAddress(string) (string, bool) { return "", false }
func (blind) Changed() <-chan struct{}          { return nil }

// The data directory of a member that is cut off is brought to another machine, and started there under the same name, as
// an orchestrator with network volumes does it. The old process is fresh for a while.
func TestARevocationWaitsForAProcessThatWasReplacedWhileItWasCutOff(t *testing.T) {
	in(t, func(t *testing.T) {
		var moved atomic.Bool // the name n3 leads to n4
		names := func(host string, dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
			return func(ctx context.Context, network, address string) (net.Conn, error) {
				if moved.Load() && host != "n3" {
					address = strings.Replace(address, "n3:", "n4:", 1)
				}
				return dial(ctx, network, address)
			}
		}
		c := cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) {
			cfg.Discovery = blind{}
			if cfg.Name != "n1" {
				cfg.Discovery = blind{hosts: []string{"n1"}}
			}
			cfg.Dial = names(cfg.Name, cfg.Dial)
		}})
		token := c.Leader().MustIssue(t, "ada", time.Hour)
		c.AwaitAgreed()
		old := c.Members()[2]
		if old.Leading() {
			t.Skip("it leads")
		}
		c.Partition(old)
		c.Net.Cut("n3", "n4")
		moved.Store(true)
		c.Net.Reset("n1", "n3")
		c.Net.Reset("n2", "n3")
		cfg := node.Config{
			ID: old.UUID, Name: "n3", RPCAddress: "n3:7400", RaftAddress: "n3:7401", Dial: names("n4", c.Net.Dialer("n4")),
			Logs: old.Logs, Stable: old.Logs, Snapshots: old.Snapshots, Keyring: c.Keyring, Discovery: blind{hosts: []string{"n1"}},
		}
		var err error
		if cfg.RPCListener, err = c.Net.Listen("n4:7400"); err != nil {
			t.Fatal(err)
		}
		if cfg.RaftListener, err = c.Net.Listen("n4:7401"); err != nil {
			t.Fatal(err)
		}
		twin, err := node.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- twin.Run(ctx) }()
		defer func() { stop(); <-ended }()
		start := time.Now()
		time.Sleep(2 * time.Second)
		leader := c.Leader()
		res, err := leader.Revoke(t.Context(), "ada")
		t.Logf("%v, %v, %v after the partition; the new process says %v", res.GetFinality(), err, time.Since(start), twin.Ready())
		if res, err := old.Verify(t.Context(), token); err == nil && res.GetValid() {
			t.Error("the old process accepts what was revoked for good")
		}
	})
}

package cluster_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/node"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// regions has the members start in the given regions, in their order.
func regions(names ...string) func(*node.Config) {
	return func(cfg *node.Config) {
		for i, region := range names {
			if cfg.Name == fmt.Sprintf("n%d", i+1) {
				cfg.Region = region
			}
		}
	}
}

func preferLeaderIn(t *testing.T, c *cluster.Cluster, region string) {
	t.Helper()
	_, err := c.Leader().Node().UpdateSettings(t.Context(), cluster.Caller, &v1.UpdateSettingsRequest{
		Settings: &v1.Settings{LeaderRegion: &region},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// staysLed fails if leadership changes in the time.
func staysLed(t *testing.T, by *cluster.Member, d time.Duration) {
	t.Helper()
	term := termOf(t, by)
	time.Sleep(d)
	if !by.Leading() || termOf(t, by) != term {
		t.Errorf("%s leads: %v; its term was %d and is %d", by.Host, by.Leading(), term, termOf(t, by))
	}
}

func termOf(t *testing.T, m *cluster.Member) uint64 {
	t.Helper()
	status, err := m.Node().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return status.GetTerm()
}

func TestLeadershipMovesToThePreferredRegionAndStays(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{Config: regions("eu", "us", "ap")})
		us := c.Members()[1]
		staysLed(t, c.Members()[0], 30*time.Second)
		preferLeaderIn(t, c, "us")
		c.Await("the voter in us to lead", us.Leading)
		us.MustIssue(t, "ada", time.Minute)
		staysLed(t, us, 2*time.Minute)
	})
}

func TestLeadershipStaysWhileNoVoterOfThePreferredRegionIsUp(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{Config: regions("eu", "us", "ap")})
		eu, us := c.Members()[0], c.Members()[1]
		c.Kill(us)
		preferLeaderIn(t, c, "us")
		staysLed(t, eu, 2*time.Minute)
		c.Restart(us)
		c.Await("the voter in us to lead", us.Leading)
		staysLed(t, us, time.Minute)
	})
}

func TestLeadershipReturnsAfterAFailover(t *testing.T) {
	in(t, func(t *testing.T) {
		west := "us"
		c := cluster.New(t, 3, cluster.Options{Config: regions("eu", "us", "ap"), Settings: &v1.Settings{LeaderRegion: &west}})
		us := c.Members()[1]
		c.Await("the voter in us to lead", us.Leading)
		c.Partition(us)
		c.Await("another to lead", func() bool { return c.Members()[0].Leading() || c.Members()[2].Leading() })
		interim := c.Members()[0]
		if !interim.Leading() {
			interim = c.Members()[2]
		}
		interim.MustIssue(t, "ada", time.Hour)
		staysLed(t, interim, 30*time.Second)
		c.Heal()
		staysLed(t, interim, 8*time.Second) // a region that has only just come back may go again
		c.Await("the voter in us to lead again", us.Leading)
		staysLed(t, us, time.Minute)
	})
}

func TestARegionWithoutVotersIsNotPreferred(t *testing.T) {
	in(t, func(t *testing.T) {
		far := "ap"
		c := cluster.New(t, 4, cluster.Options{
			Config: func(cfg *node.Config) {
				regions("eu", "us", "us", "ap")(cfg)
				cfg.Replica = cfg.Region == "ap"
			},
			Settings: &v1.Settings{LeaderRegion: &far},
		})
		staysLed(t, c.Leader(), time.Minute)
		preferLeaderIn(t, c, "nowhere")
		staysLed(t, c.Leader(), time.Minute)
	})
}

func TestAVoterWhoseClockIsWrongIsNotPreferred(t *testing.T) {
	in(t, func(t *testing.T) {
		var mu sync.Mutex
		off := time.Minute
		wall := func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(off)
		}
		west := "us"
		c := cluster.New(t, 3, cluster.Options{
			Config: regions("eu", "us", "ap"), Settings: &v1.Settings{LeaderRegion: &west}, Unfounded: true,
			Wall: func(name string) func() time.Time {
				if name == "n2" {
					return wall
				}
				return nil
			},
		})
		eu, us := c.Members()[0], c.Members()[1]
		c.Found(eu)
		c.Await("three voters", func() bool { return role(t, c, us.UUID) == v1.Member_VOTER && c.Members()[2].Ready() == nil })
		staysLed(t, eu, time.Minute)
		mu.Lock()
		off = 0
		mu.Unlock()
		c.Await("the voter in us to lead", us.Leading)
	})
}

// logs takes what all members log.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

// count gives how many lines have all of the words.
func (l *logs) count(words ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			n++
		}
	}
	return n
}

// spread puts the same round trip between all members.
func spread(c *cluster.Cluster, trip time.Duration) {
	for _, a := range c.Members() {
		for _, b := range c.Members() {
			if a != b {
				c.Net.Delay(a.Host, b.Host, trip/2)
			}
		}
	}
}

func TestATimingThatDoesNotGoWithTheDistanceIsReported(t *testing.T) {
	in(t, func(t *testing.T) {
		var log logs
		c := cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) {
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		}})
		time.Sleep(time.Minute)
		if n := log.count("set timing to"); n != 0 {
			t.Errorf("%d warnings while the voters are near", n)
		}
		spread(c, 120*time.Millisecond)
		time.Sleep(time.Minute)
		if n := log.count("level=WARN", "timing is lan", "set timing to wan", "round_trip=120ms"); n != 3 {
			t.Errorf("%d warnings, want one of each voter:\n%s", n, log.text.String())
		}
		time.Sleep(30 * time.Minute)
		if n := log.count("set timing to wan"); n != 3 {
			t.Errorf("%d warnings within the hour, want 3", n)
		}
	})
}

func TestATimingForFarVotersThatAreNearIsTold(t *testing.T) {
	in(t, func(t *testing.T) {
		var log logs
		c := cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) {
			cfg.Timing = node.WAN()
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		}})
		if got := c.Leader().View().Settings().MaxStaleness; got != 20*time.Second {
			t.Errorf("the bound on staleness is %v, not ten heartbeats", got)
		}
		spread(c, 4*time.Millisecond)
		time.Sleep(30 * time.Second)
		if n := log.count("level=INFO", "timing is wan", "lan would notice sooner"); n != 3 {
			t.Errorf("%d hints, want one of each voter:\n%s", n, log.text.String())
		}
	})
}

func TestATimingThatOutlastsTheBoundOnStalenessIsReported(t *testing.T) {
	in(t, func(t *testing.T) {
		var log logs
		cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) {
			if cfg.Name == "n3" {
				cfg.Timing = node.WAN()
			}
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		}})
		time.Sleep(30 * time.Second)
		if n := log.count("level=WARN", "node=n3", "max_staleness=5s", "at_least=20s", "set timing to lan"); n != 1 {
			t.Errorf("%d warnings of n3, want 1:\n%s", n, log.text.String())
		}
		if n := log.count("max_staleness="); n != 1 {
			t.Errorf("%d warnings of all, want 1", n)
		}
	})
}

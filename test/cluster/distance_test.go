package cluster_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/node"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

const ms = time.Millisecond

// trips are the round trips between the simulated regions. Within a region there is no distance.
var trips = map[[2]string]time.Duration{
	{"eu", "us"}: 80 * ms, {"us", "ap"}: 150 * ms, {"eu", "ap"}: 250 * ms,
	{"us", "sa"}: 120 * ms, {"eu", "sa"}: 190 * ms, {"ap", "sa"}: 250 * ms,
	{"eu", "in"}: 120 * ms, {"us", "in"}: 220 * ms, {"ap", "in"}: 90 * ms, {"sa", "in"}: 250 * ms,
}

func tripBetween(a, b string) time.Duration { return trips[[2]string{a, b}] + trips[[2]string{b, a}] }

// layout is where the voters and the replicas of a cluster are, and who leads.
type layout struct {
	name     string
	voters   []string
	replicas []string
	leader   string
	timing   node.Timing
	// majority is how far the voter is from the leader that completes a majority, farthest the farthest member.
	majority, farthest time.Duration
}

// places are the regions in which there is a member.
func (l layout) places() (places []string) {
	for _, place := range slices.Concat(l.voters, l.replicas) {
		if !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	return places
}

// world is a cluster that is spread over regions, with an application in each.
type world struct {
	*cluster.Cluster
	t    *testing.T
	apps map[string]*client.Client
}

func spreadOut(t *testing.T, l layout) *world {
	t.Helper()
	where := slices.Concat(l.voters, l.replicas)
	wanted := uint32(len(l.voters))
	c := cluster.New(t, len(where), cluster.Options{
		Config: func(cfg *node.Config) {
			regions(where...)(cfg)
			cfg.Timing = l.timing
			for i := range l.replicas {
				cfg.Replica = cfg.Replica || cfg.Name == fmt.Sprintf("n%d", len(l.voters)+i+1)
			}
		},
		Settings: &v1.Settings{WantedVoters: &wanted, LeaderRegion: &l.leader},
	})
	w := &world{Cluster: c, t: t, apps: make(map[string]*client.Client)}
	for _, place := range l.places() {
		for i, there := range where {
			c.Net.Delay("app-"+place, fmt.Sprintf("n%d", i+1), tripBetween(place, there)/2)
		}
		w.apps[place] = w.application(place)
	}
	for i, a := range where {
		for j, b := range where {
			c.Net.Delay(fmt.Sprintf("n%d", i+1), fmt.Sprintf("n%d", j+1), tripBetween(a, b)/2)
		}
	}
	w.awaitLeaderIn(l.leader)
	return w
}

func (w *world) application(place string) *client.Client {
	w.t.Helper()
	transport := &http.Transport{DialContext: w.Net.Dialer("app-" + place), MaxIdleConnsPerHost: 10}
	w.t.Cleanup(transport.CloseIdleConnections)
	var addresses []string
	for _, m := range w.Members() {
		addresses = append(addresses, m.Host+":7400")
	}
	app, err := client.New(addresses, client.WithRegion(place), client.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(app.Close)
	return app
}

func (w *world) awaitLeaderIn(place string) {
	w.t.Helper()
	w.Await("a leader in "+place, func() bool {
		return slices.ContainsFunc(w.Running(), func(m *cluster.Member) bool { return m.Leading() && w.regionOf(m) == place })
	})
	w.AwaitAgreed()
	time.Sleep(10 * time.Second) // the applications hear of it
}

func (w *world) regionOf(m *cluster.Member) string {
	record, _ := m.View().Member(m.UUID)
	return record.Region
}

// median has something done often, not in step with anything, and gives the median of the time that it took.
func median(t *testing.T, do func() error) time.Duration {
	t.Helper()
	var took []time.Duration
	for i := range 21 {
		begun := time.Now()
		if err := do(); err != nil {
			t.Error(err)
		}
		took = append(took, time.Since(begun))
		time.Sleep(time.Duration(50+37*i%100) * time.Millisecond)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// cost is what the operations take from one place.
type cost struct{ issue, revoke, bounded, linearizable, stale time.Duration }

func (w *world) measure(place string) (c cost) {
	w.t.Helper()
	ctx, app := w.t.Context(), w.apps[place]
	c.issue = median(w.t, func() error {
		_, err := app.Issue(ctx, &v1.IssueRequest{Subject: "ada"})
		return err
	})
	if _, err := app.Issue(ctx, &v1.IssueRequest{Subject: "bob"}); err != nil {
		w.t.Fatal(err)
	}
	c.revoke = median(w.t, func() error {
		_, err := app.Revoke(ctx, &v1.RevokeRequest{Subject: "bob"})
		return err
	})
	issued, err := app.Issue(ctx, &v1.IssueRequest{Subject: "ada"})
	if err != nil {
		w.t.Fatal(err)
	}
	time.Sleep(time.Second)
	verify := func(level v1.VerifyRequest_Consistency) time.Duration {
		return median(w.t, func() error {
			_, err := app.Verify(ctx, &v1.VerifyRequest{Token: issued.GetToken(), Consistency: level})
			return err
		})
	}
	c.bounded, c.stale = verify(v1.VerifyRequest_BOUNDED), verify(v1.VerifyRequest_STALE_OK)
	c.linearizable = verify(v1.VerifyRequest_LINEARIZABLE)
	return c
}

// layouts are those of docs/REGIONS.md.
var layouts = []layout{
	{name: "one region: three voters", voters: []string{"eu", "eu", "eu"}, leader: "eu", timing: node.LAN()},
	{name: "three regions: three voters in eu, replicas in us and ap", voters: []string{"eu", "eu", "eu"}, replicas: []string{"us", "ap"}, leader: "eu", timing: node.LAN(), farthest: 250 * ms},
	{name: "three regions: a voter in each", voters: []string{"eu", "us", "ap"}, leader: "eu", timing: node.WAN(), majority: 80 * ms, farthest: 250 * ms},
	{name: "three regions: a voter in each", voters: []string{"eu", "us", "ap"}, leader: "us", timing: node.WAN(), majority: 80 * ms, farthest: 150 * ms},
	{name: "three regions: a voter in each", voters: []string{"eu", "us", "ap"}, leader: "ap", timing: node.WAN(), majority: 150 * ms, farthest: 250 * ms},
	{name: "three regions: two voters in eu and us, one in ap", voters: []string{"eu", "eu", "us", "us", "ap"}, leader: "us", timing: node.WAN(), majority: 80 * ms, farthest: 150 * ms},
	{name: "five regions: a voter in eu, us and ap, replicas in sa and in", voters: []string{"eu", "us", "ap"}, replicas: []string{"sa", "in"}, leader: "us", timing: node.WAN(), majority: 80 * ms, farthest: 220 * ms},
	{name: "five regions: a voter in each", voters: []string{"eu", "us", "ap", "sa", "in"}, leader: "us", timing: node.WAN(), majority: 120 * ms, farthest: 220 * ms},
}

// A round trip over the network is all that anything takes here: time is virtual. docs/PERFORMANCE.md has the table that
// this prints with -v.
func TestWhatDistanceCosts(t *testing.T) {
	var table strings.Builder
	table.WriteString("| layout | leader | from | Issue | Revoke | BOUNDED | LINEARIZABLE | STALE_OK |\n|---|---|---|---|---|---|---|---|\n")
	for _, l := range layouts {
		t.Run(l.name+", led from "+l.leader, func(t *testing.T) {
			in(t, func(t *testing.T) {
				w := spreadOut(t, l)
				for _, place := range l.places() {
					c := w.measure(place)
					fmt.Fprintf(&table, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", l.name, l.leader, place,
						inMillis(c.issue), inMillis(c.revoke), inMillis(c.bounded), inMillis(c.linearizable), inMillis(c.stale))
					l.check(t, place, c)
				}
			})
		})
	}
	t.Log("\n" + table.String())
}

// check fails where something took longer than its messages need. Two requests are never on their way to the same
// follower, so each may wait for one other that is under way.
func (l layout) check(t *testing.T, place string, c cost) {
	t.Helper()
	there := tripBetween(place, l.leader)
	for _, m := range []struct {
		what         string
		took, atMost time.Duration
	}{
		{"Issue", c.issue, there + 2*l.majority},
		{"Revoke", c.revoke, there + 2*l.majority + 2*l.farthest + 50*ms},
		{"a BOUNDED verification", c.bounded, 0},
		{"a STALE_OK verification", c.stale, 0},
		{"a LINEARIZABLE verification", c.linearizable, there + 2*l.majority + 2*l.farthest},
	} {
		if m.took > m.atMost+ms {
			t.Errorf("%s from %s took %v, more than %v", m.what, place, m.took, m.atMost)
		}
	}
}

func inMillis(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// TestWhatLosingTheLeadersRegionCosts cuts the region of the leader off again and again, and sees how long the others can
// write nothing. docs/PERFORMANCE.md has the table that this prints with -v.
func TestWhatLosingTheLeadersRegionCosts(t *testing.T) {
	for name, timing := range map[string]node.Timing{"lan": node.LAN(), "wan": node.WAN()} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				w := spreadOut(t, layout{voters: []string{"eu", "us", "ap"}, leader: "eu", timing: timing})
				lost := w.Members()[0]
				token := lost.MustIssue(t, "eve", time.Hour)
				w.AwaitAgreed()
				var took []time.Duration
				for range 9 {
					w.Partition(lost)
					took = append(took, w.untilIssued(lost, token))
					w.Heal()
					w.handBack(lost)
				}
				slices.Sort(took)
				t.Logf("writes stop for %v (median), from %v to %v", took[len(took)/2], took[0], took[len(took)-1])
				bound := w.Leader().View().Settings().MaxStaleness
				if longest := took[len(took)-1]; longest > bound {
					t.Errorf("writes stopped for %v, longer than the %v for which the others verify on", longest, bound)
				}
			})
		})
	}
}

// handBack has the member lead again.
func (w *world) handBack(to *cluster.Member) {
	w.t.Helper()
	w.AwaitAgreed()
	w.Await("the member that was lost to lead again", func() bool {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		_, err := w.Leader().Node().TransferLeadership(ctx, cluster.Caller, &v1.TransferLeadershipRequest{Node: to.UUID})
		return err == nil && to.Leading()
	})
	time.Sleep(5 * time.Second)
}

// untilIssued gives how long it takes until one of the members but lost issues a token: each is asked every 10 ms. They all
// have to verify all the while.
func (w *world) untilIssued(lost *cluster.Member, token string) time.Duration {
	w.t.Helper()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(w.t.Context(), cluster.Patience)
	defer cancel()
	var issued atomic.Bool
	for !issued.Load() && ctx.Err() == nil {
		for _, m := range w.Running() {
			if m == lost {
				continue
			}
			if got := m.MustVerify(w.t, token); got != valid {
				w.t.Errorf("at %s while there is no leader: %v", m.Host, got)
			}
			go func() {
				if _, err := m.Issue(ctx, "ada", time.Minute); err == nil {
					issued.Store(true)
				}
			}()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(begun)
}

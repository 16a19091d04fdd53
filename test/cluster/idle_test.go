package cluster_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
	"github.com/keyquorum/keyquorum/test/memnet"
)

// idling is what each second costs a cluster that nobody uses: messages are writes to a connection, which carry a request, an
// answer or, while a connection is set up, part of one.
type idling struct {
	ticks            float64
	leader, follower sending // of a follower on average
}

type sending struct{ messages, bytes float64 }

// idle lets a cluster be for a minute, a large one for less: what its followers send is the mean of more of them.
func idle(t *testing.T, size int, staleness time.Duration) idling {
	t.Helper()
	c := cluster.New(t, size, cluster.Options{Settings: &v1.Settings{MaxStaleness: durationpb.New(staleness)}})
	leader := c.Leader()
	sent := func() map[*cluster.Member]memnet.Sent {
		all := make(map[*cluster.Member]memnet.Sent)
		for _, m := range c.Members() {
			all[m] = c.Net.SentBy(m.Host)
		}
		return all
	}
	time.Sleep(10 * time.Second) // what the founding was about is done
	span := time.Minute
	if size > 9 {
		span = 20 * time.Second
	}
	before, position := sent(), leader.View().Position()
	time.Sleep(span)
	after := sent()
	if c.Leader() != leader {
		t.Fatal("the leader changed")
	}
	of := func(m *cluster.Member) sending {
		return sending{float64(after[m].Writes-before[m].Writes) / span.Seconds(), float64(after[m].Bytes-before[m].Bytes) / span.Seconds()}
	}
	cost := idling{ticks: float64(leader.View().Position()-position) / span.Seconds(), leader: of(leader)}
	for _, m := range c.Followers() {
		cost.follower.messages += of(m).messages / float64(size-1)
		cost.follower.bytes += of(m).bytes / float64(size-1)
	}
	return cost
}

// TestWhatStayingFreshCosts counts what members send each other while nobody uses the cluster. Whatever the bound S, that is the
// same but for freshness, whose rate goes by S: what S of 5 s costs more than S of 20 s is three quarters of what freshness
// costs. docs/PERFORMANCE.md has the table that this prints with -v.
func TestWhatStayingFreshCosts(t *testing.T) {
	var table strings.Builder
	table.WriteString("| members | S | ticks/s | a follower sends, messages/s, B/s | the leader, messages/s, B/s |\n|---|---|---|---|---|\n")
	for _, size := range []int{3, 9, 27} {
		costs := make(map[time.Duration]idling)
		for _, s := range []time.Duration{bound, 4 * bound} {
			t.Run(fmt.Sprintf("members=%d, S=%s", size, s), func(t *testing.T) {
				in(t, func(t *testing.T) {
					cost := idle(t, size, s)
					costs[s] = cost
					fmt.Fprintf(&table, "| %d | %s | %.2f | %.1f, %.0f | %.1f, %.0f |\n", size, s, cost.ticks,
						cost.follower.messages, cost.follower.bytes, cost.leader.messages, cost.leader.bytes)
				})
			})
		}
		checkIdling(t, size, costs[bound], costs[4*bound])
	}
	t.Log("\n" + table.String())
}

// checkIdling fails where the leader sends more than the protocol needs: an answer for each round, of which a member has about four in
// each S; a request for each tick, which those who ask at about the same time share. What else goes on varies by a few in a hundred at
// the leader, and at a follower by more than all that freshness adds there.
func checkIdling(t *testing.T, size int, quick, slow idling) {
	t.Helper()
	const rounds, varies = 5 / 5.0, 0.03
	if most := 10.0; quick.ticks > most {
		t.Errorf("%d members have the leader commit %.1f ticks/s, more than %.0f", size, quick.ticks, most)
	}
	sent := quick.leader.messages - slow.leader.messages
	if most := (rounds+quick.ticks)*float64(size-1) + varies*slow.leader.messages; sent > most {
		t.Errorf("the leader of %d members sends %.1f messages/s for freshness, more than %.1f", size, sent, most)
	}
}

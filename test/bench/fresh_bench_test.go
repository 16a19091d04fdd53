package bench

import (
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/fsm"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

var idleProfile = flag.String("idle-profile", "", "file for a processor profile of BenchmarkFreshness; go tool pprof -tags tells members apart")

// BenchmarkFreshness tells what it costs clusters that nobody uses to stay fresh. Five members vote at most, the others only
// follow. An operation is a second of that; a time of 20x is enough. Clocks, heartbeats and the rest are in it: what a bound
// of 20 s takes less than one of 5 s is three quarters of what freshness costs at 5 s.
func BenchmarkFreshness(b *testing.B) {
	for _, size := range []int{3, 9, 27} {
		for _, bound := range []time.Duration{5 * time.Second, 20 * time.Second} {
			b.Run(fmt.Sprintf("members=%d/bound=%s", size, bound), func(b *testing.B) { benchFreshness(b, size, bound) })
		}
	}
}

func benchFreshness(b *testing.B, size int, bound time.Duration) {
	c := newClusterWith(b, size, &v1.Settings{MaxStaleness: durationpb.New(bound)})
	leader := c.leader()
	rounds := func() (n float64) {
		for _, m := range c.members {
			_, count := m.seat.counter(b, "keyquorum_freshness_round_seconds")
			n += count
		}
		return n
	}
	end := profileTo(b)
	ticks, asked, used := leader.View().Position(), rounds(), cpu()
	b.ResetTimer()
	for i := range b.N {
		next := time.Now().Add(time.Second)
		c.await(fmt.Sprintf("second %d", i), func() bool { return time.Now().After(next) })
	}
	b.StopTimer()
	end()
	seconds := b.Elapsed().Seconds()
	used = cpu() - used
	perSecond := func(n float64) float64 { return n / seconds }
	entries := perSecond(float64(leader.View().Position() - ticks))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(entries, "ticks/s")
	b.ReportMetric(entries*float64(tickBytes(b)), "log-B/s")
	b.ReportMetric(perSecond(rounds()-asked)/float64(size), "rounds/node/s")
	b.ReportMetric(perSecond(ms(used)), "cpu-ms/s")
	b.ReportMetric(perSecond(ms(used))/float64(size), "cpu-ms/node/s")
	if c.leading() != leader {
		b.Log("the leader changed")
	}
	b.Logf("%s led", leader.Name())
}

// profileTo starts the profile that the flag asks for, without the founding, and gives what ends it.
func profileTo(b *testing.B) (end func()) {
	b.Helper()
	if *idleProfile == "" {
		return func() {}
	}
	f, err := os.Create(*idleProfile)
	if err != nil {
		b.Fatal(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		b.Fatal(err)
	}
	return func() {
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			b.Error(err)
		}
	}
}

// tickBytes is what a tick's command entry takes in the log, Raft's own frame left out.
func tickBytes(b *testing.B) int {
	b.Helper()
	data, err := fsm.EncodeEntry(fsm.Entry{
		Time: time.Now(), Commands: []fsm.Command{{Origin: fsm.Origin{Actor: "keyquorum", Node: "n1"}, Op: fsm.Tick{}}},
	})
	if err != nil {
		b.Fatal(err)
	}
	return len(data)
}

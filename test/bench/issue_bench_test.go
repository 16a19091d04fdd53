package bench

import (
	"fmt"
	"testing"
	"time"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// BenchmarkIssue has callers ask three members for tokens, each as soon as it has its last one. All three members, and
// the callers, share the machine and its one disk.
//
//   - callers=N: users who have a key already, at the leader.
//   - new: users who get their key with it.
//   - forwarded: at a follower.
func BenchmarkIssue(b *testing.B) {
	c := newCluster(b, 3)
	const known = 10_000
	issueAll(b, c.tokens(c.leader()), 256, known, func(i int) *v1.IssueRequest { return request(user(i), time.Hour) })
	returning := func(i int) *v1.IssueRequest { return request(user(i*7919%known), time.Hour) }
	for _, callers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			leader := c.leader()
			benchIssue(b, leader, c.tokens(leader), callers, returning)
		})
	}
	fresh := known
	b.Run("callers=64/new", func(b *testing.B) {
		first := fresh
		fresh += b.N
		leader := c.leader()
		benchIssue(b, leader, c.tokens(leader), 64, func(i int) *v1.IssueRequest { return request(user(first+i), time.Hour) })
	})
	b.Run("callers=64/forwarded", func(b *testing.B) {
		leader := c.leader()
		benchIssue(b, leader, c.tokens(c.notLeading(leader)), 64, returning)
	})
}

func benchIssue(b *testing.B, leader *member, to keyquorumv1connect.TokenServiceClient, callers int, ask func(int) *v1.IssueRequest) {
	disk, before := fsyncs(b), leader.usage(b)
	b.ResetTimer()
	took, retries := issueAll(b, to, callers, b.N, ask)
	b.StopTimer()
	used := leader.usage(b).since(before)
	if retries > 0 {
		b.ReportMetric(float64(retries), "retries") // the leader lost its office, for a while or for good
	}
	rate := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "issues/s")
	b.ReportMetric(ms(quantile(took, .5)), "p50-ms")
	b.ReportMetric(ms(quantile(took, .99)), "p99-ms")
	b.ReportMetric(disk, "fsyncs/s")
	b.ReportMetric(rate/disk, "issues/fsync")
	b.ReportMetric(float64(used.cpu.Microseconds())/float64(b.N), "cpu-us/op")
	b.ReportMetric(used.entries/b.Elapsed().Seconds(), "entries/s")
	b.ReportMetric(used.commands/max(1, used.entries), "commands/entry")
	b.ReportMetric(used.writing*1000/max(1, used.writes), "store-ms")
}

// usage is what issuing takes.
type usage struct {
	cpu                                time.Duration // of the process, with all three members and the callers
	commands, entries, writing, writes float64       // of the leader; writing in seconds
}

func (m *member) usage(b *testing.B) (u usage) {
	b.Helper()
	u.cpu = cpu()
	u.commands, u.entries = m.seat.counter(b, "keyquorum_group_commit_commands")
	u.writing, u.writes = m.seat.counter(b, "keyquorum_store_write_seconds")
	return u
}

func (u usage) since(before usage) usage {
	return usage{
		cpu: u.cpu - before.cpu, commands: u.commands - before.commands, entries: u.entries - before.entries,
		writing: u.writing - before.writing, writes: u.writes - before.writes,
	}
}

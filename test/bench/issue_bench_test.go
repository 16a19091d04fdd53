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
	leader := c.leader()
	follower := c.members[0]
	if follower == leader {
		follower = c.members[1]
	}
	const known = 10_000
	issueAll(b, c.tokens(leader), 256, known, func(i int) *v1.IssueRequest { return request(user(i), time.Hour) })
	returning := func(i int) *v1.IssueRequest { return request(user(i*7919%known), time.Hour) }
	for _, callers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			benchIssue(b, leader, c.tokens(leader), callers, returning)
		})
	}
	fresh := known
	b.Run("callers=64/new", func(b *testing.B) {
		first := fresh
		fresh += b.N
		benchIssue(b, leader, c.tokens(leader), 64, func(i int) *v1.IssueRequest { return request(user(first+i), time.Hour) })
	})
	b.Run("callers=64/forwarded", func(b *testing.B) {
		benchIssue(b, leader, c.tokens(follower), 64, returning)
	})
}

func benchIssue(b *testing.B, leader *member, to keyquorumv1connect.TokenServiceClient, callers int, ask func(int) *v1.IssueRequest) {
	disk := fsyncs(b)
	commands, entries := leader.seat.counter(b, "keyquorum_group_commit_commands")
	waited, writes := leader.seat.counter(b, "keyquorum_store_write_seconds")
	b.ResetTimer()
	took := issueAll(b, to, callers, b.N, ask)
	b.StopTimer()
	if !leader.Leading() {
		b.Log("leadership changed meanwhile: this run says nothing")
	}
	moreCommands, moreEntries := leader.seat.counter(b, "keyquorum_group_commit_commands")
	moreWaited, moreWrites := leader.seat.counter(b, "keyquorum_store_write_seconds")
	rate := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "issues/s")
	b.ReportMetric(ms(quantile(took, .5)), "p50-ms")
	b.ReportMetric(ms(quantile(took, .99)), "p99-ms")
	b.ReportMetric(disk, "fsyncs/s")
	b.ReportMetric(rate/disk, "issues/fsync")
	b.ReportMetric((moreEntries-entries)/b.Elapsed().Seconds(), "entries/s")
	b.ReportMetric((moreWaited-waited)*1000/max(1, moreWrites-writes), "store-ms")
	b.ReportMetric((moreCommands-commands)/max(1, moreEntries-entries), "commands/entry")
}

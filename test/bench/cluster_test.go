package bench

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// patience bounds what a benchmark waits for: past it, something is broken.
const patience = time.Minute

// cluster is members that found each other.
type cluster struct {
	b       *testing.B
	members []*member
	http    *http.Client
}

// newCluster founds a cluster of size voters, five at most, and ends it with the benchmark.
func newCluster(b *testing.B, size int) *cluster {
	b.Helper()
	return newClusterWith(b, size, nil)
}

func newClusterWith(b *testing.B, size int, settings *v1.Settings) *cluster {
	b.Helper()
	keyring, err := seal.NewKeyring()
	if err != nil {
		b.Fatal(err)
	}
	c := &cluster{b: b, http: h2c(b)}
	b.Cleanup(c.end)
	for i := range size {
		timing := node.Timing{Stable: 200 * time.Millisecond} // for a quick founding; all else by default
		s := newSeat(b, fmt.Sprintf("n%d", i+1), keyring, timing)
		if i > 0 {
			s.known = []string{c.members[0].RPCAddress}
		}
		c.members = append(c.members, s.start(b))
		if i == 0 {
			c.found(settings)
		}
	}
	c.awaitComplete()
	return c
}

func (c *cluster) found(settings *v1.Settings) {
	c.b.Helper()
	ctx, cancel := context.WithTimeout(c.b.Context(), patience)
	defer cancel()
	if _, err := c.members[0].Init(ctx, rpc.Caller{Actor: "bench"}, &v1.InitRequest{Settings: settings}); err != nil {
		c.b.Fatal(err)
	}
}

// end stops the members, all at once: one after the other they would elect each other.
func (c *cluster) end() {
	var all sync.WaitGroup
	for _, m := range c.members {
		all.Go(func() {
			if err := m.end(); err != nil {
				c.b.Errorf("end %s: %v", m.Name(), err)
			}
		})
	}
	all.Wait()
}

// awaitComplete waits until all members that should vote do, and all are ready, and have applied the same.
func (c *cluster) awaitComplete() {
	c.b.Helper()
	c.await("a cluster that is complete", func() bool {
		for _, m := range c.members {
			if m.Ready() != nil || m.voters() != min(5, len(c.members)) || m.View().Position() != c.members[0].View().Position() {
				return false
			}
		}
		return c.leading() != nil
	})
}

func (m *member) voters() int {
	res, err := m.Members(context.Background())
	if err != nil {
		return 0
	}
	voters := 0
	for _, record := range res.GetMembers() {
		if record.GetRole() == v1.Member_VOTER {
			voters++
		}
	}
	return voters
}

// leading gives the member that leads, or nil.
func (c *cluster) leading() *member {
	for _, m := range c.members {
		if m.Leading() {
			return m
		}
	}
	return nil
}

func (c *cluster) leader() *member {
	c.b.Helper()
	c.await("a leader", func() bool { return c.leading() != nil })
	return c.leading()
}

func (c *cluster) notLeading(leader *member) *member {
	return c.members[slices.IndexFunc(c.members, func(m *member) bool { return m != leader })]
}

// await polls every millisecond.
func (c *cluster) await(what string, ok func() bool) {
	c.b.Helper()
	if !within(c.b.Context(), patience, ok) {
		c.b.Fatalf("no %s within %s", what, patience)
	}
}

func within(ctx context.Context, limit time.Duration, ok func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return false
		case <-poll.C:
		}
	}
	return true
}

// tokens is a client of one member, by Connect's protocol with protobuf over HTTP/2.
func (c *cluster) tokens(m *member) keyquorumv1connect.TokenServiceClient {
	return keyquorumv1connect.NewTokenServiceClient(c.http, "http://"+m.RPCAddress)
}

// h2c is a client that speaks HTTP/2 without TLS.
func h2c(b *testing.B) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DisableCompression: true}
	b.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// issueAll has callers issue n tokens between them, and gives how long each took. What cannot be answered now, as while
// there is no leader, is asked again, as a client would; the number of those is given too. Any other failure ends it.
func issueAll(b *testing.B, to keyquorumv1connect.TokenServiceClient, callers, n int, ask func(i int) *v1.IssueRequest) (took []time.Duration, retries int) {
	b.Helper()
	took = make([]time.Duration, n)
	var next, again atomic.Int64
	var failed atomic.Pointer[error]
	issue := func(i int) {
		start := time.Now()
		defer func() { took[i] = time.Since(start) }()
		within(b.Context(), patience, func() bool {
			_, err := to.Issue(b.Context(), connect.NewRequest(ask(i)))
			if connect.CodeOf(err) == connect.CodeUnavailable && time.Since(start) < patience/2 {
				again.Add(1)
				return false
			}
			if err != nil {
				failed.Store(&err)
			}
			return true
		})
	}
	var all sync.WaitGroup
	for range min(callers, n) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				issue(i)
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
	return took, int(again.Load())
}

func request(subject string, ttl time.Duration) *v1.IssueRequest {
	return &v1.IssueRequest{Subject: subject, Ttl: durationpb.New(ttl)}
}

func user(i int) string { return fmt.Sprintf("user-%08d", i) }

package client_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
	"github.com/keyquorum/keyquorum/test/memnet"
)

// fleet is some fake nodes, n1, n2 and so on, and a client's host, app, on a network in memory. It works inside a
// bubble only.
type fleet struct {
	t     *testing.T
	net   *memnet.Net
	http  *http.Transport
	nodes []*ship
	// hears gets each request that a node takes, before it is answered, and may answer it.
	hears func(w http.ResponseWriter, r *http.Request) (answered bool)

	mu      sync.Mutex
	members *v1.MembersResponse
}

// ship is a fake node on the network.
type ship struct {
	*fake
	host   string
	region string
	fleet  *fleet
	// lore is what it says of the members, where that is not what the others say.
	lore *v1.MembersResponse
	// tls is what it speaks; nil for plain HTTP.
	tls    *tls.Config
	server *http.Server
	seen   sync.Map // of *atomic.Int32, by procedure
}

// sail runs a test in a bubble, with n nodes that all are members, the first of them leader, 1 ms away.
func sail(t *testing.T, n int, test func(*testing.T, *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t, net: memnet.New()}
		f.http = &http.Transport{DialContext: f.net.Dialer("app"), MaxIdleConnsPerHost: 100}
		t.Cleanup(f.http.CloseIdleConnections)
		for i := range n {
			f.launch(fmt.Sprintf("n%d", i+1))
		}
		f.enlist(f.nodes...)
		test(t, f)
	})
}

// launch starts a node that is no member yet.
func (f *fleet) launch(host string) *ship {
	s := &ship{fake: &fake{name: host}, host: host, fleet: f}
	f.nodes = append(f.nodes, s)
	f.net.Delay("app", host, time.Millisecond)
	s.start()
	f.t.Cleanup(s.kill)
	return s
}

// enlist makes these the members, and the first the leader.
func (f *fleet) enlist(nodes ...*ship) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = &v1.MembersResponse{LeaderId: nodes[0].host}
	for _, s := range nodes {
		f.members.Members = append(f.members.Members, &v1.Member{
			NodeId: s.host, RpcAddress: s.address(), Region: s.region, Role: v1.Member_VOTER,
		})
	}
}

func (s *ship) address() string { return s.host + ":7400" }

func (s *ship) start() {
	l, err := s.fleet.net.Listen(s.address())
	if err != nil {
		s.fleet.t.Fatal(err)
	}
	if s.tls != nil {
		l = tls.NewListener(l, s.tls)
	}
	mux := http.NewServeMux()
	mux.Handle("/", s.handler())
	mux.Handle(keyquorumv1connect.ClusterServiceMembersProcedure, connect.NewUnaryHandler(
		keyquorumv1connect.ClusterServiceMembersProcedure, s.tellMembers))
	s.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.counter(r.URL.Path).Add(1)
		if s.fleet.hears == nil || !s.fleet.hears(w, r) {
			mux.ServeHTTP(w, r)
		}
	}), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go s.server.Serve(l)
}

func (s *ship) tellMembers(context.Context, *connect.Request[v1.MembersRequest]) (*connect.Response[v1.MembersResponse], error) {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	if s.lore != nil {
		return connect.NewResponse(s.lore), nil
	}
	return connect.NewResponse(s.fleet.members), nil
}

// believe has the node say of the members what nobody else says; nil ends that.
func (s *ship) believe(lore *v1.MembersResponse) {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	s.lore = lore
}

// alone is what a cluster of the node alone is like.
func (s *ship) alone(clusterID string) *v1.MembersResponse {
	return &v1.MembersResponse{ClusterId: clusterID, LeaderId: s.host, Members: []*v1.Member{
		{NodeId: s.host, RpcAddress: s.address(), Role: v1.Member_VOTER},
	}}
}

// kill ends the node as a killed process ends.
func (s *ship) kill() {
	s.fleet.net.Stop(s.host)
	s.server.Close()
}

// hang stops the node's answers, and freezes what is sent to it, until resume.
func (s *ship) hang()   { s.fleet.net.Hold("app", s.host) }
func (s *ship) resume() { s.fleet.net.HealLink("app", s.host) }

func (s *ship) counter(procedure string) *atomic.Int32 {
	n, _ := s.seen.LoadOrStore(procedure, new(atomic.Int32))
	return n.(*atomic.Int32)
}

// took gives how many verifications the node was asked for, and forgets them.
func (s *ship) took() int {
	return int(s.counter(keyquorumv1connect.TokenServiceVerifyProcedure).Swap(0))
}

// client makes a client that is given the nodes' addresses, or the first two.
func (f *fleet) client(opts ...client.Option) *client.Client {
	f.t.Helper()
	return f.clientOf(f.nodes[:min(2, len(f.nodes))], opts...)
}

func (f *fleet) clientOf(seeds []*ship, opts ...client.Option) *client.Client {
	f.t.Helper()
	var addresses []string
	for _, s := range seeds {
		addresses = append(addresses, s.address())
	}
	c, err := client.New(addresses, append(opts, client.WithHTTPClient(&http.Client{Transport: f.http}))...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
}

// load has 32 callers verify, each 4 times a second, until the returned function is called, which fails the test for
// each verification that failed and gives the number of all.
func (f *fleet) load(c *client.Client) (stop func() int) {
	var calls atomic.Int32
	var all sync.WaitGroup
	done := make(chan struct{})
	for range 32 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(250 * time.Millisecond):
				}
				calls.Add(1)
				if res, err := c.Verify(context.Background(), &v1.VerifyRequest{Token: "good"}); err != nil || !res.GetValid() {
					f.t.Errorf("a verification failed: %v", err)
				}
			}
		})
	}
	return func() int {
		close(done)
		all.Wait()
		return int(calls.Load())
	}
}

// forgetCounts begins the counting of verifications anew.
func (f *fleet) forgetCounts() {
	for _, s := range f.nodes {
		s.took()
	}
}

// rest lets virtual time pass.
func rest(d time.Duration) { time.Sleep(d) }

func verify(t *testing.T, c *client.Client) *v1.VerifyResponse {
	t.Helper()
	res, err := c.Verify(t.Context(), &v1.VerifyRequest{Token: "good"})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

package bench

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// BenchmarkVerifyRPC asks a member of three to verify tokens of many users, and asks the same server for an RPC that
// takes nothing, does nothing and gives nothing, by turns, a hundred at a time: so both see the same machine, and
// x-empty, the ratio of their times, is worth more than either. Client and server share the cores.
func BenchmarkVerifyRPC(b *testing.B) {
	c := newCluster(b, 3)
	leader := c.leader()
	s := c.serveBeside(leader)
	raw := c.someTokens(leader, 1000)
	for _, w := range []struct {
		name    string
		http    *http.Client
		options []connect.ClientOption
	}{
		{"connect/h1", h1(b), nil},
		{"connect/h2c", c.http, nil},
		{"json/h1", h1(b), []connect.ClientOption{connect.WithProtoJSON()}},
		{"json/h2c", c.http, []connect.ClientOption{connect.WithProtoJSON()}},
		{"grpc/h2c", c.http, []connect.ClientOption{connect.WithGRPC()}},
	} {
		tokens := keyquorumv1connect.NewTokenServiceClient(w.http, s.url, w.options...)
		empty := connect.NewClient[emptypb.Empty, emptypb.Empty](w.http, s.url+emptyProcedure, w.options...)
		ask := func(i int) error {
			res, err := tokens.Verify(b.Context(), connect.NewRequest(&v1.VerifyRequest{Token: raw[i%len(raw)]}))
			if err == nil && !res.Msg.GetValid() {
				b.Errorf("a good token was called %s", res.Msg.GetReason())
			}
			return err
		}
		nothing := func(int) error {
			_, err := empty.CallUnary(b.Context(), connect.NewRequest(&emptypb.Empty{}))
			return err
		}
		b.Run(w.name+"/callers=1", func(b *testing.B) { byTurns(b, 1, ask, nothing) })
		b.Run(w.name+"/callers=16", func(b *testing.B) { byTurns(b, 16, ask, nothing) })
	}
}

// byTurns has callers do both, a hundred of one, then a hundred of the other. An operation is one of each.
func byTurns(b *testing.B, callers int, ask, nothing func(i int) error) {
	const turn = 100
	round := func(first, n int, do func(int) error) time.Duration {
		start := time.Now()
		var all sync.WaitGroup
		for caller := range callers {
			all.Go(func() {
				for i := first + caller; i < first+n; i += callers {
					if err := do(i); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		return time.Since(start)
	}
	var asking, idle time.Duration
	for i := 0; i < b.N && !b.Failed(); i += turn {
		n := min(turn, b.N-i)
		asking += round(i, n, ask)
		idle += round(i, n, nothing)
	}
	b.ReportMetric(float64(asking.Nanoseconds())/float64(b.N), "verify-ns")
	b.ReportMetric(float64(idle.Nanoseconds())/float64(b.N), "empty-ns")
	b.ReportMetric(float64(b.N)/asking.Seconds(), "verifies/s")
	b.ReportMetric(float64(asking)/float64(idle), "x-empty")
}

// h1 is a client that keeps its connections, over HTTP/1.1.
func h1(b *testing.B) *http.Client {
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	b.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

const emptyProcedure = "/bench.Empty/Call"

type served struct{ url string }

// serveBeside serves a member's RPCs and an empty one on one port, with a node's server and handler.
func (c *cluster) serveBeside(m *member) served {
	c.b.Helper()
	mux := http.NewServeMux()
	mux.Handle("/", rpc.NewHandler(rpc.Config{Node: m.Node, Registerer: prometheus.NewRegistry()}))
	mux.Handle(emptyProcedure, connect.NewUnaryHandler(emptyProcedure,
		func(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
			return connect.NewResponse(&emptypb.Empty{}), nil
		}, connect.WithCompression("gzip", nil, nil)))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.b.Fatal(err)
	}
	server, done := rpc.NewServer(mux), make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	c.b.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return served{url: "http://" + listener.Addr().String()}
}

// someTokens issues tokens to n users, with claims as an application would ask for them.
func (c *cluster) someTokens(m *member, n int) []string {
	c.b.Helper()
	claims, err := structpb.NewStruct(map[string]any{"role": "admin", "tenant": "blue", "level": 7})
	if err != nil {
		c.b.Fatal(err)
	}
	raw := make([]string, n)
	for i := range raw {
		ask := request(user(i), time.Hour)
		ask.Claims = claims
		res, err := c.tokens(m).Issue(c.b.Context(), connect.NewRequest(ask))
		if err != nil {
			c.b.Fatal(err)
		}
		raw[i] = res.Msg.GetToken()
	}
	return raw
}

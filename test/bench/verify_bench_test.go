package bench

import (
	"context"
	"fmt"
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

// BenchmarkVerifyRPC asks a member of three to verify tokens of many users. By turns, a hundred at a time, it asks the
// same server for an RPC that takes nothing, does nothing and gives nothing (empty), and for one that takes a token and
// gives the same answer to all (canned). So all three see the same machine, and the ratios of the time and of the
// processor time that they took are worth more than any of these. Client and server share the cores, and both count.
//
// An empty message has no body at all, which saves reads and writes: what canned takes beyond empty is the wire's, what
// verify takes beyond canned is Keyquorum's.
func BenchmarkVerifyRPC(b *testing.B) {
	c := newCluster(b, 3)
	leader := c.leader()
	raw := c.someTokens(leader, 1000)
	url := c.serveBeside(leader, raw[0])
	for _, w := range []struct {
		name    string
		http    *http.Client
		omit    bool
		options []connect.ClientOption
	}{
		{name: "connect/h1", http: h1(b)},
		{name: "connect/h2c", http: c.http},
		{name: "connect/h2c/omit-claims", http: c.http, omit: true},
		{name: "json/h1", http: h1(b), options: []connect.ClientOption{connect.WithProtoJSON()}},
		{name: "json/h2c", http: c.http, options: []connect.ClientOption{connect.WithProtoJSON()}},
		{name: "grpc/h2c", http: c.http, options: []connect.ClientOption{connect.WithGRPC()}},
	} {
		tokens := keyquorumv1connect.NewTokenServiceClient(w.http, url, w.options...)
		empty := connect.NewClient[emptypb.Empty, emptypb.Empty](w.http, url+emptyProcedure, w.options...)
		canned := connect.NewClient[v1.VerifyRequest, v1.VerifyResponse](w.http, url+cannedProcedure, w.options...)
		question := func(i int) *connect.Request[v1.VerifyRequest] {
			return connect.NewRequest(&v1.VerifyRequest{Token: raw[i%len(raw)], OmitClaims: w.omit})
		}
		judge := func(res *connect.Response[v1.VerifyResponse], err error) error {
			if err == nil && !res.Msg.GetValid() {
				err = fmt.Errorf("a good token was called %s", res.Msg.GetReason())
			}
			return err
		}
		turns := []func(i int) error{
			func(i int) error { return judge(tokens.Verify(b.Context(), question(i))) },
			func(i int) error { return judge(canned.CallUnary(b.Context(), question(i))) },
			func(int) error {
				_, err := empty.CallUnary(b.Context(), connect.NewRequest(&emptypb.Empty{}))
				return err
			},
		}
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/callers=%d", w.name, callers), func(b *testing.B) { byTurns(b, callers, turns) })
		}
	}
}

// cost is what something took.
type cost struct{ time, cpu time.Duration }

// byTurns has callers do verify, canned and empty, a hundred of each at a time. An operation is one of each.
func byTurns(b *testing.B, callers int, turns []func(i int) error) {
	const turn = 100
	total := make([]cost, len(turns))
	for i := 0; i < b.N && !b.Failed(); i += turn {
		for k, do := range turns {
			c := round(b, callers, i, min(turn, b.N-i), do)
			total[k].time += c.time
			total[k].cpu += c.cpu
		}
	}
	verify, canned, empty := total[0], total[1], total[2]
	b.ReportMetric(0, "ns/op") // of the three together: it says nothing
	b.ReportMetric(float64(verify.time.Microseconds())/float64(b.N), "verify-us")
	b.ReportMetric(float64(b.N)/verify.time.Seconds(), "verifies/s")
	b.ReportMetric(float64(verify.time)/float64(canned.time), "x-canned")
	b.ReportMetric(float64(verify.time)/float64(empty.time), "x-empty")
	if empty.cpu > 0 {
		b.ReportMetric(float64(verify.cpu.Microseconds())/float64(b.N), "verify-cpu-us")
		b.ReportMetric(float64(verify.cpu)/float64(canned.cpu), "x-canned-cpu")
		b.ReportMetric(float64(verify.cpu)/float64(empty.cpu), "x-empty-cpu")
	}
}

// round has callers share n calls, counted from first.
func round(b *testing.B, callers, first, n int, do func(i int) error) cost {
	start, before := time.Now(), cpu()
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
	return cost{time: time.Since(start), cpu: cpu() - before}
}

// h1 is a client that keeps its connections, over HTTP/1.1.
func h1(b *testing.B) *http.Client {
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	b.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

const (
	emptyProcedure  = "/bench.Beside/Empty"
	cannedProcedure = "/bench.Beside/Canned"
)

// serveBeside serves a member's RPCs and the two to compare them with on one port, with a node's server and handler.
func (c *cluster) serveBeside(m *member, raw string) (url string) {
	c.b.Helper()
	can, err := m.Verify(c.b.Context(), &v1.VerifyRequest{Token: raw})
	if err != nil {
		c.b.Fatal(err)
	}
	uncompressed := connect.WithCompression("gzip", nil, nil)
	mux := http.NewServeMux()
	mux.Handle("/", rpc.NewHandler(rpc.Config{Node: m.Node, Registerer: prometheus.NewRegistry()}))
	mux.Handle(emptyProcedure, connect.NewUnaryHandler(emptyProcedure,
		func(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
			return connect.NewResponse(&emptypb.Empty{}), nil
		}, uncompressed))
	mux.Handle(cannedProcedure, connect.NewUnaryHandler(cannedProcedure,
		func(_ context.Context, req *connect.Request[v1.VerifyRequest]) (*connect.Response[v1.VerifyResponse], error) {
			if req.Msg.GetOmitClaims() {
				return connect.NewResponse(&v1.VerifyResponse{
					Valid: true, Subject: can.GetSubject(), KeyId: can.GetKeyId(), IssuedAt: can.GetIssuedAt(),
					ExpiresAt: can.GetExpiresAt(), Revision: can.GetRevision(), Node: can.GetNode(),
				}), nil
			}
			return connect.NewResponse(can), nil
		}, uncompressed))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.b.Fatal(err)
	}
	server, done := rpc.NewServer(mux, rpc.ServerConfig{}), make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	c.b.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return "http://" + listener.Addr().String()
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

package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
	"github.com/keyquorum/keyquorum/rpc/jsoncodec"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serveOnce has a handler answer without a network.
func serveOnce(t *testing.T, h http.Handler, path, body string) reply {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	text, _ := io.ReadAll(w.Body)
	return reply{status: w.Code, header: w.Header(), body: string(text)}
}

// line gives the log line of a request.
func (s *server) line(t *testing.T, id string) map[string]any {
	t.Helper()
	for text := range strings.Lines(s.logs.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		if line["request_id"] == id {
			return line
		}
	}
	t.Fatalf("no line for %q in %s", id, s.logs)
	return nil
}

func TestRequestIDs(t *testing.T) {
	s := serve(t, nil)
	for sent, kept := range map[string]bool{
		"abc-123_X.y":           true,
		strings.Repeat("a", 64): true,
		strings.Repeat("a", 65): false,
		"":                      false,
		"two words":             false,
		"quote\"":               false,
		"späť":                  false,
	} {
		got := s.post(t, revoke, `{"subject":"ada"}`, rpc.RequestIDHeader+": "+sent)
		id := got.header.Get(rpc.RequestIDHeader)
		if id == "" || (id == sent) != kept {
			t.Errorf("sent %q, got %q", sent, id)
		}
		if s.node.caller.RequestID != id {
			t.Errorf("the node was told %q, the caller %q", s.node.caller.RequestID, id)
		}
		s.line(t, id)
	}
	one, two := s.post(t, status, `{}`), s.post(t, status, `{}`)
	if one.header.Get(rpc.RequestIDHeader) == two.header.Get(rpc.RequestIDHeader) {
		t.Error("two requests, one id")
	}
}

func TestTheNodeIsToldWhoAsked(t *testing.T) {
	s := serve(t, nil)
	s.post(t, revoke, `{"subject":"ada"}`, rpc.RequestIDHeader+": one")
	if want := (rpc.Caller{Actor: "anonymous", Source: "127.0.0.1", Node: "n1", RequestID: "one"}); s.node.caller != want {
		t.Errorf("got %+v, want %+v", s.node.caller, want)
	}
}

func TestAForwardedWriteIsCarriedOutHereForItsCaller(t *testing.T) {
	s := serve(t, nil)
	got := s.post(t, forward, `{"actor":"login","source":"10.1.2.3","node":"n2","nodeId":"id-n2","requestId":"first","revoke":{"subject":"ada"}}`)
	if got.body != `{"revoke":{"keyId":"key","revision":"7"}}` {
		t.Errorf("got %d %s", got.status, got.body)
	}
	want := rpc.Caller{Actor: "login", Source: "10.1.2.3", Node: "n2", RequestID: "first"}
	if s.node.local.caller != want || len(s.node.requests()) != 0 {
		t.Errorf("local: %+v, asked besides: %v", s.node.local.caller, s.node.requests())
	}
	s.line(t, "first")
	s.node.local.fail = fault.ErrNotLeader
	f := s.post(t, forward, `{"actor":"login","source":"10.1.2.3","node":"n2","nodeId":"id-n2","requestId":"first","issue":{"subject":"ada"}}`).failure(t)
	if f.Code != "unavailable" || f.detail(t, "RequestInfo")["requestId"] != "first" {
		t.Errorf("got %+v", f)
	}
}

func TestLogLines(t *testing.T) {
	const joinBody = `{"member":{"nodeId":"i","name":"n","rpcAddress":"h:1","raftAddress":"h:2"}}`
	s := serve(t, nil)
	for _, c := range []struct {
		procedure, body   string
		fail              error
		level, code, more string
	}{
		{procedure: get, body: `{"subject":"ada"}`, level: "DEBUG", code: "ok"},
		{procedure: verify, body: `{"token":"x"}`, level: "DEBUG", code: "ok", more: `"reason":"EXPIRED"`},
		{procedure: issue, body: `{"subject":"ada"}`, level: "DEBUG", code: "ok"},
		{procedure: issue, body: `{"subject":""}`, level: "DEBUG", code: "invalid_argument", more: `"field":"subject"`},
		{procedure: issue, body: `{"subject":"ada","claims":{"sub":"x"}}`, level: "DEBUG", code: "invalid_argument", more: `"field":"claims"`},
		{procedure: get, body: `{}`, level: "DEBUG", code: "invalid_argument", more: `"field":"subject"`},
		{procedure: issue, body: `{"subject":"ada"}`, fail: fault.ErrNoLeader, level: "WARN", code: "unavailable", more: `"error":"the cluster has no leader"`},
		{procedure: issue, body: `{"subject":"ada"}`, fail: errors.New("odd"), level: "ERROR", code: "internal", more: `"error":"odd"`},
		{procedure: join, body: joinBody, fail: fault.ErrNotLeader, level: "DEBUG", code: "unavailable"},
		{procedure: join, body: joinBody, fail: errors.New("odd"), level: "ERROR", code: "internal"},
		{procedure: issue, body: `{"subject":"ada"}`, fail: context.Canceled, level: "DEBUG", code: "canceled"},
	} {
		s.node.fail = c.fail
		id := s.post(t, c.procedure, c.body).header.Get(rpc.RequestIDHeader)
		line := s.line(t, id)
		text, _ := json.Marshal(line)
		if line["level"] != c.level || line["code"] != c.code || line["procedure"] != c.procedure || line["source"] != "127.0.0.1" ||
			line["duration"] == nil || !bytes.Contains(text, []byte(c.more)) {
			t.Errorf("%s %s: got %s", c.procedure, c.body, text)
		}
	}
}

// Whatever becomes of requests that hold a secret in every place that takes text, the log has none of it.
func TestTheLogHoldsNothingOfARequest(t *testing.T) {
	const secret = "S3CR3T"
	s := serve(t, nil)
	s.node.verdict = &v1.VerifyResponse{Valid: true, Subject: secret, KeyId: secret}
	bodies := []string{
		`{"token":"S3CR3T"}`, `{"token":"S3CR3T"`, `{"token":S3CR3T}`, `{"S3CR3T":1}`, `{"token":{"S3CR3T":"S3CR3T"}}`, `S3CR3T`,
		`{"tokens":["S3CR3T"]}`, `{"tokens":"S3CR3T"}`, `{"audience":"S3CR3T"}`,
		`{"subject":"S3CR3T"}`, `{"subject":"S3CR3T\n"}`, `{"subject":"ada","claims":{"S3CR3T":"S3CR3T"}}`,
		`{"subject":"ada","claims":{"S3CR3T":9007199254740993}}`, `{"subject":"ada","claims":{"a":{"S3CR3T":1,"S3CR3T":1}}}`,
		`{"subject":"ada","ttl":"S3CR3T"}`, `{"subject":"ada","audience":["S3CR3T"]}`, `{"subject":"ada","expectedKeyId":"S3CR3T"}`,
		`{"token":"` + strings.Repeat(secret, 20000) + `"}`,
	}
	ask := func() {
		for _, procedure := range []string{issue, verify, verifyBatch, rotate, get} {
			for _, body := range bodies {
				s.post(t, procedure, body)
				s.post(t, procedure, body, "Content-Type: application/proto")
				s.post(t, procedure+secret, body)
			}
		}
	}
	ask()
	s.node.fail = fault.ErrNoLeader
	ask()
	s.node.do = func(context.Context) { panic("a token: " + secret) }
	ask()
	if log := s.logs.String(); log == "" || strings.Contains(log, secret) {
		for line := range strings.Lines(log) {
			if strings.Contains(line, secret) {
				t.Fatalf("the log has %s", line)
			}
		}
	}
}

func TestAPanicEndsOneRequestOnly(t *testing.T) {
	s := serve(t, nil)
	var nothing *v1.Key
	for name, panics := range map[string]func(context.Context){
		"runtime": func(context.Context) { nothing.KeyId = "x" },
		"text":    func(context.Context) { panic("S3CR3T") },
		"error":   func(context.Context) { panic(fault.ErrNoLeader) },
	} {
		s.node.do = panics
		for protocol, client := range everyProtocol(t, s) {
			_, err := client.Verify(t.Context(), connect.NewRequest(&v1.VerifyRequest{Token: "x"}))
			info, ok := detailOf[*v1.RequestInfo](t, err)
			if connect.CodeOf(err) != connect.CodeInternal || !ok || strings.Contains(err.Error(), "S3CR3T") {
				t.Fatalf("%s, %s: got %v", name, protocol, err)
			}
			line := s.line(t, info.GetRequestId())
			if stack, _ := line["stack"].(string); line["level"] != "ERROR" || !strings.Contains(stack, "observe_test.go") {
				t.Errorf("%s, %s: logged %v", name, protocol, line)
			}
		}
	}
	s.node.do = nil
	if got := s.post(t, verify, `{"token":"x"}`); got.status != http.StatusOK {
		t.Errorf("afterwards: %d %s", got.status, got.body)
	}
	text := s.send(t, http.MethodGet, "/metrics", http.NoBody).body
	if !strings.Contains(text, "keyquorum_rpc_panics_total 18\n") {
		t.Errorf("not 18 panics: %s", text)
	}
}

func TestMetrics(t *testing.T) {
	s := serve(t, nil)
	s.post(t, verify, `{"token":"x"}`)
	s.node.verdict = &v1.VerifyResponse{Valid: true}
	s.post(t, verify, `{"token":"x"}`)
	s.post(t, verifyBatch, `{"tokens":["x","y","z"]}`)
	s.post(t, issue, `{"subject":""}`)
	s.post(t, issue, `{"subjekt":""}`)
	s.post(t, issue, strings.Repeat("x", 1<<20))
	s.node.fail = fault.ErrNoLeader
	s.post(t, issue, `{"subject":"ada"}`)
	text := s.send(t, http.MethodGet, "/metrics", http.NoBody).body
	for _, want := range []string{
		`keyquorum_rpc_requests_total{code="ok",procedure="` + verify + `"} 2`,
		`keyquorum_rpc_requests_total{code="invalid_argument",procedure="` + issue + `"} 2`,
		`keyquorum_rpc_requests_total{code="resource_exhausted",procedure="` + issue + `"} 1`,
		`keyquorum_rpc_requests_total{code="unavailable",procedure="` + issue + `"} 1`,
		`keyquorum_rpc_requests_total{code="ok",procedure="` + rotate + `"} 0`,
		`keyquorum_verdicts_total{reason="EXPIRED"} 1`,
		`keyquorum_verdicts_total{reason="NONE"} 1`,
		`keyquorum_verdicts_total{reason="MALFORMED"} 3`,
		`keyquorum_verdicts_total{reason="SIGNATURE_INVALID"} 0`,
		`keyquorum_rpc_duration_seconds_count{procedure="` + verify + `"} 2`,
		`keyquorum_rpc_in_flight 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

func TestTwoHandlersShareMetrics(t *testing.T) {
	s := serve(t, nil)
	other := rpc.NewHandler(rpc.Config{Node: s.node, Logger: quiet(), Registerer: s.reg})
	s.post(t, status, `{}`)
	serveOnce(t, other, status, `{}`)
	text := s.send(t, http.MethodGet, "/metrics", http.NoBody).body
	if want := `keyquorum_rpc_requests_total{code="ok",procedure="` + status + `"} 2`; !strings.Contains(text, want) {
		t.Errorf("no %s", want)
	}
}

func TestProbes(t *testing.T) {
	s := serve(t, nil)
	own := rpc.ProbeHandler(rpc.Config{Node: s.node, Gatherer: s.reg})
	probe := func(path string) (int, string) {
		t.Helper()
		got := s.send(t, http.MethodGet, path, http.NoBody)
		w := httptest.NewRecorder()
		own.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if w.Code != got.status || w.Body.String() != got.body {
			t.Errorf("%s: %d %s, by itself %d %s", path, got.status, got.body, w.Code, w.Body)
		}
		return got.status, got.body
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if code, body := probe(path); code != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	s.node.ready = errors.New("no leader\nsince 5 s")
	if code, body := probe("/readyz"); code != http.StatusServiceUnavailable || body != "no leader since 5 s\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, _ := probe("/livez"); code != http.StatusOK {
		t.Errorf("/livez: %d", code)
	}
	s.node.live = fault.ErrHalted
	if code, body := probe("/livez"); code != http.StatusServiceUnavailable || body != "this node has halted\n" {
		t.Errorf("%d %q", code, body)
	}
}

func TestProbesCanBeLeftOut(t *testing.T) {
	s := serve(t, func(cfg *rpc.Config) { cfg.OmitProbes = true })
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		if got := s.send(t, http.MethodGet, path, http.NoBody); got.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.status)
		}
	}
}

func TestConfigTellsAllItsFaults(t *testing.T) {
	err := rpc.Config{MaxTimeout: -1}.Validate()
	if err == nil || !strings.Contains(err.Error(), "Node") || !strings.Contains(err.Error(), "MaxTimeout") {
		t.Errorf("got %v", err)
	}
}

// What the service adds to an empty RPC of connect's, without the network.
func BenchmarkHandler(b *testing.B) {
	node := &fakeNode{verdict: &v1.VerifyResponse{Valid: true, Subject: "ada", KeyId: strings.Repeat("k", 22)}}
	bare := connect.NewUnaryHandler(verify,
		func(context.Context, *connect.Request[v1.VerifyRequest]) (*connect.Response[v1.VerifyResponse], error) {
			return connect.NewResponse(node.verdict), nil
		})
	full := rpc.NewHandler(rpc.Config{
		Node: node, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
	request := &v1.VerifyRequest{Token: strings.Repeat("x", 400)}
	binary, err := proto.Marshal(request)
	if err != nil {
		b.Fatal(err)
	}
	text, err := jsoncodec.Append(nil, request)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name, contentType string
		handler           http.Handler
		body              []byte
	}{
		{"bare, proto", "application/proto", bare, binary},
		{"verify, proto", "application/proto", full, binary},
		{"bare, json", "application/json", bare, text},
		{"verify, json", "application/json", full, text},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				req := httptest.NewRequestWithContext(b.Context(), http.MethodPost, verify, bytes.NewReader(c.body))
				req.Header.Set("Content-Type", c.contentType)
				w := httptest.NewRecorder()
				if c.handler.ServeHTTP(w, req); w.Code != http.StatusOK {
					b.Fatal(w.Code, w.Body)
				}
				node.asked = node.asked[:0]
			}
		})
	}
}

func BenchmarkRPC(b *testing.B) {
	s := serve(b, func(cfg *rpc.Config) {
		cfg.Logger = slog.New(slog.DiscardHandler) // INFO, as in production
	})
	s.node.verdict = &v1.VerifyResponse{Valid: true, Subject: "ada", KeyId: strings.Repeat("k", 22)}
	mux := http.NewServeMux()
	mux.Handle(verify, connect.NewUnaryHandler(verify,
		func(context.Context, *connect.Request[v1.VerifyRequest]) (*connect.Response[v1.VerifyResponse], error) {
			return connect.NewResponse(s.node.verdict), nil
		}))
	bare := &server{node: s.node, logs: new(lockedBuffer)}
	bare.listen(b, mux)
	request := &v1.VerifyRequest{Token: strings.Repeat("x", 400)}
	for _, c := range []struct {
		name   string
		client keyquorumv1connect.TokenServiceClient
	}{
		{"bare", keyquorumv1connect.NewTokenServiceClient(bare.http, bare.url)},
		{"verify", keyquorumv1connect.NewTokenServiceClient(s.http, s.url)},
		{"bare, json", keyquorumv1connect.NewTokenServiceClient(bare.http, bare.url, connect.WithProtoJSON())},
		{"verify, json", keyquorumv1connect.NewTokenServiceClient(s.http, s.url, connect.WithProtoJSON())},
		{"bare, grpc", keyquorumv1connect.NewTokenServiceClient(bare.h2c(b), bare.url, connect.WithGRPC())},
		{"verify, grpc", keyquorumv1connect.NewTokenServiceClient(s.h2c(b), s.url, connect.WithGRPC())},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.client.Verify(b.Context(), connect.NewRequest(request)); err != nil {
					b.Fatal(err)
				}
			}
			s.node.mu.Lock()
			s.node.asked = nil
			s.node.mu.Unlock()
		})
	}
}

// Whoever makes a node fail again and again does not fill its disk.
func TestWarningsOfRequestsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := serveInBubble(t, 0, nil)
		s.node.fail = fault.ErrBehind
		client := keyquorumv1connect.NewTokenServiceClient(over(t, p, "a", true), s.url)
		for range 100 {
			if _, err := client.Verify(t.Context(), connect.NewRequest(&v1.VerifyRequest{Token: "x"})); err == nil {
				t.Fatal("no failure")
			}
		}
		if got := strings.Count(s.logs.String(), `"level":"WARN"`); got == 0 || got > 20 {
			t.Errorf("%d warnings of 100 failures within a second", got)
		}
		time.Sleep(time.Second)
		before := strings.Count(s.logs.String(), `"level":"WARN"`)
		_, _ = client.Verify(t.Context(), connect.NewRequest(&v1.VerifyRequest{Token: "x"}))
		if strings.Count(s.logs.String(), `"level":"WARN"`) != before+1 {
			t.Error("a second later, a failure is no warning any more")
		}
	})
}

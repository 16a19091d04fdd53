package rpc_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// everyProtocol gives a client for each way to reach the services.
func everyProtocol(t *testing.T, s *server) map[string]keyquorumv1connect.TokenServiceClient {
	h2c := s.h2c(t)
	return map[string]keyquorumv1connect.TokenServiceClient{
		"connect":       keyquorumv1connect.NewTokenServiceClient(s.http, s.url),
		"connect, h2c":  keyquorumv1connect.NewTokenServiceClient(h2c, s.url),
		"connect, json": keyquorumv1connect.NewTokenServiceClient(s.http, s.url, connect.WithProtoJSON()),
		"grpc":          keyquorumv1connect.NewTokenServiceClient(h2c, s.url, connect.WithGRPC()),
		"grpc-web":      keyquorumv1connect.NewTokenServiceClient(s.http, s.url, connect.WithGRPCWeb()),
		"grpc, json":    keyquorumv1connect.NewTokenServiceClient(h2c, s.url, connect.WithGRPC(), connect.WithProtoJSON()),
	}
}

func TestEveryProtocolIsServed(t *testing.T) {
	s := serve(t, nil)
	for name, client := range everyProtocol(t, s) {
		res, err := client.Verify(t.Context(), connect.NewRequest(&v1.VerifyRequest{Token: "x"}))
		if err != nil || res.Msg.GetReason() != v1.VerifyResponse_EXPIRED || res.Header().Get(rpc.RequestIDHeader) == "" {
			t.Errorf("%s: got %v, %v", name, res, err)
		}
	}
}

func TestOversizedRequestsAreRefusedInEveryProtocol(t *testing.T) {
	s := serve(t, nil)
	for name, client := range everyProtocol(t, s) {
		for _, size := range []int{64 << 10, 1 << 20} {
			_, err := client.Verify(t.Context(), connect.NewRequest(&v1.VerifyRequest{Token: strings.Repeat("x", size)}))
			info, ok := detailOf[*v1.RequestInfo](t, err)
			if connect.CodeOf(err) != connect.CodeResourceExhausted || !ok {
				t.Errorf("%s: got %v", name, err)
			}
			if !strings.Contains(s.logs.String(), info.GetRequestId()) {
				t.Errorf("%s: not logged", name)
			}
		}
		fits := strings.Repeat("x", 60<<10)
		if _, err := client.Verify(t.Context(), connect.NewRequest(&v1.VerifyRequest{Token: fits})); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFullBatchFits(t *testing.T) {
	s := serve(t, nil)
	tokens := make([]string, 256)
	for i := range tokens {
		tokens[i] = strings.Repeat("x", 8<<10)
	}
	for name, client := range everyProtocol(t, s) {
		res, err := client.VerifyBatch(t.Context(), connect.NewRequest(&v1.VerifyBatchRequest{Tokens: tokens}))
		if err != nil || len(res.Msg.GetVerdicts()) != len(tokens) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A body that does not say how long it is, and never ends, is cut at the bound.
func TestAnEndlessBodyIsCut(t *testing.T) {
	s := serve(t, nil)
	endless := io.MultiReader(strings.NewReader(`{"subject":"`), io.LimitReader(zeros{}, 1<<30))
	got := s.send(t, http.MethodPost, issue, struct{ io.Reader }{endless})
	if f := got.failure(t); got.status != http.StatusTooManyRequests || f.Code != "resource_exhausted" || f.detail(t, "RequestInfo") == nil {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// A body that announces too much is not even read.
func TestABodyThatAnnouncesTooMuchIsNotRead(t *testing.T) {
	h := rpc.NewHandler(rpc.Config{Node: &fakeNode{}, Logger: quiet()})
	body := &io.LimitedReader{R: zeros{}, N: 64<<10 + 1}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, issue, body)
	req.Header.Set("Content-Type", "application/json")
	req.ContentLength = body.N
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	if w.Code != http.StatusTooManyRequests || body.N != 64<<10+1 {
		t.Errorf("got %d, %d bytes left", w.Code, body.N)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

// Nothing is decompressed, so no small body becomes a large one, and connect's clients do without.
func TestCompressedRequestsAreRefused(t *testing.T) {
	s := serve(t, nil)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 4<<20))
	_ = z.Close()
	got := s.send(t, http.MethodPost, verifyBatch, &bomb, "Content-Encoding: gzip")
	if f := got.failure(t); f.Code != "unimplemented" || f.detail(t, "RequestInfo") == nil || !strings.Contains(f.Message, "uncompressed") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	client := keyquorumv1connect.NewTokenServiceClient(s.h2c(t), s.url, connect.WithGRPC(), connect.WithSendGzip())
	_, err := client.Verify(t.Context(), connect.NewRequest(&v1.VerifyRequest{Token: "x"}))
	if connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("got %v", err)
	}
	if len(s.node.requests()) != 0 {
		t.Error("the node was asked")
	}
}

func TestOnlyPostAndKnownContentTypes(t *testing.T) {
	s := serve(t, nil)
	query := "?encoding=json&message=%7B%22token%22%3A%22x%22%7D"
	if got := s.send(t, http.MethodGet, verify+query, http.NoBody); got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != "POST" {
		t.Errorf("GET: got %d %v", got.status, got.header)
	}
	for _, contentType := range []string{"application/x-www-form-urlencoded", "text/plain", ""} {
		got := s.post(t, verify, `{"token":"x"}`, "Content-Type: "+contentType)
		if f := got.failure(t); f.Code != "invalid_argument" || !strings.Contains(f.Message, "application/json") || f.detail(t, "RequestInfo") == nil {
			t.Errorf("%q: got %d %s", contentType, got.status, got.body)
		}
	}
	for _, path := range []string{"/", "/keyquorum.v1.TokenService/Nothing", "/nothing"} {
		if got := s.post(t, path, `{}`); got.status != http.StatusNotFound {
			t.Errorf("%s: got %d", path, got.status)
		}
	}
}

// A caller that breaks the protocol itself gets connect's answer; the header and the log have its id all the same.
func TestABrokenProtocolIsLogged(t *testing.T) {
	s := serve(t, nil)
	got := s.post(t, verify, `{}`, "Connect-Timeout-Ms: soon")
	id := got.header.Get(rpc.RequestIDHeader)
	if got.status != http.StatusBadRequest || id == "" || !strings.Contains(s.logs.String(), id) {
		t.Errorf("got %d %s, log %s", got.status, got.body, s.logs)
	}
}

func TestARequestEndsInTime(t *testing.T) {
	var left time.Duration
	s := serve(t, func(cfg *rpc.Config) { cfg.MaxTimeout = 5 * time.Second })
	s.node.do = func(ctx context.Context) {
		deadline, _ := ctx.Deadline()
		left = time.Until(deadline)
	}
	for timeout, most := range map[string]time.Duration{"": 5 * time.Second, "3600000": 5 * time.Second, "2000": 2 * time.Second} {
		s.post(t, issue, `{"subject":"ada"}`, "Connect-Timeout-Ms: "+timeout)
		if left <= 0 || left > most {
			t.Errorf("asked for %q ms, the node had %s", timeout, left)
		}
	}
}

// In virtual time, straight into the handler.
func TestARequestThatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := &fakeNode{}
		node.do = func(ctx context.Context) { <-ctx.Done(); node.fail = ctx.Err() }
		h := rpc.NewHandler(rpc.Config{Node: node, Logger: quiet()})
		start := time.Now()
		got := serveOnce(t, h, issue, `{"subject":"ada"}`)
		if f := got.failure(t); f.Code != "deadline_exceeded" || time.Since(start) != rpc.DefaultMaxTimeout {
			t.Errorf("got %s after %s", got.body, time.Since(start))
		}
	})
}

func TestAWriteWhoseTimeRanOutIsOpen(t *testing.T) {
	s := serve(t, func(cfg *rpc.Config) { cfg.MaxTimeout = time.Millisecond })
	s.node.do = func(ctx context.Context) { <-ctx.Done(); s.node.fail = errors.Join(ctx.Err(), fault.ErrOutcomeUnknown) }
	if f := s.post(t, revoke, `{"subject":"ada"}`).failure(t); f.Code != "unknown" || f.detail(t, "OutcomeUnknown") == nil {
		t.Errorf("got %+v", f)
	}
}

// What does not keep to its protocol is refused before connect would do it, which knows no request ids.
func TestABrokenProtocolIsToldWithItsID(t *testing.T) {
	s := serve(t, nil)
	message := func(flags byte, length int, body string) string {
		return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(length))) + body
	}
	for name, c := range map[string]struct{ contentType, header, body string }{
		"connect, time-out":          {"application/json", "Connect-Timeout-Ms: soon", "{}"},
		"connect, negative time-out": {"application/json", "Connect-Timeout-Ms: -1", "{}"},
		"connect, version":           {"application/proto", "Connect-Protocol-Version: 2", ""},
		"connect, charset":           {"application/json; charset=latin1", "", "{}"},
		"grpc, time-out":             {"application/grpc", "Grpc-Timeout: 5", message(0, 0, "")},
		"grpc, encoding":             {"application/grpc", "Grpc-Encoding: gzip", message(1, 0, "")},
		"grpc, codec":                {"application/grpc+xml", "", message(0, 0, "")},
		"grpc, no message":           {"application/grpc", "", ""},
		"grpc, half a message":       {"application/grpc+proto", "", message(0, 10, "x")},
		"grpc, two messages":         {"application/grpc", "", message(0, 0, "") + message(0, 0, "")},
		"grpc, compressed":           {"Application/gRPC", "", message(1, 1, "x")},
		"grpc-web, half a message":   {"application/grpc-web+proto", "", message(0, 10, "x")},
	} {
		id := strings.NewReplacer(", ", ".", " ", "-").Replace(name)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+verify, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", c.contentType)
		req.Header.Set(rpc.RequestIDHeader, id)
		if header, value, ok := strings.Cut(c.header, ": "); ok {
			req.Header.Set(header, value)
		}
		res, err := s.h2c(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if got := requestInfo(t, res, body); got != id || res.Header.Get(rpc.RequestIDHeader) != id {
			t.Errorf("%s: the error's id is %q, of %d %v %v %s", name, got, res.StatusCode, res.Header, res.Trailer, body)
		}
		s.line(t, id)
	}
	if len(s.node.requests()) != 0 {
		t.Error("the node was asked")
	}
}

// requestInfo gives the id in an error's details, in whichever protocol it is.
func requestInfo(t *testing.T, res *http.Response, body []byte) string {
	t.Helper()
	packed := res.Trailer.Get("Grpc-Status-Details-Bin") + res.Header.Get("Grpc-Status-Details-Bin")
	if packed == "" {
		id, _ := reply{status: res.StatusCode, body: string(body)}.failure(t).detail(t, "RequestInfo")["requestId"].(string)
		return id
	}
	status, err := base64.RawStdEncoding.DecodeString(packed)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "keyquorum.v1.RequestInfo\x12") // the field of the detail's bytes
	var info v1.RequestInfo
	if after == "" || proto.Unmarshal([]byte(after[1:]), &info) != nil {
		t.Errorf("no RequestInfo in %q", status)
	}
	return info.GetRequestId()
}

// Every spelling of a content type that connect takes is still taken.
func TestContentTypesInOtherSpellings(t *testing.T) {
	s := serve(t, nil)
	for _, contentType := range []string{
		"application/json; charset=utf-8", "application/json;charset=UTF-8", `application/json; charset="utf-8"`, "Application/JSON",
	} {
		if got := s.post(t, verify, `{"token":"x"}`, "Content-Type: "+contentType); got.status != http.StatusOK {
			t.Errorf("%s: got %d %s", contentType, got.status, got.body)
		}
	}
}

// What came of a body that ended early is not carried out, though it may look whole.
func TestABodyCutShort(t *testing.T) {
	node := &fakeNode{}
	h := rpc.NewHandler(rpc.Config{Node: node, Logger: quiet()})
	body := io.MultiReader(strings.NewReader(`{"subject":"ada"}`), iotest.ErrReader(io.ErrUnexpectedEOF))
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, issue, body)
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	f := reply{status: w.Code, body: w.Body.String()}.failure(t)
	if f.Code != "invalid_argument" || f.detail(t, "RequestInfo") == nil || len(node.requests()) != 0 {
		t.Errorf("got %d %+v", w.Code, f)
	}
}

package rpc

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1/peerv1connect"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// Bounds on a request's body in bytes, which is never compressed.
const (
	maxBody = 64 << 10
	// A full batch of the longest tokens, in JSON.
	maxBatchBody = maxBatch*(maxToken+64) + maxBody
	// What a node forwards has a little around it.
	maxPeerBody = 2 * maxBody
)

// edge is what a request meets first: it gives it an id, bounds its body, and answers what connect could only answer
// without them.
type edge struct {
	next    http.Handler
	log     *slog.Logger
	metrics *metrics
	errors  *connect.ErrorWriter
	limits  map[string]int64
}

func newEdge(next http.Handler, log *slog.Logger, m *metrics) *edge {
	limits := make(map[string]int64)
	for _, p := range procedures() {
		limits[p] = bodyLimit(p)
	}
	return &edge{next: next, log: log, metrics: m, errors: connect.NewErrorWriter(), limits: limits}
}

func bodyLimit(procedure string) int64 {
	switch {
	case procedure == keyquorumv1connect.TokenServiceVerifyBatchProcedure:
		return maxBatchBody
	case strings.HasPrefix(procedure, "/"+peerv1connect.PeerServiceName+"/"):
		return maxPeerBody
	}
	return maxBody
}

func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{id: requestID(r.Header)}
	w.Header()[RequestIDHeader] = []string{c.id}
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	limit, known := e.limits[r.URL.Path]
	if known {
		r.Body = boundBody(r, c, limit)
		if err := unacceptable(r); err != nil {
			e.refuse(w, r, c, err)
			return
		}
	}
	e.next.ServeHTTP(w, r)
	if !c.reached {
		e.unreached(r, c, known)
	}
}

// envelope is what gRPC sends before a message.
func envelope(r *http.Request) int64 {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		return 5
	}
	return 0
}

// unacceptable says why a request cannot be read, in words where connect has only a status.
func unacceptable(r *http.Request) *connect.Error {
	if r.Method != http.MethodPost {
		return nil // connect answers 405 with what is allowed
	}
	for _, header := range []string{"Content-Encoding", "Grpc-Encoding"} {
		if encoding := r.Header.Get(header); encoding != "" && encoding != "identity" {
			return connect.NewError(connect.CodeUnimplemented, fmt.Errorf("%s: send the request uncompressed", header))
		}
	}
	if !acceptable(r.Header.Get("Content-Type")) {
		return connect.NewError(connect.CodeInvalidArgument, errContentType)
	}
	return nil
}

func acceptable(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(mediaType)) {
	case "application/json", "application/proto":
		return true
	}
	return strings.HasPrefix(mediaType, "application/grpc")
}

func (e *edge) refuse(w http.ResponseWriter, r *http.Request, c *call, err *connect.Error) {
	_ = e.errors.Write(w, r, withRequestInfo(err, c.id)) // the caller has gone if it fails
	e.unreached(r, c, true)
}

// unreached logs and counts what never came to the interceptor: a body over its bound, or a caller that does not keep
// to its own protocol.
func (e *edge) unreached(r *http.Request, c *call, known bool) {
	if !known {
		e.log.LogAttrs(r.Context(), slog.LevelDebug, "no such procedure",
			slog.String("request_id", c.id), slog.String("source", host(r.RemoteAddr)))
		return
	}
	code := "undecoded"
	if c.tooLarge {
		code = connect.CodeResourceExhausted.String()
	}
	e.metrics.requests.WithLabelValues(r.URL.Path, code).Inc()
	e.log.LogAttrs(r.Context(), slog.LevelInfo, "request refused unread",
		slog.String("procedure", r.URL.Path), slog.String("code", code),
		slog.String("request_id", c.id), slog.String("source", host(r.RemoteAddr)))
}

// boundedBody fails with an error that connect passes to the caller as it is, once more has come than is allowed, or
// was announced. Connect's own bound reads an oversized message to its end, and knows no request id.
type boundedBody struct {
	io.ReadCloser
	call  *call
	limit int64
	left  int64 // negative once there is too much
}

func boundBody(r *http.Request, c *call, limit int64) *boundedBody {
	b := &boundedBody{ReadCloser: r.Body, call: c, limit: limit, left: limit + envelope(r)}
	if r.ContentLength > b.left {
		b.left = -1
	}
	return b
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, b.tooLarge()
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, b.tooLarge()
	}
	return n, err
}

func (b *boundedBody) tooLarge() error {
	b.call.tooLarge = true
	err := connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("the request is larger than %d bytes", b.limit))
	return withRequestInfo(err, b.call.id)
}

package rpc

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
)

func (g *guard) logDone(ctx context.Context, req told, c *call, took time.Duration, reason string) {
	if !g.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	attrs := attributes(req, c, took, "ok")
	if reason != "" {
		attrs = append(attrs, slog.String("reason", reason))
	}
	g.log.LogAttrs(ctx, slog.LevelDebug, "request", attrs...)
}

func (g *guard) logFailure(ctx context.Context, req told, c *call, took time.Duration, wire *connect.Error, cause error) {
	level := levelOf(wire.Code(), isPeer(req.Spec().Procedure))
	if level == slog.LevelWarn && !g.warnings.allow() {
		level = slog.LevelDebug
	}
	if !g.log.Enabled(ctx, level) {
		return
	}
	attrs := attributes(req, c, took, wire.Code().String())
	if field := topField(cause); field != "" {
		attrs = append(attrs, slog.String("field", field))
	}
	if level >= slog.LevelWarn {
		attrs = append(attrs, slog.String("error", cause.Error()))
	}
	if panicked, ok := errors.AsType[*panicError](cause); ok {
		attrs = append(attrs, slog.String("stack", string(panicked.stack)))
	}
	g.log.LogAttrs(ctx, level, "request", attrs...)
}

// perSecond bounds how often something is done, whoever asks for it. It has no lock.
type perSecond struct {
	most    int64
	second  atomic.Int64
	counted atomic.Int64
}

// maxWarnings bounds the warnings of requests: who makes a node fail again and again must not fill its disk.
const maxWarnings = 20

func (p *perSecond) allow() bool {
	if now := time.Now().Unix(); p.second.Swap(now) != now {
		p.counted.Store(0)
	}
	return p.counted.Add(1) <= p.most
}

func attributes(req told, c *call, took time.Duration, code string) []slog.Attr {
	return append(make([]slog.Attr, 0, 8),
		slog.String("procedure", req.Spec().Procedure),
		slog.String("code", code),
		slog.Duration("duration", took),
		slog.String("source", host(req.Peer().Addr)),
		slog.String("request_id", c.id),
	)
}

// levelOf tells how loud a failure is: what the node could not do stands out, what the caller got wrong does not, nor
// that a peer asked who cannot answer now, and will ask another. An error's text goes along only from WARN on, as only
// texts of the caller's faults can have words of the request.
func levelOf(code connect.Code, peer bool) slog.Level {
	switch code {
	case connect.CodeInternal, connect.CodeDataLoss:
		return slog.LevelError
	case connect.CodeUnavailable, connect.CodeUnknown, connect.CodeResourceExhausted, connect.CodeDeadlineExceeded:
		if !peer {
			return slog.LevelWarn
		}
	}
	return slog.LevelDebug
}

// topField names the request's own field that is at fault: what follows it in a path can be the caller's words.
func topField(err error) string {
	var path string
	if invalid, ok := errors.AsType[*fault.InvalidError](err); ok {
		path = invalid.Field
	}
	if refusal, ok := errors.AsType[*fsm.Refusal](err); ok {
		path = refusal.Field
	}
	if i := strings.IndexAny(path, ".["); i >= 0 {
		path = path[:i]
	}
	if !knownFields[path] {
		return ""
	}
	return path
}

// knownFields are the names of the fields that requests have.
var knownFields = func() map[string]bool {
	known := make(map[string]bool)
	for _, m := range methods() {
		fields := m.Input().Fields()
		for i := range fields.Len() {
			known[fields.Get(i).JSONName()] = true
		}
	}
	return known
}()

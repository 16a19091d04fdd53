package rpc

import (
	"context"
	"log/slog"
	"strings"
)

// netHTTPLog gives what net/http says of itself, all of it on one level, the levels that it has: nearly all is about
// callers that came and went as they should not.
type netHTTPLog struct{ slog.Handler }

// loud are the beginnings of what is about the node: it cannot take connections (no file descriptors, say), or has a
// fault of its own.
var loud = []string{"http: Accept error", "http: panic serving", "http2: panic serving"}

// Enabled leaves the decision to Handle.
func (netHTTPLog) Enabled(context.Context, slog.Level) bool { return true }

func (h netHTTPLog) Handle(ctx context.Context, r slog.Record) error {
	for _, start := range loud {
		if strings.HasPrefix(r.Message, start) {
			r.Level = slog.LevelError
		}
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

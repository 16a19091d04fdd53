package rpc

import (
	"context"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"
)

// guarded is the guard as connect takes it: for requests with one answer, and for those with a stream of them.
type guarded struct{ *guard }

var _ connect.Interceptor = guarded{}

// WrapUnary implements connect.Interceptor.
func (g guarded) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return g.wrap(next) }

// WrapStreamingClient implements connect.Interceptor: there is no client here.
func (guarded) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor. A stream sets its own limits on time.
func (g guarded) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		c := callOf(ctx)
		c.reached = true
		count := g.metrics.of(conn.Spec())
		start := time.Now()
		err := g.stream(ctx, conn, next)
		took := time.Since(start)
		req := streamed{spec: conn.Spec(), peer: conn.Peer()}
		if err != nil {
			wire := withRequestInfo(wireError(err), c.id)
			count.failed(wire.Code(), took)
			g.logFailure(ctx, req, c, took, wire, err)
			return wire
		}
		count.done(took)
		g.logDone(ctx, req, c, took, "")
		return nil
	}
}

// stream runs the handler. A panic becomes an error.
func (g *guard) stream(ctx context.Context, conn connect.StreamingHandlerConn, next connect.StreamingHandlerFunc) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if r == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
				panic(r)
			}
			g.metrics.panics.Inc()
			err = &panicError{what: describePanic(r), stack: debug.Stack()}
		}
	}()
	return next(ctx, conn)
}

// streamed is what the log tells of a stream.
type streamed struct {
	spec connect.Spec
	peer connect.Peer
}

func (s streamed) Spec() connect.Spec { return s.spec }
func (s streamed) Peer() connect.Peer { return s.peer }

// told is what the log tells of a request.
type told interface {
	Spec() connect.Spec
	Peer() connect.Peer
}

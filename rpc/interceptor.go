package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"
)

// guard stands around every handler: it ends a request in time, keeps a panic from the process, gives errors their
// codes, and tells the log and the metrics what came of it.
type guard struct {
	log        *slog.Logger
	metrics    *metrics
	maxTimeout time.Duration
	warnings   perSecond
}

func (g *guard) wrap(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		c := callOf(ctx)
		c.reached = true
		count := g.metrics.of(req.Spec())
		ctx, cancel := context.WithTimeout(ctx, g.maxTimeout)
		defer cancel()
		start := time.Now()
		res, err := g.serve(ctx, req, next)
		took := time.Since(start)
		if err != nil {
			wire := withRequestInfo(wireError(err), c.id)
			count.failed(wire.Code(), took)
			g.logFailure(ctx, req, c, took, wire, err)
			return nil, wire
		}
		reason := g.metrics.verdicts(res.Any())
		count.done(took)
		g.logDone(ctx, req, c, took, reason)
		return res, nil
	}
}

// serve runs the handler, or says what was wrong with the body. A panic becomes an error.
func (g *guard) serve(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (res connect.AnyResponse, err error) {
	defer func() {
		if r := recover(); r != nil {
			if r == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
				panic(r)
			}
			g.metrics.panics.Inc()
			res, err = nil, &panicError{what: describePanic(r), stack: debug.Stack()}
		}
	}()
	if err := decodeFault(req.Any()); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// panicError is a handler's panic.
type panicError struct {
	what  string
	stack []byte
}

func (e *panicError) Error() string { return "panic: " + e.what }

// describePanic tells of a panic what cannot be a part of the request: the runtime's own words, or else only a type.
// The stack says where it was.
func describePanic(r any) string {
	if err, ok := r.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("of type %T", r)
}

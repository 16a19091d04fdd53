package client

import (
	"context"
	"net/http"

	"connectrpc.com/connect"
)

// Interceptor is Middleware for the handlers of a Connect service: give it to connect.WithInterceptors. It refuses with
// CodeUnauthenticated, CodeInvalidArgument and CodeUnavailable in the place of 401, 400 and 503, with the same headers,
// and leaves alone what goes out.
func (c *Client) Interceptor(opts ...GuardOption) connect.Interceptor {
	return interceptor{c.guard(opts)}
}

type interceptor struct{ guard *guard }

var refusalCodes = map[int]connect.Code{
	http.StatusBadRequest:         connect.CodeInvalidArgument,
	http.StatusUnauthorized:       connect.CodeUnauthenticated,
	http.StatusServiceUnavailable: connect.CodeUnavailable,
}

func (i interceptor) admit(ctx context.Context, h http.Header) (context.Context, error) {
	ctx, refusal := i.guard.admit(ctx, h)
	if refusal == nil {
		return ctx, nil
	}
	err := connect.NewError(refusalCodes[refusal.Status], refusal)
	refusal.setHeaders(err.Meta())
	return nil, err
}

// WrapUnary implements connect.Interceptor.
func (i interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if req.Spec().IsClient {
			return next(ctx, req)
		}
		ctx, err := i.admit(ctx, req.Header())
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (i interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		ctx, err := i.admit(ctx, conn.RequestHeader())
		if err != nil {
			return err
		}
		return next(ctx, conn)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

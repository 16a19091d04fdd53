package rpc

import (
	"context"
	"net/http"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1/peerv1connect"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
	"github.com/keyquorum/keyquorum/rpc/jsoncodec"
)

// NewHandler serves all services, by Connect, gRPC, gRPC-Web and plain POST of JSON alike, and the probes unless
// cfg.OmitProbes. It panics if cfg is not valid.
//
// A request passes the edge (request id, bounds on how many there are and on its body), connect (protocol and decoding),
// the interceptor (time limit, panics, wire errors, log, metrics) and a handler (validation), before it reaches the node.
func NewHandler(cfg Config) http.Handler {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	cfg = cfg.withDefaults()
	metrics := newMetrics(cfg.Registerer)
	var who access
	if cfg.Secure {
		who.bearer = cfg.Node.Bearer
	}
	guard := &guard{log: cfg.Logger, metrics: metrics, maxTimeout: cfg.MaxTimeout, warnings: perSecond{most: maxWarnings}}
	services := http.NewServeMux()
	opts := options(guard)
	services.Handle(keyquorumv1connect.NewTokenServiceHandler(tokenService{cfg.Node}, opts))
	services.Handle(keyquorumv1connect.NewKeyServiceHandler(keyService{cfg.Node}, opts))
	services.Handle(keyquorumv1connect.NewClusterServiceHandler(clusterService{cfg.Node}, opts))
	services.Handle(keyquorumv1connect.NewAccessServiceHandler(accessService{cfg.Node}, opts))
	services.Handle(keyquorumv1connect.NewAuditServiceHandler(auditService{cfg.Node}, opts))
	services.Handle(peerv1connect.NewPeerServiceHandler(peerService{cfg.Node}, opts))
	rpcs := newEdge(services, cfg.Logger, metrics, cfg.Limits, who)
	if cfg.OmitProbes {
		return rpcs
	}
	probes := http.NewServeMux()
	mountProbes(probes, cfg, who)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// What a mux answers by itself has no bound of ours, so it is asked for what it serves alone.
		if isProbe(cfg, r) {
			probes.ServeHTTP(w, r)
		} else {
			rpcs.ServeHTTP(w, r)
		}
	})
}

// options are those of every RPC.
//
// Compression is off both ways: tokens do not compress, an answer that mixes secrets with what a caller chose must not
// tell by its length, and a small body cannot become a large one. Nor is there a way to send a request by GET: tokens
// have no place in a URL. Sizes are bounded by the edge.
func options(g *guard) connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithCodec(deferring{jsoncodec.New("json")}),
		connect.WithCodec(deferring{jsoncodec.New("json; charset=utf-8")}),
		connect.WithCodec(deferring{binaryCodec{}}),
		connect.WithCompression("gzip", nil, nil),
		connect.WithIdempotency(connect.IdempotencyUnknown),
		connect.WithInterceptors(guarded{g}),
	)
}

// answer carries out a request that has been validated, for the handlers.
func answer[Req, Res any](
	ctx context.Context, req *connect.Request[Req], check func(*Req) error, do func(context.Context, *Req) (*Res, error),
) (*connect.Response[Res], error) {
	if err := check(req.Msg); err != nil {
		return nil, err
	}
	res, err := do(ctx, req.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res), nil
}

// write is answer for what changes something: the node is told who asked.
func write[Req, Res any](
	ctx context.Context, node Node, req *connect.Request[Req], check func(*Req) error,
	do func(context.Context, Caller, *Req) (*Res, error),
) (*connect.Response[Res], error) {
	return answer(ctx, req, check, func(ctx context.Context, msg *Req) (*Res, error) {
		return do(ctx, callerOf(ctx, node, req.Peer()), msg)
	})
}

// unchecked is for requests in which nothing can be wrong.
func unchecked[Req any](*Req) error { return nil }

// noRequest adapts what takes no request.
func noRequest[Req, Res any](do func(context.Context) (*Res, error)) func(context.Context, *Req) (*Res, error) {
	return func(ctx context.Context, _ *Req) (*Res, error) { return do(ctx) }
}

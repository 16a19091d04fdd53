package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/internal/fault"
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

// edge is what a request meets first: it gives it an id and a place, reads its body, and answers what connect could
// only answer without them.
type edge struct {
	next    http.Handler
	log     *slog.Logger
	metrics *metrics
	errors  *connect.ErrorWriter
	access  access
	callers callers
	routes  map[string]route
	// nowhere is for what asks for no procedure, whoever sends it.
	nowhere  *room
	refusals *room
}

// route is what the edge knows of a procedure.
type route struct {
	body  int64
	room  *room
	turns turns
	// stream tells that there is a stream of answers.
	stream bool
}

func newEdge(next http.Handler, log *slog.Logger, m *metrics, limits Limits, who access) *edge {
	var (
		reads    = newRoom("read", limits.Reads)
		writes   = newRoom("write", limits.Writes)
		endings  = newRoom("revocation", limits.Revocations)
		bulk     = newRoom("bulk", limits.Bulk)
		forwards = newRoom("forwarded", limits.Forwards)
		peers    = newRoom("peer", limits.Peers)
		ticks    = newRoom("tick", limits.Peers)
		applied  = newRoom("applied", limits.Peers)
		watches  = newRoom("watch", limits.Watches)
		few      = make(turns, limits.Turns)
	)
	numbered(reads, writes, endings, bulk, watches, forwards, peers, ticks, applied)
	routes := make(map[string]route)
	for _, p := range procedures() {
		switch {
		case p == peerv1connect.PeerServiceForwardProcedure:
			routes[p] = route{body: maxPeerBody, room: forwards}
		case p == peerv1connect.PeerServiceTickProcedure:
			routes[p] = route{body: maxPeerBody, room: ticks}
		case p == peerv1connect.PeerServiceAppliedProcedure:
			routes[p] = route{body: maxPeerBody, room: applied}
		case isPeer(p):
			routes[p] = route{body: maxPeerBody, room: peers}
		case p == keyquorumv1connect.TokenServiceVerifyBatchProcedure:
			routes[p] = route{body: maxBatchBody, room: bulk, turns: few}
		case streaming[p]:
			routes[p] = route{body: maxBody, room: watches, stream: true}
		case p == keyquorumv1connect.KeyServiceListProcedure, p == keyquorumv1connect.AuditServiceListProcedure,
			p == keyquorumv1connect.AccessServiceListTokensProcedure,
			p == keyquorumv1connect.ClusterServiceKeyringStatusProcedure: // it asks all members
			routes[p] = route{body: maxBody, room: bulk, turns: few}
		case p == keyquorumv1connect.KeyServiceRevokeProcedure, p == keyquorumv1connect.KeyServiceDeleteProcedure:
			routes[p] = route{body: maxBody, room: endings}
		case reading[p]:
			routes[p] = route{body: maxBody, room: reads}
		default:
			routes[p] = route{body: maxBody, room: writes}
		}
	}
	return &edge{
		next: next, access: who, log: log, metrics: m, errors: connect.NewErrorWriter(), routes: routes,
		callers:  callers{rate: int64(limits.CallerRate), most: int64(limits.CallerRequests)},
		nowhere:  newRoom("unknown", maxRefusals),
		refusals: newRoom("refused", maxRefusals),
	}
}

func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{id: requestID(r.Header)}
	w.Header()[RequestIDHeader] = []string{c.id}
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	to, known := e.routes[r.URL.Path]
	if !known {
		to.room = e.nowhere
		answerSoon(w)
	}
	if known {
		use, err := e.admit(w, r, c, to)
		if err != nil {
			e.turnAway(w, r, c, err)
			return
		}
		defer use.leave(to.room)
	}
	if !to.room.enter() {
		e.crowded(w, r, c, to.room, known)
		return
	}
	defer to.room.leave()
	e.metrics.inFlight.Inc()
	defer e.metrics.inFlight.Dec()
	if known && r.Method == http.MethodPost { // to others, connect answers 405 with what is allowed
		if to.stream {
			c.writer = w
			c.readmit = func() error { return e.readmit(r) }
		}
		if err := receive(r, to.body, to.stream); err != nil {
			e.refuse(w, r, c, err)
			return
		}
	}
	if err := to.turns.take(r.Context()); err != nil {
		e.refuse(w, r, c, overloaded(to.room.kind, err))
		return
	}
	defer to.turns.giveBack()
	e.next.ServeHTTP(w, r)
	if !c.reached {
		e.unreached(r, c, known, "undecoded")
	}
	flush(w, r)
}

// admit lets a caller in that may be here, and has not had its share.
func (e *edge) admit(w http.ResponseWriter, r *http.Request, c *call, to route) (*usage, *connect.Error) {
	var err *connect.Error
	if c.who, err = e.access.admit(r, allowed[r.URL.Path]); err != nil {
		challengeHeader(w, err)
		return nil, err
	}
	if c.who.lapsed() {
		w.Header().Set("Connection", "close")
	}
	return e.callers.enter(c.who, to.room)
}

// readmit is for a stream that is on its way: its caller's API token may have been revoked since, or its certificate have run out.
func (e *edge) readmit(r *http.Request) error {
	if _, err := e.access.admit(r, allowed[r.URL.Path]); err != nil {
		return err
	}
	return nil
}

// flush waits until the answer is on the connection. Over HTTP/2, net/http would do that for the last few KiB once the
// handler has returned, and each of many streams would hold them for as long as its caller likes.
func flush(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor < 2 {
		return // one request at a time
	}
	_ = r.Body.Close()                        // what was not read is not kept either
	_ = http.NewResponseController(w).Flush() // the caller has gone if it fails
}

// crowded tells a caller that too many are here already. Those who do not take that answer are cut off.
func (e *edge) crowded(w http.ResponseWriter, r *http.Request, c *call, full *room, known bool) {
	if full.told.again() {
		e.log.LogAttrs(r.Context(), slog.LevelWarn, "requests are refused: there are too many at a time",
			slog.String("kind", full.kind), slog.Int64("most", full.most))
	}
	if !known {
		panic(http.ErrAbortHandler)
	}
	e.turnAway(w, r, c, overloaded(full.kind, fmt.Errorf("it has %d already", full.most)))
}

// turnAway answers a request for which there is no place, or whose caller has no business here. It is never read, and takes
// a place of no other.
func (e *edge) turnAway(w http.ResponseWriter, r *http.Request, c *call, err *connect.Error) {
	if !e.refusals.enter() {
		panic(http.ErrAbortHandler)
	}
	defer e.refusals.leave()
	answerSoon(w)
	e.refuse(w, r, c, err)
}

// refusalTimeout is how long a caller can take to read that there is no place for its request.
const refusalTimeout = 5 * time.Second

// answerSoon bounds the time in which a caller can take its answer by refusalTimeout.
func answerSoon(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(refusalTimeout)) // httptest's has none
}

func overloaded(kind string, why error) *connect.Error {
	return connect.NewError(connect.CodeUnavailable,
		fmt.Errorf("%w with %s requests (%w): ask again, or ask another node", fault.ErrOverloaded, kind, why))
}

// refuse answers a request of a known procedure that goes no further.
func (e *edge) refuse(w http.ResponseWriter, r *http.Request, c *call, err *connect.Error) {
	_ = e.errors.Write(w, r, withRequestInfo(err, c.id)) // the caller has gone if it fails
	code := "undecoded"
	switch err.Code() {
	case connect.CodeResourceExhausted, connect.CodeUnavailable, connect.CodeUnauthenticated, connect.CodePermissionDenied:
		code = err.Code().String()
	}
	e.unreached(r, c, true, code)
	flush(w, r)
}

// unreached logs and counts what never came to the interceptor: what there was no place for, a body over its bound, or
// a caller that does not keep to its own protocol.
func (e *edge) unreached(r *http.Request, c *call, known bool, code string) {
	if !known {
		e.log.LogAttrs(r.Context(), slog.LevelDebug, "no such procedure",
			slog.String("request_id", c.id), slog.String("source", host(r.RemoteAddr)))
		return
	}
	e.metrics.requests.WithLabelValues(r.URL.Path, code).Inc()
	e.log.LogAttrs(r.Context(), slog.LevelDebug, "request refused unread",
		slog.String("procedure", r.URL.Path), slog.String("code", code),
		slog.String("request_id", c.id), slog.String("source", host(r.RemoteAddr)))
}

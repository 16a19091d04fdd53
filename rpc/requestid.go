package rpc

import (
	"context"
	"crypto/rand"
	"net/http"
)

// RequestIDHeader has a request's id, in every response. A caller's own is taken over where it is 1 to 64 letters,
// digits, dots, dashes and underscores.
const RequestIDHeader = "Keyquorum-Request-Id"

const maxRequestID = 64

// call is what is known of a request from the edge on. One goroutine at a time uses it.
type call struct {
	id string
	// who sent it; nil before that is known.
	who *identity
	// reached tells that the interceptor had it: whatever became of it is logged and counted there.
	reached bool
	// writer is where a stream's limits on time are set; nil where the request has one answer.
	writer http.ResponseWriter
	// readmit tells why a stream's caller may see no more of it, or nil; nil where the request has one answer.
	readmit func() error
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return new(call)
}

// RequestID gives the id of the request that ctx is of, or "" if it is of none.
func RequestID(ctx context.Context) string { return callOf(ctx).id }

// requestID takes the caller's id, or makes one.
func requestID(h http.Header) string {
	if id := h.Get(RequestIDHeader); saneID(id) {
		return id
	}
	return rand.Text()
}

// saneID tells whether an id that was sent can go into logs and headers as it is.
func saneID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

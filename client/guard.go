package client

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// GuardOption changes how Middleware and Interceptor verify requests.
type GuardOption func(*guard)

// WithAudience says whom the service is, where its tokens name whom they are for. By default they must not name anybody.
func WithAudience(name string) GuardOption { return func(g *guard) { g.audience = name } }

// WithConsistency says how old the state may be that tokens are verified on; by default as old as the cluster's
// maxStaleness. With STALE_OK, a service goes on while the cluster has lost its quorum, and may accept what was revoked.
func WithConsistency(level v1.VerifyRequest_Consistency) GuardOption {
	return func(g *guard) { g.consistency = level }
}

// WithOptionalToken lets requests without a token pass; FromContext then gives nothing. One with a token that is not valid
// is refused all the same. By default a token is required.
func WithOptionalToken() GuardOption { return func(g *guard) { g.optional = true } }

// WithCookie takes the token from the cookie of that name where there is no Authorization: Bearer. Cookies are sent by
// browsers unasked: set SameSite, and check the origin of what changes something. By default cookies are not looked at.
func WithCookie(name string) GuardOption { return func(g *guard) { g.cookie = name } }

// WithRefusal has write answer what Middleware refuses; the headers of the refusal are set already. By default it is the
// status with its name. Interceptor has no use for it.
func WithRefusal(write func(w http.ResponseWriter, r *http.Request, why *Refusal)) GuardOption {
	return func(g *guard) { g.refuse = write }
}

// Refusal is why a request was not let through.
type Refusal struct {
	// Status is 400 for a request that does not say which token it means, 401 for one without a valid token, and 503 where
	// that could not be told.
	Status int
	// Challenge is the WWW-Authenticate header (RFC 6750, 3); empty with 503.
	Challenge string
	// RetryAfter is when to try again, with 503: after a second at least, and a minute at most.
	RetryAfter time.Duration
	// Err is what is wrong: an *InvalidTokenError, an *Error, or another.
	Err error
}

// Error is what whoever sent the request may know; Err says more.
func (r *Refusal) Error() string {
	switch {
	case r.Status == http.StatusServiceUnavailable:
		return "the token cannot be verified now"
	case errors.Is(r.Err, ErrInvalidToken):
		return ErrInvalidToken.Error()
	}
	return r.Err.Error()
}

// Unwrap returns what is wrong.
func (r *Refusal) Unwrap() error { return r.Err }

func (r *Refusal) setHeaders(h http.Header) {
	if r.Challenge != "" {
		h.Set("WWW-Authenticate", r.Challenge)
	}
	if r.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((r.RetryAfter+time.Second-1)/time.Second)))
	}
}

// verifiedKey is where the context of a request that was let through has the verified token.
type verifiedKey struct{}

// FromContext gives the token that Middleware or Interceptor verified, the innermost where there are several; none where it
// was optional and there was none.
func FromContext(ctx context.Context) (*Verified, bool) {
	v, _ := ctx.Value(verifiedKey{}).(*Verified)
	return v, v != nil
}

// guard decides which requests are let through.
type guard struct {
	client   *Client
	audience string
	// consistency is how old a state may be.
	consistency v1.VerifyRequest_Consistency
	optional    bool
	cookie      string
	refuse      func(http.ResponseWriter, *http.Request, *Refusal)
}

func (c *Client) guard(opts []GuardOption) *guard {
	g := &guard{client: c, refuse: func(w http.ResponseWriter, _ *http.Request, why *Refusal) {
		http.Error(w, http.StatusText(why.Status), why.Status)
	}}
	for _, o := range opts {
		o(g)
	}
	return g
}

var (
	errNoToken   = errors.New("the request has no token")
	errMalformed = errors.New("the Authorization header is malformed")
	errTwoTokens = errors.New("the request has more than one token")
)

// admit verifies the token that a request's headers hold, and gives the context that tells of it.
func (g *guard) admit(ctx context.Context, h http.Header) (context.Context, *Refusal) {
	token, err := g.credential(h)
	switch {
	case errors.Is(err, errNoToken) && g.optional:
		return context.WithValue(ctx, verifiedKey{}, (*Verified)(nil)), nil // an outer guard's token is none of this one's
	case errors.Is(err, errNoToken):
		return nil, &Refusal{Status: http.StatusUnauthorized, Challenge: "Bearer", Err: err}
	case err != nil:
		return nil, &Refusal{Status: http.StatusBadRequest, Challenge: `Bearer error="invalid_request"`, Err: err}
	}
	v, err := g.client.verified(ctx, &v1.VerifyRequest{Token: token, Audience: g.audience, Consistency: g.consistency})
	switch {
	case errors.Is(err, ErrInvalidToken):
		return nil, &Refusal{Status: http.StatusUnauthorized, Challenge: `Bearer error="invalid_token"`, Err: err}
	case err != nil:
		return nil, &Refusal{Status: http.StatusServiceUnavailable, RetryAfter: retryAfter(err), Err: err}
	}
	return context.WithValue(ctx, verifiedKey{}, v), nil
}

// longestRetryAfter is the most that a caller is told to wait, whatever time a node gave.
const longestRetryAfter = time.Minute

// retryAfter is when a cluster that could not tell may well be able to.
func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok && !e.RetryAt.IsZero() {
		return min(max(time.Second, time.Until(e.RetryAt)), longestRetryAfter)
	}
	return time.Second
}

// credential finds the one token of a request. Another scheme than Bearer is no token.
func (g *guard) credential(h http.Header) (string, error) {
	headers := h.Values("Authorization")
	cookies := g.cookies(h)
	if len(headers) > 1 || len(cookies) > 1 {
		return "", errTwoTokens
	}
	bearer := false
	var token string
	if len(headers) == 1 {
		var scheme string
		scheme, token, _ = strings.Cut(headers[0], " ")
		bearer, token = strings.EqualFold(scheme, "Bearer"), strings.TrimLeft(token, " ")
	}
	switch {
	case bearer && len(cookies) == 1:
		return "", errTwoTokens
	case bearer && !isToken68(token):
		return "", errMalformed
	case bearer:
		return token, nil
	case len(cookies) == 1:
		return cookies[0], nil
	}
	return "", errNoToken
}

// cookies gives the values of the cookie that may hold a token, if there is one. An empty one is none: so are cookies
// deleted.
func (g *guard) cookies(h http.Header) []string {
	if g.cookie == "" {
		return nil
	}
	var values []string
	for _, c := range (&http.Request{Header: h}).CookiesNamed(g.cookie) {
		if c.Value != "" {
			values = append(values, c.Value)
		}
	}
	return values
}

// isToken68 tells whether s is in the form that RFC 6750, 2.1 gives a token in a header.
func isToken68(s string) bool {
	trimmed := strings.TrimRight(s, "=")
	return trimmed != "" && !strings.ContainsFunc(trimmed, func(r rune) bool {
		return !strings.ContainsRune("-._~+/", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}

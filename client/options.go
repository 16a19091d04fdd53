package client

import (
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"
)

// DefaultTimeout bounds a call, all its attempts together, unless WithTimeout says otherwise.
const DefaultTimeout = 10 * time.Second

// DefaultRevocationTimeout bounds Revoke and Delete in its place: where a node does not answer, they wait until it cannot
// accept what was revoked any more, a quarter longer than the cluster's maxStaleness, which is 20 s at most.
const DefaultRevocationTimeout = 30 * time.Second

const (
	// DefaultRetryRatio is how many retries each request allows for, unless WithRetryBudget says otherwise.
	DefaultRetryRatio = 0.2
	// DefaultRetriesPerSecond is what is allowed besides, so that a caller with few requests can retry them.
	DefaultRetriesPerSecond = 10
)

// Option changes how a Client works.
type Option func(*config)

type config struct {
	timeout          time.Duration
	revocation       time.Duration // the timeout of Revoke and Delete
	http             *http.Client
	interceptors     []connect.Interceptor
	inOrder          bool
	stay             bool
	region           string
	retryRatio       float64
	retriesPerSecond float64
	hedgeAfter       time.Duration
	hedgePercentile  float64
}

func defaults() config {
	return config{timeout: DefaultTimeout, revocation: DefaultRevocationTimeout, retryRatio: DefaultRetryRatio, retriesPerSecond: DefaultRetriesPerSecond}
}

// validate adds to an earlier fault all that is wrong with the options.
func (c *config) validate(earlier error) error {
	faults := []error{earlier}
	if c.hedgeAfter < 0 {
		faults = append(faults, errors.New("WithHedging: the delay must not be negative"))
	}
	if !(c.hedgePercentile >= 0 && c.hedgePercentile < 1) {
		faults = append(faults, errors.New("WithHedgingAt: the percentile must be from 0 to 1, such as 0.95"))
	}
	if !(c.retryRatio >= 0 && c.retriesPerSecond >= 0) {
		faults = append(faults, errors.New("WithRetryBudget: neither number may be negative"))
	}
	return errors.Join(faults...)
}

// WithTimeout bounds each call, all its attempts together; unless given, DefaultTimeout, and DefaultRevocationTimeout for
// Revoke and Delete. A context that ends earlier still counts. Zero or less leaves the bound to the context alone.
func WithTimeout(d time.Duration) Option { return func(c *config) { c.timeout, c.revocation = d, d } }

// WithHTTPClient sends requests through h, for TLS settings or a network of one's own. Its CheckRedirect and
// Timeout are used as they are. Close then leaves its connections alone. By default the client has an http.Client of
// its own, which goes straight to the nodes and follows no redirect.
func WithHTTPClient(h *http.Client) Option { return func(c *config) { c.http = h } }

// WithInterceptors puts interceptors around each attempt, for metrics and tracing; the requests that the client sends by
// itself, which ask for the members, go through them too. The first is the outermost. None by default.
func WithInterceptors(i ...connect.Interceptor) Option {
	return func(c *config) { c.interceptors = append(c.interceptors, i...) }
}

// WithRegion prefers nodes of that region for what any node can answer, for as long as one of them is usable. No
// region is preferred by default. It needs the members, so it does nothing with InOrder and WithoutDiscovery.
func WithRegion(name string) Option { return func(c *config) { c.region = name } }

// WithoutDiscovery stays with the addresses given, as for a gateway in front of the cluster, or nodes that are reached
// by other addresses than they reach each other. By default the members are looked up every few seconds.
func WithoutDiscovery() Option { return func(c *config) { c.stay = true } }

// InOrder asks the addresses given, and no others, in their order, each at most once in a call: the next one only where
// the one before fails. A call that may be repeated leaves each of them an equal share of the time. Nothing goes on in
// the background and nothing is remembered. It is for tools that a person tells where to ask.
func InOrder() Option { return func(c *config) { c.inOrder = true } }

// WithRetryBudget bounds what the client sends again, and what hedging sends twice: for each request of the last ten
// seconds ratio of one, and perSecond besides, of which ten seconds' worth can be saved up. The defaults are
// DefaultRetryRatio and DefaultRetriesPerSecond. It keeps a cluster in trouble from being sent a multiple of its load.
// With two zeros nothing is sent again. InOrder has no need of it.
func WithRetryBudget(ratio, perSecond float64) Option {
	return func(c *config) { c.retryRatio, c.retriesPerSecond = ratio, perSecond }
}

// WithHedging asks a second node where the first has not answered Verify, Get or another quick read after that time;
// the first answer counts, and the other request is given up. It shortens the slowest answers, and comes out of the
// retry budget. Off by default, and with InOrder.
func WithHedging(after time.Duration) Option { return func(c *config) { c.hedgeAfter = after } }

// WithHedgingAt is WithHedging after the time in which that part of the latest answers came: 0.95 asks a second node
// for the slowest twentieth.
func WithHedgingAt(percentile float64) Option {
	return func(c *config) { c.hedgePercentile = percentile }
}

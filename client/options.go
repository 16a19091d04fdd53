package client

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/secret"
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
	dial             dialer // nil for the network; tests have others
	tls              *TLSFiles
	tokens           []func() (*apiToken, error) // how to come by the API token: once at most
	readable         bool                        // the API token may go where others can read it
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
	if c.tls != nil && c.http != nil {
		faults = append(faults, errors.New("WithTLS: an HTTP client that is given has TLS settings of its own: give one of the two"))
	}
	if len(c.tokens) > 1 {
		faults = append(faults, errors.New("API token: there are several: give one"))
	}
	return errors.Join(faults...)
}

// WithTimeout bounds each call, all its attempts together; unless given, DefaultTimeout, and DefaultRevocationTimeout for
// Revoke and Delete. A context that ends earlier still counts. Zero or less leaves the bound to the context alone.
func WithTimeout(d time.Duration) Option { return func(c *config) { c.timeout, c.revocation = d, d } }

// WithHTTPClient sends requests through h, for TLS settings or a network of one's own. Its CheckRedirect and
// Timeout are used as they are; with an API token no redirect is followed. It excludes WithTLS. Close then leaves its connections alone. By default the client has an http.Client of
// its own, which goes straight to the nodes and follows no redirect.
func WithHTTPClient(h *http.Client) Option { return func(c *config) { c.http = h } }

// TLSFiles are paths of files in PEM. Links are followed, anew each time, so folders that are swapped by a link, as those
// of a Kubernetes secret are, work.
type TLSFiles struct {
	// CA has the certificates of the CAs that sign the nodes', and nothing else. It is required.
	CA string
	// Certificate has the client's own, with the URIs keyquorum://ROLE/NAME that say who it is, and the intermediate ones
	// up to the CA; Key has its private key, which its owner and group alone may be able to read. Both are empty for a
	// client that has an API token instead, or asks only for what anybody may know.
	Certificate, Key string
}

// WithTLS speaks TLS 1.3 to the nodes, which have to show a certificate of those CAs, for the host in their address, with
// the role node. The files are read when the client is made, and looked at again every ten seconds while it makes
// connections: a new connection takes what they hold then, and those that are open go on. What they hold counts only if
// all of it is good. Addresses without a scheme, also those of other members, then mean https, and http ones are refused.
// By default addresses without a scheme mean http, and https ones are checked against the system's CAs, for the host alone:
// that is for a gateway in front of the cluster.
func WithTLS(files TLSFiles) Option { return func(c *config) { c.tls = &files } }

// WithAPIToken sends an API token with each request, which tells the cluster who is calling; the client does not print it.
// It goes over TLS, or to this machine's own addresses: else New fails, and members elsewhere are not asked. None by
// default.
func WithAPIToken(token string) Option {
	hidden := secret.NewText(token)
	return withAPIToken(func() (*apiToken, error) { return newAPIToken(hidden) })
}

// WithAPITokenFile is WithAPIToken with the content of a file, white space around it aside. Its owner and group alone may
// be able to read it. It is looked at again every second while there are requests, and after one was refused for want of
// a good token; what is not acceptable leaves the token as it was.
func WithAPITokenFile(path string) Option {
	return withAPIToken(func() (*apiToken, error) { return openAPIToken(path) })
}

func withAPIToken(open func() (*apiToken, error)) Option {
	return func(c *config) { c.tokens = append(c.tokens, open) }
}

// WithReadableAPIToken lets the API token go over plain HTTP to any machine, where anyone on the way can read it and be
// who it names from then on. It is for networks that encrypt by themselves.
func WithReadableAPIToken() Option { return func(c *config) { c.readable = true } }

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

// credentials opens what the client is known by, and knows nodes by; either is nil where there is none. It names all that is
// wrong.
func (c *config) credentials() (source *certs.Source, token *apiToken, err error) {
	var faults []error
	if c.tls != nil {
		source, err = certs.Open(certs.Files{CA: c.tls.CA, Certificate: c.tls.Certificate, Key: c.tls.Key}, certs.Options{})
		if err != nil {
			faults = append(faults, fmt.Errorf("TLS: %w", err))
		}
	}
	if len(c.tokens) > 0 {
		if token, err = c.tokens[0](); err != nil {
			faults = append(faults, fmt.Errorf("API token: %w", err))
		}
	}
	return source, token, errors.Join(faults...)
}

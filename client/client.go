// Package client is what a service imports to issue tokens and have them verified by a Keyquorum cluster.
//
// A Client is given the addresses of some nodes. Any node takes any request, so it asks the first, and moves on
// to the next when a node cannot be reached or cannot answer now, as far as sending the request again is safe:
//
//   - reads and Issue always are;
//   - Rotate, Revoke and Delete are where the request names the key that it expects, or was never sent.
//
// What a node refuses comes back as an *Error, which says what, where and why, and which errors.Is tells apart
// by the sentinels of this package. A token that is not valid is an answer, not an error.
package client

import (
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

const (
	// DefaultTimeout bounds a call, all its attempts together, unless WithTimeout says otherwise.
	DefaultTimeout = 10 * time.Second

	dialTimeout     = 3 * time.Second
	idlePerNode     = 64
	idleTimeout     = 90 * time.Second
	maxAnswerBytes  = 16 << 20
	maxHeaderBytes  = 64 << 10
	handshakeLimit  = 5 * time.Second
	keepAlivePeriod = 15 * time.Second
)

// Client calls a cluster. It is safe for concurrent use and holds idle connections until Close.
type Client struct {
	nodes   []*node
	timeout time.Duration
	http    *http.Client
	// ownHTTP says that http is the client's own, and so is known to report when it has a connection.
	ownHTTP bool
}

// node is one address and the generated clients that speak to it.
type node struct {
	address string
	tokens  keyquorumv1connect.TokenServiceClient
	keys    keyquorumv1connect.KeyServiceClient
	cluster keyquorumv1connect.ClusterServiceClient
}

// Option changes how a Client works.
type Option func(*config)

type config struct {
	timeout      time.Duration
	http         *http.Client
	interceptors []connect.Interceptor
}

// WithTimeout bounds each call, all its attempts together. A context that ends earlier still counts. Zero or
// less leaves the bound to the context alone.
func WithTimeout(d time.Duration) Option { return func(c *config) { c.timeout = d } }

// WithHTTPClient sends requests through h, for TLS settings or a network of one's own. Its CheckRedirect and
// Timeout are used as they are. Close then leaves its connections alone.
func WithHTTPClient(h *http.Client) Option { return func(c *config) { c.http = h } }

// WithInterceptors puts interceptors around each attempt, for metrics and tracing. The first is the outermost.
func WithInterceptors(i ...connect.Interceptor) Option {
	return func(c *config) { c.interceptors = append(c.interceptors, i...) }
}

// New returns a client of the nodes at addrs, which are tried in this order: HOST:PORT, HOST, or an http or
// https URL, as ParseAddress takes them. It names every bad address at once, and connects to nothing yet.
func New(addrs []string, opts ...Option) (*Client, error) {
	addresses, err := parseAddresses(addrs)
	if err != nil {
		return nil, err
	}
	cfg := config{timeout: DefaultTimeout}
	for _, o := range opts {
		o(&cfg)
	}
	c := &Client{timeout: cfg.timeout, http: cfg.http}
	if c.http == nil {
		c.http, c.ownHTTP = newHTTPClient(), true
	}
	options := []connect.ClientOption{
		connect.WithInterceptors(cfg.interceptors...),
		connect.WithReadMaxBytes(maxAnswerBytes),
	}
	for _, a := range addresses {
		c.nodes = append(c.nodes, newNode(c.http, a, options))
	}
	return c, nil
}

func newNode(h *http.Client, address string, options []connect.ClientOption) *node {
	return &node{
		address: address,
		tokens:  keyquorumv1connect.NewTokenServiceClient(h, address, options...),
		keys:    keyquorumv1connect.NewKeyServiceClient(h, address, options...),
		cluster: keyquorumv1connect.NewClusterServiceClient(h, address, options...),
	}
}

// newHTTPClient speaks HTTP/1.1 to http addresses and HTTP/2, where offered, to https ones. It goes straight to
// the nodes, whatever proxy the environment names, and follows no redirect: a token is sent only to where the
// caller said.
func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlivePeriod}).DialContext,
			TLSHandshakeTimeout:    handshakeLimit,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    idlePerNode,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Addresses returns the URLs of the nodes in the order in which they are tried.
func (c *Client) Addresses() []string {
	addresses := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addresses[i] = n.address
	}
	return addresses
}

// Close lets go of idle connections. Calls in flight go on.
func (c *Client) Close() {
	if c.ownHTTP {
		c.http.CloseIdleConnections()
	}
}

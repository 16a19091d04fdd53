// Package client is what a service imports to issue tokens and have them verified by a Keyquorum cluster.
//
// A Client is given the addresses of some nodes and learns of the others from them. Any node takes any request; it asks
// the one that seems quickest, spares those that fail, and asks another where one cannot be reached or cannot answer
// now, as far as sending the request again is safe:
//
//   - reads and Issue always are;
//   - Rotate, Revoke and Delete are where the request names the key that it expects;
//   - UpdateSettings and RetireMasterKey are, as they say what shall be;
//   - every other change, and these without such a key, are where they were never sent.
//
// What a node refuses comes back as an *Error, which says what, where and why, and which errors.Is tells apart
// by the sentinels of this package. To Verify, a token that is not valid is an answer, not an error.
//
// Most services need no more than VerifyToken, or Middleware and Interceptor, which call it for each request.
package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"
)

// Client calls a cluster. It is safe for concurrent use. From the first call until Close it follows, in the background,
// which nodes there are and how they are; idle connections stay open until then as well.
type Client struct {
	config
	// seeds are the nodes that were given, in that order.
	seeds   []*node
	options []connect.ClientOption
	// ownHTTP says that http is the client's own, and so is known to report when it has a connection.
	ownHTTP bool
	// token is the API token; nil for none.
	token *apiToken

	start  sync.Once
	roster atomic.Pointer[roster]
	// leader is the node that took writes when a node was last asked; nil if none is known.
	leader atomic.Pointer[node]
	// clusterID is that of the first answer about the members that was believed; nil before. What others say is not.
	clusterID atomic.Pointer[string]
	// turn counts the look-ups of the members.
	turn   int
	budget budget
	// reads has what the time to a hedge comes from.
	reads      quantile
	background background
	// stale asks for the members to be looked up anew.
	stale chan struct{}
}

// New returns a client of the cluster that the nodes at addrs are in: HOST:PORT, HOST, or an http or https URL, as
// ParseAddress takes them; with WithTLS those without a scheme mean https. It names every bad address and option at once, and connects to nothing yet.
func New(addrs []string, opts ...Option) (*Client, error) {
	cfg := defaults()
	for _, o := range opts {
		o(&cfg)
	}
	addresses, err := parseAddresses(addrs, &cfg)
	source, token, unusable := cfg.credentials()
	if err := cfg.validate(errors.Join(err, unusable)); err != nil {
		return nil, err
	}
	c := &Client{config: cfg, token: token, stale: make(chan struct{}, 1)}
	if c.http == nil {
		c.http, c.ownHTTP = newHTTPClient(cfg.dial, source), true
	}
	if token != nil {
		c.http = withToken(c.http, token, cfg.readable)
	}
	c.options = []connect.ClientOption{
		connect.WithInterceptors(cfg.interceptors...),
		connect.WithReadMaxBytes(maxAnswerBytes),
	}
	for _, a := range addresses {
		c.seeds = append(c.seeds, c.newNode(a))
	}
	c.roster.Store(newRoster(c.seeds))
	c.budget.init(cfg.retryRatio, cfg.retriesPerSecond)
	c.background.init()
	return c, nil
}

// Addresses returns the URLs of the nodes that the client knows now. With InOrder they are those that were given, in
// the order in which they are tried.
func (c *Client) Addresses() []string {
	var addresses []string
	for _, n := range c.roster.Load().all {
		addresses = append(addresses, n.address)
	}
	return addresses
}

// Close ends what goes on in the background, waits for it, and lets go of idle connections. Calls in flight go on.
func (c *Client) Close() {
	c.background.close()
	if c.ownHTTP {
		c.http.CloseIdleConnections()
	}
}

// background is what a client does while nobody calls it.
type background struct {
	life context.Context //nolint:containedctx // the client's own life: it ends with Close
	end  context.CancelFunc

	mu     sync.Mutex
	closed bool
	all    sync.WaitGroup
}

func (b *background) init() {
	b.life, b.end = context.WithCancel(context.Background()) //nolint:forbidigo // it outlives every call
}

// run has do run until Close, which waits for it. After Close it does nothing.
func (b *background) run(do func(context.Context)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.all.Go(func() { do(b.life) })
	}
}

func (b *background) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.end()
	b.all.Wait()
}

// knows tells whether n is one of the nodes that may be asked.
func (c *Client) knows(n *node) bool { return slices.Contains(c.roster.Load().all, n) }

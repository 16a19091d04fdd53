package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/keyquorum/keyquorum/internal/certs"
)

const (
	dialTimeout     = 3 * time.Second
	idlePerNode     = 64
	idleTimeout     = 90 * time.Second
	maxHeaderBytes  = 64 << 10
	handshakeLimit  = 5 * time.Second
	keepAlivePeriod = 15 * time.Second
	// pingAfter is how long a connection of HTTP/2 may be silent before it is asked whether it still leads anywhere, and
	// pingLimit how long the answer may take. Unlike with HTTP/1.1, no request that timed out ends it.
	pingAfter = 5 * time.Second
	pingLimit = 5 * time.Second
)

type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// newHTTPClient speaks HTTP/1.1 to http addresses and HTTP/2, where offered, to https ones. It goes straight to
// the nodes, whatever proxy the environment names, and follows no redirect: a token is sent only to where the
// caller said.
func newHTTPClient(dial dialer, source *certs.Source) *http.Client {
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlivePeriod}).DialContext
	}
	base := &http.Transport{
		DialContext:            dial,
		TLSHandshakeTimeout:    handshakeLimit,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingLimit},
		MaxIdleConnsPerHost:    idlePerNode,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
	if source != nil {
		base.DialTLSContext = dialTLS(dial, source)
	}
	return &http.Client{Transport: &transport{base: base, source: source}, CheckRedirect: stay}
}

// stay follows no redirect.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

var errSlowHandshake = errors.New("the node did not shake hands in time")

// dialTLS gives connections that take what the source has when they are made.
func dialTLS(dial dialer, source *certs.Source) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, handshakeLimit, errSlowHandshake)
		defer cancel()
		secured, err := source.Dial(ctx, conn, host, "h2", "http/1.1")
		switch {
		case err == nil:
			return secured, nil
		case errors.Is(context.Cause(ctx), errSlowHandshake):
			return nil, errSlowHandshake // the call may have time left, which its own error would deny
		}
		return nil, err
	}
}

// transport sends the client's API token along, and says in plain words what goes wrong where one side speaks TLS and the
// other does not, or does not like the other's certificate.
type transport struct {
	base http.RoundTripper
	// source is nil where the client knows no certificates.
	source *certs.Source
	// token is nil where there is none; readable lets it go where others can read it.
	token    *apiToken
	readable bool
}

// withToken gives a client that sends the token with what h sends, and follows no redirect with it.
func withToken(h *http.Client, token *apiToken, readable bool) *http.Client {
	carrying := *h
	carrying.CheckRedirect = stay
	t := &transport{base: h.Transport}
	if own, ok := h.Transport.(*transport); ok {
		*t = *own
	}
	if t.base == nil {
		t.base = http.DefaultTransport
	}
	t.token, t.readable = token, readable
	carrying.Transport = t
	return &carrying
}

var (
	errReadable  = errors.New("the API token is not sent to where anyone on the way can read it: that takes TLS")
	errSpeaksTLS = errors.New("the node speaks TLS, and was spoken to in plain HTTP: give this side the CA that signs the nodes' certificates")
)

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.token != nil {
		if !t.readable && isReadable(r.URL) {
			return nil, errors.Join(errReadable, closeBody(r))
		}
		r = r.WithContext(r.Context()) // a shallow copy: the caller's headers must not have the token
		r.Header = r.Header.Clone()
		r.Header.Set("Authorization", "Bearer "+t.token.get().Reveal())
	}
	res, err := t.base.RoundTrip(r)
	switch {
	case err != nil && t.source != nil:
		return nil, t.source.Explain(err)
	case err != nil:
		return nil, err
	case res.StatusCode == http.StatusUnauthorized && t.token != nil:
		t.token.refused()
	case isTLSOnly(r, res):
		return nil, errors.Join(errSpeaksTLS, res.Body.Close())
	}
	return res, nil
}

func closeBody(r *http.Request) error {
	if r.Body == nil {
		return nil
	}
	return r.Body.Close()
}

// CloseIdleConnections does so where the base can.
func (t *transport) CloseIdleConnections() {
	if base, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// isReadable tells whether others could read what is sent there: it is plain HTTP, and leaves this machine.
func isReadable(u *url.URL) bool {
	if u.Scheme != "http" || u.Hostname() == "localhost" {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err != nil || !ip.IsLoopback()
}

// tlsOnly is what Go's server answers to plain HTTP where it speaks TLS, and in HTTP/1.0, as nothing else does.
const tlsOnly = "Client sent an HTTP request to an HTTPS server."

// isTLSOnly tells whether that is the answer. It reads what it looks at, which no node's answer is.
func isTLSOnly(r *http.Request, res *http.Response) bool {
	if r.URL.Scheme != "http" || res.StatusCode != http.StatusBadRequest || res.ProtoAtLeast(1, 1) {
		return false
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, int64(len(tlsOnly))))
	return err == nil && bytes.Equal(text, []byte(tlsOnly))
}

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/keyquorum/keyquorum/client"
)

// healthCommand asks one node's probe. It is what a container's health check runs.
type healthCommand struct {
	Live bool `percall:"" help:"Ask whether the process works (/livez), not whether the node can serve (/readyz)."`

	connection
}

func (*healthCommand) Help() string {
	return "--addr names the node, or its --probe-listen, which speaks plain HTTP: write http:// before it where TLS is set. Exit 0: it is ready, or live. Exit 1: it is not, and says why. Exit 3: nothing answers."
}

func (c *healthCommand) check() []string {
	faults := append(c.single(), c.incomplete()...)
	if len(faults) > 0 {
		return faults
	}
	if _, err := c.prober(); err != nil {
		return strings.Split("TLS: "+err.Error(), "\n")
	}
	return nil
}

func (c *healthCommand) run(ctx context.Context, s *session) error {
	path := "/readyz"
	if c.Live {
		path = "/livez"
	}
	ctx, cancel := context.WithTimeout(ctx, c.wait())
	defer cancel()
	ask, err := c.prober()
	if err != nil {
		return err
	}
	node := c.url(c.nodes()[0])
	status, line, err := probe(ctx, ask, node+path)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", client.ErrUnavailable, err)
	case status == http.StatusBadRequest && strings.HasPrefix(line, speaksTLS):
		return fmt.Errorf("%w: %s speaks TLS: name the CA that signs the nodes' certificates, by --tls-ca", client.ErrUnavailable, node)
	case status != http.StatusOK && status != http.StatusServiceUnavailable:
		return fmt.Errorf("%w: %s answers %d: is there a Keyquorum node, and are its probes there?", errNonsense, node, status)
	}
	s.out.printf("%s\n", clean(line))
	if status != http.StatusOK {
		return errUnhealthy
	}
	return nil
}

// direct goes straight to a node, whatever proxy the environment names.
var direct = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// speaksTLS is what Go's server answers to plain HTTP where it speaks TLS.
const speaksTLS = "Client sent an HTTP request to an HTTPS server"

// probe gives the status and the one line that a probe answers with.
func probe(ctx context.Context, ask *http.Client, url string) (status int, line string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	res, err := ask.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	return res.StatusCode, strings.TrimSpace(string(body)), err
}

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/internal/secret"
)

const defaultAddress = "127.0.0.1:7400"

// apiTokenEnv is the variable that may hold an API token itself. There is no such flag: all users of a machine can see the
// arguments of its processes.
const apiTokenEnv = envPrefix + "API_TOKEN"

// connection is the flags of every command that asks a cluster.
type connection struct {
	Addr    addresses `placeholder:"HOST:PORT,..." help:"Nodes to ask, in this order: HOST:PORT or URLs, parted by commas. Default: 127.0.0.1:7400."`
	Timeout timeout   `placeholder:"10s" help:"How long to wait for an answer, from all nodes together. Default: 10s; 30s for revoke and delete, which wait for nodes that do not answer."`

	TLSCA        string `name:"tls-ca" placeholder:"FILE" help:"Speak TLS to nodes whose certificates these CAs have signed. Default: plain HTTP."`
	TLSCert      string `name:"tls-cert" placeholder:"FILE" help:"The certificate that says who is calling; with --tls-key."`
	TLSKey       string `name:"tls-key" placeholder:"FILE" help:"Its private key."`
	APITokenFile string `name:"api-token-file" placeholder:"FILE" help:"An API token that says who is calling; KEYQUORUM_API_TOKEN holds one itself."`

	// apiToken is from the environment; nil for none.
	apiToken *secret.Text
}

// takeEnv takes what has no flag.
func (c *connection) takeEnv(env lookupEnv) {
	if token, ok := env(apiTokenEnv); ok && token != "" {
		hidden := secret.NewText(token)
		c.apiToken = &hidden
	}
}

// wait is how long to wait for answers that are due at once.
func (c *connection) wait() time.Duration {
	if c.Timeout == 0 {
		return client.DefaultTimeout
	}
	return time.Duration(c.Timeout)
}

// format is the flag of every command that has an answer.
type format struct {
	JSON bool `name:"json" help:"Print the answer as JSON, in one line."`
}

func (c *connection) client() (*client.Client, error) {
	opts := c.credentials()
	if c.Timeout != 0 {
		opts = append(opts, client.WithTimeout(time.Duration(c.Timeout)))
	}
	return client.New(c.nodes(), opts...)
}

// clientOf asks one node, as whoever the others are asked as.
func (c *connection) clientOf(address string, timeout time.Duration) (*client.Client, error) {
	return client.New([]string{address}, append(c.credentials(), client.WithTimeout(timeout))...)
}

// clientOfNode is clientOf, for the node with that name: with TLS, whoever shows another node's certificate does not answer for
// it. hangUp is for when the client is done with.
func (c *connection) clientOfNode(source *certs.Source, name, address string) (node *client.Client, hangUp func(), err error) {
	if source == nil {
		if node, err = c.clientOf(address, c.wait()); err != nil {
			return nil, nil, err
		}
		return node, node.Close, nil
	}
	if name == "" {
		return nil, nil, errNameless
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: dialNode(source, name)}
	opts := append(c.callers(), client.WithHTTPClient(&http.Client{Transport: transport}), client.WithTimeout(c.wait()))
	if node, err = client.New([]string{"https://" + address}, opts...); err != nil {
		return nil, nil, err
	}
	return node, func() {
		node.Close()
		transport.CloseIdleConnections()
	}, nil
}

var errNameless = errors.New("it has no name that a certificate could have")

// credentials are the options of all clients.
func (c *connection) credentials() []client.Option {
	opts := c.callers()
	if c.secure() {
		opts = append(opts, client.WithTLS(client.TLSFiles{CA: c.TLSCA, Certificate: c.TLSCert, Key: c.TLSKey}))
	}
	return opts
}

// callers are the credentials without TLS.
func (c *connection) callers() []client.Option {
	opts := []client.Option{client.InOrder()}
	if c.APITokenFile != "" {
		opts = append(opts, client.WithAPITokenFile(c.APITokenFile))
	}
	if c.apiToken != nil {
		opts = append(opts, client.WithAPIToken(c.apiToken.Reveal()))
	}
	return opts
}

// secure tells whether the nodes are spoken to by TLS, if their addresses do not say.
func (c *connection) secure() bool { return c.TLSCA != "" }

// check tells all that is wrong with the flags together, and with the files that they name.
func (c *connection) check() []string {
	if faults := c.incomplete(); len(faults) > 0 {
		return faults
	}
	made, err := c.client()
	if err != nil {
		return strings.Split(err.Error(), "\n")
	}
	made.Close()
	return nil
}

// incomplete tells which flags are missing beside others, or too many.
func (c *connection) incomplete() (faults []string) {
	if c.TLSCA == "" && (c.TLSCert != "" || c.TLSKey != "") {
		faults = append(faults, "--tls-ca: name the file with the CAs that sign the nodes' certificates")
	}
	if c.TLSCert == "" && c.TLSKey != "" {
		faults = append(faults, "--tls-cert: is missing beside --tls-key")
	}
	if c.TLSKey == "" && c.TLSCert != "" {
		faults = append(faults, "--tls-key: is missing beside --tls-cert")
	}
	if c.apiToken != nil && c.APITokenFile != "" {
		faults = append(faults, apiTokenEnv+": holds an API token, and so does --api-token-file: give one of the two")
	}
	return faults
}

// single says what is wrong where several nodes are named and the command is about one.
func (c *connection) single() []string {
	if len(c.Addr) > 1 {
		return []string{"--addr: names several nodes, and this is about one: name that one"}
	}
	return nil
}

func (c *connection) nodes() []string {
	if len(c.Addr) == 0 {
		return []string{defaultAddress}
	}
	return c.Addr
}

// url is that of an address which was given, and so is fine.
func (c *connection) url(address string) string {
	u, _ := client.ParseAddress(address)
	if c.secure() && !strings.Contains(address, "://") {
		return "https" + strings.TrimPrefix(u, "http")
	}
	return u
}

// prober asks for probes, which take no credentials. It goes straight to a node, whatever proxy the environment names.
func (c *connection) prober() (*http.Client, error) {
	source, err := c.source()
	if err != nil {
		return nil, err
	}
	if source == nil {
		return direct, nil
	}
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true, DialTLSContext: dialNode(source, "")}}, nil
}

// source knows nodes by their certificates; it is nil without TLS.
func (c *connection) source() (*certs.Source, error) {
	if !c.secure() {
		return nil, nil //nolint:nilnil // that is what there is
	}
	return certs.Open(certs.Files{CA: c.TLSCA, Certificate: c.TLSCert, Key: c.TLSKey}, certs.Options{})
}

// dialNode connects to the node with that name, or to any if there is none.
func dialNode(source *certs.Source, name string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		secured, err := source.Dial(ctx, conn, host, "h2", "http/1.1")
		if err != nil {
			return nil, err
		}
		if name != "" {
			if err := checkName(secured, name); err != nil {
				return nil, errors.Join(err, secured.Close())
			}
		}
		return secured, nil
	}
}

// checkName tells whose certificate was shown where it is not that of the node with the name.
func checkName(secured *tls.Conn, name string) error {
	id, err := pki.Identify(secured.ConnectionState().PeerCertificates[0])
	if err == nil && id.Name != name {
		err = fmt.Errorf("the certificate is that of %s, not of node %q", id, name)
	}
	return err
}

package main

import (
	"time"

	"github.com/keyquorum/keyquorum/client"
)

const defaultAddress = "http://127.0.0.1:7400"

// connection is the flags of every command that asks a cluster.
type connection struct {
	Addr    addresses `placeholder:"HOST:PORT,..." help:"Nodes to ask, in this order: HOST:PORT or URLs, parted by commas. Default: 127.0.0.1:7400."`
	Timeout timeout   `placeholder:"10s" help:"How long to wait for an answer, from all nodes together. Default: 10s; 30s for revoke and delete, which wait for nodes that do not answer."`
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
	opts := []client.Option{client.InOrder()}
	if c.Timeout != 0 {
		opts = append(opts, client.WithTimeout(time.Duration(c.Timeout)))
	}
	return client.New(c.nodes(), opts...)
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

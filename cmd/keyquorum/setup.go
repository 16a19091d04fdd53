package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/internal/plainfile"
	"github.com/keyquorum/keyquorum/internal/seal"
)

// setupCommand makes all that has to be there before the first node starts.
type setupCommand struct {
	Dir       string `arg:"" placeholder:"DIR" help:"The folder to write to; made if it is missing."`
	Node      texts  `percall:"" placeholder:"NAME=HOST,..." help:"A node, and the names and addresses at which others reach it; once for each node. Default: n1, n2 and n3 on this machine, with files of settings to start them by."`
	IfMissing bool   `percall:"" help:"Leave what is there already as it is, and make what is missing."`
}

func (*setupCommand) Help() string {
	return `Makes a CA, a master keyring, and for each node a folder with what it needs: its certificate and key, the CA's certificate, and the keyring. The folder "operator" is for who runs the cluster: a certificate with the roles operator, issuer, verifier and auditor. The folder "root" has the CA's key and the first copy of the keyring: keep it apart from the nodes, with a backup. Whoever has it can be every node and read every key.

Clusters grow by "keyquorum ca issue-node" and a copy of the keyring. A CA that you have already works as well: see "keyquorum ca".`
}

func (c *setupCommand) check() (faults []string) {
	if c.Dir == "" {
		faults = append(faults, "DIR: must not be empty")
	}
	seen := []string{rootFolder, operatorFolder}
	for _, n := range c.nodes() {
		if err := pki.CheckName(n.name); err != nil {
			faults = append(faults, "--node: the name "+err.Error())
		}
		if slices.Contains(seen, n.name) {
			faults = append(faults, "--node: "+quoted(n.name)+" is there already")
		}
		seen = append(seen, n.name)
		for _, host := range n.hosts {
			if err := pki.CheckHost(host); err != nil {
				faults = append(faults, "--node: "+err.Error())
			}
		}
	}
	return faults
}

// What setup calls what it writes.
const (
	rootFolder, operatorFolder = "root", "operator"
	keyringFile                = "keyring"
	leafCert, leafKey          = "tls.crt", "tls.key"
	serveSettings, clientFile  = "serve.yaml", "client.yaml"
)

// setupNode is a node to be.
type setupNode struct {
	name  string
	hosts []string
	// port is the first of its ports on this machine; 0 for one that somebody else starts.
	port int
}

func (c *setupCommand) nodes() []setupNode {
	if len(c.Node) == 0 {
		local := []string{"127.0.0.1", "localhost"}
		return []setupNode{{"n1", local, 7410}, {"n2", local, 7420}, {"n3", local, 7430}}
	}
	var nodes []setupNode
	for _, given := range c.Node {
		name, hosts, _ := strings.Cut(given, "=")
		nodes = append(nodes, setupNode{name: name, hosts: slices.Collect(each(texts{hosts}))})
	}
	return nodes
}

func (c *setupCommand) run(ctx context.Context, s *session) error {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	c.Dir = dir
	if err := c.makeRoot(ctx); err != nil {
		return err
	}
	ca, err := pki.OpenCA(c.in(rootFolder), nil)
	if err != nil {
		return err
	}
	nodes := c.nodes()
	for _, n := range nodes {
		if err := c.makeNode(ca, n, nodes); err != nil {
			return err
		}
	}
	if err := c.makeOperator(ca, nodes); err != nil {
		return err
	}
	c.tell(s, nodes)
	return nil
}

func (c *setupCommand) in(parts ...string) string {
	return filepath.Join(append([]string{c.Dir}, parts...)...)
}

// folder is where a node's files are.
func (c *setupCommand) folder(node string) string { return c.in(url.PathEscape(node)) }

// made passes over what is there already, where that is wanted.
func (c *setupCommand) made(err error) error {
	switch {
	case !errors.Is(err, fs.ErrExist):
		return err
	case c.IfMissing:
		return nil
	}
	return fmt.Errorf("something is in %s already, and was left as it is: name another folder, or give --if-missing: %w", clean(c.Dir), err)
}

func (c *setupCommand) makeRoot(ctx context.Context) error {
	root := c.in(rootFolder)
	if err := plainfile.MakeDir(c.Dir); err != nil {
		return err
	}
	if err := plainfile.MakeDir(root); err != nil {
		return err
	}
	ca, err := pki.NewCA(pki.CAOptions{})
	if err != nil {
		return err
	}
	if err := c.made(ca.Write(root)); err != nil {
		return err
	}
	return c.made(seal.Init(ctx, filepath.Join(root, keyringFile)))
}

func (c *setupCommand) makeNode(ca *pki.CA, n setupNode, all []setupNode) error {
	dir := c.folder(n.name)
	leaf, err := ca.IssueNode(pki.NodeRequest{Name: n.name, Hosts: n.hosts})
	if err == nil {
		err = c.leaf(dir, ca, leaf)
	}
	if err == nil {
		err = c.copyKeyring(filepath.Join(dir, keyringFile))
	}
	if err != nil || n.port == 0 {
		return err
	}
	var join []string
	for _, other := range all {
		join = append(join, fmt.Sprintf("127.0.0.1:%d", other.port+2))
	}
	return c.settings(filepath.Join(dir, serveSettings), [][2]string{
		{"name", n.name},
		{"data-dir", filepath.Join(dir, "data")},
		{"keyring", filepath.Join(dir, keyringFile)},
		{"tls-cert", filepath.Join(dir, leafCert)},
		{"tls-key", filepath.Join(dir, leafKey)},
		{"tls-ca", filepath.Join(dir, pki.CACertFile)},
		{"listen", fmt.Sprintf("127.0.0.1:%d", n.port)},
		{"raft-listen", fmt.Sprintf("127.0.0.1:%d", n.port+1)},
		{"gossip-listen", fmt.Sprintf("127.0.0.1:%d", n.port+2)},
		{"probe-listen", fmt.Sprintf("127.0.0.1:%d", n.port+3)},
		{"join", strings.Join(join, ",")},
	})
}

func (c *setupCommand) makeOperator(ca *pki.CA, nodes []setupNode) error {
	dir := c.in(operatorFolder)
	leaf, err := ca.IssueClient(pki.ClientRequest{
		Name: operatorFolder, Roles: []pki.Role{pki.Operator, pki.Issuer, pki.Verifier, pki.Auditor},
	})
	if err == nil {
		err = c.leaf(dir, ca, leaf)
	}
	if err != nil || nodes[0].port == 0 {
		return err
	}
	var addresses []string
	for _, n := range nodes {
		addresses = append(addresses, fmt.Sprintf("127.0.0.1:%d", n.port))
	}
	return c.settings(filepath.Join(dir, clientFile), [][2]string{
		{"addr", strings.Join(addresses, ",")},
		{"tls-ca", filepath.Join(dir, pki.CACertFile)},
		{"tls-cert", filepath.Join(dir, leafCert)},
		{"tls-key", filepath.Join(dir, leafKey)},
	})
}

// leaf writes a certificate, its key and the CA's certificate to a folder.
func (c *setupCommand) leaf(dir string, ca *pki.CA, leaf *pki.Leaf) error {
	if err := plainfile.MakeDir(dir); err != nil {
		return err
	}
	if err := c.made(leaf.Write(filepath.Join(dir, leafCert), filepath.Join(dir, leafKey))); err != nil {
		return err
	}
	return c.made(plainfile.WriteNew(filepath.Join(dir, pki.CACertFile), pki.EncodeCertificate(ca.Certificate()), 0o644))
}

// copyKeyring gives a node its keyring. One that others could read or change is refused: its copies would look as if it had been
// secret all the while.
func (c *setupCommand) copyKeyring(to string) error {
	text, err := plainfile.Read(c.in(rootFolder, keyringFile), seal.MaxText, plainfile.Private)
	if err != nil {
		return err
	}
	defer clear(text)
	return c.made(plainfile.WriteNew(to, text, 0o600))
}

// settings writes a file of settings.
func (c *setupCommand) settings(path string, all [][2]string) error {
	var b strings.Builder
	for _, kv := range all {
		fmt.Fprintf(&b, "%s: %q\n", kv[0], kv[1])
	}
	return c.made(plainfile.WriteNew(path, []byte(b.String()), 0o644))
}

func (c *setupCommand) tell(s *session, nodes []setupNode) {
	s.out.printf("In %s there is what each node needs, in a folder of its name, and what an operator needs.\n\n", clean(c.Dir))
	s.out.printf("%s It has the CA's key and the master keyring: whoever has them can be\n", s.out.paint(bold, "Keep "+clean(c.in(rootFolder))+" secret, and back it up."))
	s.out.printf("every node and read every key, and if the keyring is lost, every key is.\n")
	if nodes[0].port == 0 {
		return
	}
	s.out.printf("\nNext, each in a terminal of its own:\n")
	for _, n := range nodes {
		s.out.printf("  keyquorum serve --config %s\n", clean(filepath.Join(c.folder(n.name), serveSettings)))
	}
	s.out.printf("Then:\n")
	s.out.printf("  keyquorum cluster init --config %s --wait 30s\n", clean(c.in(operatorFolder, clientFile)))
}

package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/internal/plainfile"
)

type caCommand struct {
	Init        caInitCommand        `cmd:"" help:"Make a certificate authority (CA)."`
	IssueNode   caIssueNodeCommand   `cmd:"" help:"Make a key and a certificate for a node."`
	IssueClient caIssueClientCommand `cmd:"" help:"Make a key and a certificate for one who calls the cluster."`
}

type caInitCommand struct {
	Dir      string         `arg:"" placeholder:"DIR" help:"The CA's folder; made if it is missing. No CA may be in it yet."`
	ValidFor *time.Duration `percall:"" placeholder:"87600h" help:"How long the CA is valid. Default: 87600h, which is 10 years."`
	format
}

func (*caInitCommand) Help() string {
	return `Writes ca.crt, which all nodes and clients need, and ca.key, which nobody else may have: keep it off the nodes. A CA that you have already can take this one's place, if its certificates carry URIs of the form keyquorum://ROLE/NAME.`
}

func (c *caInitCommand) check() []string { return caFaults(c.Dir, c.ValidFor) }

func (c *caInitCommand) run(_ context.Context, s *session) error {
	ca, err := pki.NewCA(pki.CAOptions{ValidFor: valueOf(c.ValidFor)})
	if err == nil {
		err = ca.Write(c.Dir)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("there is a CA in %s already, or a part of one, and it was left as it is: the certificates that it issued depend on it", c.Dir)
	case err != nil:
		return err
	}
	w := written{filepath.Join(c.Dir, pki.CACertFile), filepath.Join(c.Dir, pki.CAKeyFile), ca.Certificate()}
	if c.JSON {
		return w.json(s.out, holder{})
	}
	s.out.printf("Wrote the CA's certificate to %s, and its private key to %s, readable by its owner only.\n\n", clean(w.certPath), clean(w.keyPath))
	w.times(s.out, nil)
	s.out.printf("\n%s Whoever has it can be a node and an operator of every\n", s.out.paint(bold, "Keep "+clean(w.keyPath)+" secret, and off the nodes."))
	s.out.printf("cluster that trusts this CA. Only issuing needs it. %s is no secret: each node and each client needs it.\n\n", clean(w.certPath))
	s.out.printf("Next, for each node and each client:\n")
	s.out.printf("  keyquorum ca issue-node %s NAME --host HOST\n", clean(c.Dir))
	s.out.printf("  keyquorum ca issue-client %s NAME --role ROLE\n", clean(c.Dir))
	return nil
}

// leafFlags are those of both kinds of certificates that a CA issues.
type leafFlags struct {
	Dir      string         `arg:"" placeholder:"DIR" help:"The CA's folder."`
	Name     string         `arg:"" placeholder:"NAME" help:"The name in the certificate; a node's is what serve --name says."`
	Out      string         `percall:"" placeholder:"DIR" help:"The folder to write to; made if it is missing. Default: the CA's."`
	ValidFor *time.Duration `percall:"" placeholder:"8760h" help:"How long the certificate is valid, and not longer than the CA. Default: 8760h, which is 365 days."`
	format
}

func (f *leafFlags) check() []string {
	faults := caFaults(f.Dir, f.ValidFor)
	if err := pki.CheckName(f.Name); err != nil {
		faults = append(faults, "NAME: "+err.Error())
	}
	return faults
}

// issue has the CA make a leaf, and writes it.
func (f *leafFlags) issue(by func(*pki.CA) (*pki.Leaf, error)) (written, error) {
	ca, err := pki.OpenCA(f.Dir, nil)
	if err != nil {
		return written{}, err
	}
	leaf, err := by(ca)
	if errors.Is(err, pki.ErrOutlives) {
		err = fmt.Errorf("%w: give a shorter --valid-for, or make a new CA", err)
	}
	if err != nil {
		return written{}, err
	}
	return f.write(leaf)
}

func (f *leafFlags) write(leaf *pki.Leaf) (written, error) {
	dir := f.Out
	if dir == "" {
		dir = f.Dir
	} else if err := plainfile.MakeDir(dir); err != nil {
		return written{}, err
	}
	base := filepath.Join(dir, url.PathEscape(f.Name))
	w := written{base + ".crt", base + ".key", leaf.Certificate()}
	err := leaf.Write(w.certPath, w.keyPath)
	if errors.Is(err, fs.ErrExist) {
		return written{}, fmt.Errorf("%s or %s is there already, and was left as it is: name another folder with --out, and put both in their places from there", w.certPath, w.keyPath)
	}
	return w, err
}

// tell says what was written for the holder, and what is to be done with it.
func (f *leafFlags) tell(p *printer, w written, h holder) error {
	h.CA = filepath.Join(f.Dir, pki.CACertFile)
	if f.JSON {
		return w.json(p, h)
	}
	p.printf("Wrote the certificate of %s to %s, and its private key to %s, readable by its owner only.\n\n", clean(h.Name), clean(w.certPath), clean(w.keyPath))
	list := fields{}
	list.add("roles", strings.Join(h.Roles, ", "))
	list.add("hosts", strings.Join(h.Hosts, ", "))
	w.times(p, list)
	p.printf("\n%s Whoever has it is %s to the cluster.\n", p.paint(bold, "Keep "+clean(w.keyPath)+" secret."), clean(h.Name))
	p.printf("Give %s these two files and %s, and never the CA's key. Issue the next ones in time, with --out\n", clean(h.Name), clean(h.CA))
	p.printf("for another folder: after %s these are refused.\n", instant(w.cert.NotAfter))
	return nil
}

type caIssueNodeCommand struct {
	leafFlags
	Host texts `percall:"" placeholder:"HOST,..." help:"Names and addresses at which others reach the node, parted by commas; without ports. Required."`
}

func (*caIssueNodeCommand) Help() string {
	return "The certificate has the role node, and is good for serving at its hosts and for calling other nodes. Writes NAME.crt and NAME.key; what is no plain letter of a file's name is written in percent encoding."
}

func (c *caIssueNodeCommand) check() []string {
	faults := c.leafFlags.check()
	if len(c.Host) == 0 {
		faults = append(faults, "--host: say at which names and addresses others reach the node")
	}
	for host := range each(c.Host) {
		if err := pki.CheckHost(host); err != nil {
			faults = append(faults, "--host: "+err.Error())
		}
	}
	return faults
}

func (c *caIssueNodeCommand) run(_ context.Context, s *session) error {
	hosts := slices.Collect(each(c.Host))
	w, err := c.issue(func(ca *pki.CA) (*pki.Leaf, error) {
		return ca.IssueNode(pki.NodeRequest{Name: c.Name, Hosts: hosts, ValidFor: valueOf(c.ValidFor)})
	})
	if err != nil {
		return err
	}
	return c.tell(s.out, w, holder{Name: c.Name, Roles: []string{string(pki.Node)}, Hosts: hosts})
}

type caIssueClientCommand struct {
	leafFlags
	Role texts `percall:"" placeholder:"ROLE,..." help:"What the client may be: verifier, issuer, operator, auditor, or several, parted by commas. Required."`
}

func (*caIssueClientCommand) Help() string {
	return "The certificate is good for calling a cluster, and not for serving. Writes NAME.crt and NAME.key; what is no plain letter of a file's name is written in percent encoding."
}

func (c *caIssueClientCommand) check() []string {
	faults := c.leafFlags.check()
	if len(c.Role) == 0 {
		faults = append(faults, "--role: say what the client may be: verifier, issuer, operator or auditor")
	}
	for name := range each(c.Role) {
		switch role, err := pki.ParseRole(name); {
		case err != nil:
			faults = append(faults, "--role: "+quoted(name)+" is none of verifier, issuer, operator, auditor")
		case role == pki.Node:
			faults = append(faults, `--role: a client is no node: "keyquorum ca issue-node" makes a node's certificate`)
		}
	}
	return faults
}

func (c *caIssueClientCommand) run(_ context.Context, s *session) error {
	var roles []pki.Role
	for name := range each(c.Role) {
		roles = append(roles, pki.Role(name))
	}
	w, err := c.issue(func(ca *pki.CA) (*pki.Leaf, error) {
		return ca.IssueClient(pki.ClientRequest{Name: c.Name, Roles: roles, ValidFor: valueOf(c.ValidFor)})
	})
	if err != nil {
		return err
	}
	id, err := pki.Identify(w.cert)
	if err != nil {
		return err
	}
	h := holder{Name: id.Name}
	for _, role := range id.Roles {
		h.Roles = append(h.Roles, string(role))
	}
	return c.tell(s.out, w, h)
}

// holder is whom a certificate is for; of a CA, nothing.
type holder struct {
	Name  string   `json:"name,omitempty"`
	Roles []string `json:"roles,omitempty"`
	Hosts []string `json:"hosts,omitempty"`
	// CA is the path of the certificate of the CA that has signed it.
	CA string `json:"ca,omitempty"`
}

// written is a certificate, and where it and its key went.
type written struct {
	certPath, keyPath string
	cert              *x509.Certificate
}

func (w written) json(p *printer, h holder) error {
	b, err := json.Marshal(struct {
		holder
		Certificate string `json:"certificate"`
		Key         string `json:"key"`
		Serial      string `json:"serial"`
		NotBefore   string `json:"notBefore"`
		NotAfter    string `json:"notAfter"`
	}{h, w.certPath, w.keyPath, serial(w.cert), instant(w.cert.NotBefore), instant(w.cert.NotAfter)})
	if err != nil {
		return err
	}
	p.printf("%s\n", escaped(string(b)))
	return nil
}

// times prints the rest of a certificate's fields below those in list.
func (w written) times(p *printer, list fields) {
	list.add("serial", serial(w.cert))
	list.add("valid from", instant(w.cert.NotBefore))
	list.add("runs out", instant(w.cert.NotAfter))
	p.fields(list)
}

func serial(cert *x509.Certificate) string { return fmt.Sprintf("%032x", cert.SerialNumber) }

func caFaults(dir string, validFor *time.Duration) (faults []string) {
	if dir == "" {
		faults = append(faults, "DIR: must not be empty")
	}
	if validFor != nil {
		if err := pki.CheckValidity(*validFor); err != nil {
			faults = append(faults, "--valid-for: "+err.Error())
		}
	}
	return faults
}

func valueOf(d *time.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return *d
}

// each gives the parts of a flag that repeats, or holds several parted by commas.
func each(given texts) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, list := range given {
			for part := range strings.SplitSeq(list, ",") {
				if !yield(strings.TrimSpace(part)) {
					return
				}
			}
		}
	}
}

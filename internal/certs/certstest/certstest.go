// Package certstest makes certificates for tests.
package certstest

import (
	"path/filepath"
	"testing"

	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/pki"
)

// CA is a certificate authority whose files are gone when its test ends.
type CA struct {
	*pki.CA
	// File has its certificate.
	File string
}

// New makes a CA.
func New(t testing.TB) *CA {
	t.Helper()
	ca, err := pki.NewCA(pki.CAOptions{})
	dir := t.TempDir()
	if err == nil {
		err = ca.Write(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &CA{CA: ca, File: filepath.Join(dir, pki.CACertFile)}
}

// Node makes the files of a node at the hosts.
func (c *CA) Node(t testing.TB, name string, hosts ...string) certs.Files {
	t.Helper()
	leaf, err := c.IssueNode(pki.NodeRequest{Name: name, Hosts: hosts})
	return c.write(t, leaf, err)
}

// Client makes the files of a caller with the roles.
func (c *CA) Client(t testing.TB, name string, roles ...pki.Role) certs.Files {
	t.Helper()
	leaf, err := c.IssueClient(pki.ClientRequest{Name: name, Roles: roles})
	return c.write(t, leaf, err)
}

func (c *CA) write(t testing.TB, leaf *pki.Leaf, err error) certs.Files {
	t.Helper()
	dir := t.TempDir()
	files := certs.Files{Certificate: filepath.Join(dir, "own.crt"), Key: filepath.Join(dir, "own.key"), CA: c.File}
	if err == nil {
		err = leaf.Write(files.Certificate, files.Key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Open reads files that a CA wrote.
func Open(t testing.TB, files certs.Files) *certs.Source {
	t.Helper()
	s, err := certs.Open(files, certs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

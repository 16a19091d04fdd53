//go:build unix

package certs_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/certs"
)

// authority is a CA that is not this project's, with an intermediate one below it, and signs what a test wants.
type authority struct {
	t            *testing.T
	root, issuer *x509.Certificate
	key          *ecdsa.PrivateKey // of both
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	a := &authority{t: t, key: key}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: today.Add(-time.Hour), NotAfter: today.Add(1000 * time.Hour),
	}
	a.root = a.sign(template, template, key.Public())
	below := *template
	below.Subject.CommonName, below.NotAfter = "below", today.Add(100*time.Hour)
	a.issuer = a.sign(&below, a.root, key.Public())
	return a
}

func (a *authority) sign(template, parent *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	must(a.t, err)
	cert, err := x509.ParseCertificate(der)
	must(a.t, err)
	return cert
}

// leaf is for a server and a client at n1, until change says otherwise.
func (a *authority) leaf(public crypto.PublicKey, change func(*x509.Certificate)) *x509.Certificate {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: today.Add(-time.Hour), NotAfter: today.Add(200 * time.Hour), DNSNames: []string{"n1"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	change(template)
	return a.sign(template, a.issuer, public)
}

// files are of a leaf with a chain, and the root alone in the bundle.
func (a *authority) files(leaf *x509.Certificate, keyType string, keyDER []byte) certs.Files {
	a.t.Helper()
	f := in(a.t.TempDir())
	must(a.t, os.WriteFile(f.Certificate, append(pemOf("CERTIFICATE", leaf.Raw), pemOf("CERTIFICATE", a.issuer.Raw)...), 0o600))
	must(a.t, os.WriteFile(f.Key, pemOf(keyType, keyDER), 0o600))
	must(a.t, os.WriteFile(f.CA, pemOf("CERTIFICATE", a.root.Raw), 0o600))
	return f
}

func (a *authority) source(r *rig, change func(*x509.Certificate)) *certs.Source {
	a.t.Helper()
	return r.open(a.files(a.leaf(a.key.Public(), change), "EC PRIVATE KEY", ecDER(a.t, a.key)))
}

func ecDER(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	return der
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func uris(t *testing.T, texts ...string) []*url.URL {
	t.Helper()
	var list []*url.URL
	for _, text := range texts {
		u, err := url.Parse(text)
		must(t, err)
		list = append(list, u)
	}
	return list
}

// What other tools write works too: chains, keys of other kinds and forms, a curve's parameters before a key.
func TestCertificatesOfAnotherAuthority(t *testing.T) {
	r, own := newRig(t), newAuthority(t)
	node := func(c *x509.Certificate) { c.URIs = uris(t, "keyquorum://node/n1") }
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	must(t, err)
	withParams := own.files(own.leaf(own.key.Public(), node), "EC PRIVATE KEY", ecDER(t, own.key))
	key, err := os.ReadFile(withParams.Key)
	must(t, err)
	must(t, os.WriteFile(withParams.Key, append(pemOf("EC PARAMETERS", []byte{6, 0}), key...), 0o600))
	peer := own.source(r, node)
	for name, f := range map[string]certs.Files{
		"SEC 1":           own.files(own.leaf(own.key.Public(), node), "EC PRIVATE KEY", ecDER(t, own.key)),
		"with parameters": withParams,
		"PKCS #1":         own.files(own.leaf(rsaKey.Public(), node), "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)),
		"PKCS #8":         own.files(own.leaf(rsaKey.Public(), node), "PRIVATE KEY", pkcs8),
	} {
		t.Run(name, func(t *testing.T) {
			s := r.open(f)
			connect(t, s.Server(certs.NodesOnly), peer.Client("n1")).good(t)
			connect(t, peer.Server(certs.NodesOnly), s.Client("n1")).good(t)
			// Of leaf, intermediate and root, the intermediate runs out first.
			if at, file := s.Expiry(); !at.Equal(own.issuer.NotAfter) || file != f.Certificate {
				t.Error(at, file)
			}
		})
	}
}

// scalar is the secret part of a key in PEM.
func scalar(t *testing.T, text []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(text)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	d, err := parsed.(*ecdsa.PrivateKey).Bytes()
	must(t, err)
	return d
}

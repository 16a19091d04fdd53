package pki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/pki"
)

// naming is a certificate with these URIs.
func naming(t testing.TB, uris ...string) *x509.Certificate {
	t.Helper()
	cert := &x509.Certificate{}
	for _, text := range uris {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		cert.URIs = append(cert.URIs, u)
	}
	return cert
}

func TestACertificateNamesItsHolder(t *testing.T) {
	long := strings.Repeat("n", 256)
	for _, c := range []struct {
		uris  []string
		name  string
		roles []pki.Role
	}{
		{[]string{"keyquorum://node/n1"}, "n1", []pki.Role{pki.Node}},
		{[]string{"keyquorum://auditor/a", "keyquorum://verifier/a"}, "a", []pki.Role{pki.Verifier, pki.Auditor}},
		{[]string{"keyquorum://issuer/login", "keyquorum://issuer/login"}, "login", []pki.Role{pki.Issuer}},
		{[]string{"spiffe://example.org/x", "keyquorum://operator/ops", "https://example.org"}, "ops", []pki.Role{pki.Operator}},
		{[]string{"keyquorum://node/n1.example.org"}, "n1.example.org", []pki.Role{pki.Node}},
		{[]string{"keyquorum://node/rack%201%2Fa"}, "rack 1/a", []pki.Role{pki.Node}},
		{[]string{"keyquorum://node/b%C3%BCro"}, "büro", []pki.Role{pki.Node}},
		{[]string{"keyquorum://node/ada@example.org"}, "ada@example.org", []pki.Role{pki.Node}},
		{[]string{"keyquorum://node/" + long}, long, []pki.Role{pki.Node}},
	} {
		id, err := pki.Identify(naming(t, c.uris...))
		if err != nil || id.Name != c.name || !slices.Equal(id.Roles, c.roles) {
			t.Errorf("%v: %v, %v", c.uris, id, err)
		}
		for _, role := range []pki.Role{pki.Verifier, pki.Issuer, pki.Operator, pki.Auditor, pki.Node} {
			if id.Has(role) != slices.Contains(c.roles, role) {
				t.Errorf("%v: has %s: %t", c.uris, role, id.Has(role))
			}
		}
	}
}

func TestAnIdentityThatIsNotPlainIsRefused(t *testing.T) {
	for _, c := range []struct {
		uris []string
		kind error
		told string
	}{
		{nil, pki.ErrNoIdentity, "no URI of the form keyquorum://ROLE/NAME"},
		{[]string{"spiffe://node/n1", "https://node/n1"}, pki.ErrNoIdentity, "no URI"},
		{[]string{"keyquorum://node/n1", "keyquorum://verifier/n2"}, pki.ErrIdentity, `two names, "n1" and "n2"`},
		// One that cannot be read is not made good by one that can.
		{[]string{"keyquorum://node/n1", "keyquorum://root/n1"}, pki.ErrIdentity, `unknown role "root"`},
		{[]string{"keyquorum://Node/n1"}, pki.ErrIdentity, `unknown role "Node"`},
		{[]string{"keyquorum:///n1"}, pki.ErrIdentity, "is not of the form"},
		{[]string{"keyquorum:node/n1"}, pki.ErrIdentity, "is not of the form"},
		{[]string{"keyquorum:/node/n1"}, pki.ErrIdentity, "is not of the form"},
		{[]string{"keyquorum://node"}, pki.ErrIdentity, "one name behind the role"},
		{[]string{"keyquorum://node/"}, pki.ErrIdentity, "the name must not be empty"},
		{[]string{"keyquorum://node/n1/"}, pki.ErrIdentity, "one name behind the role"},
		{[]string{"keyquorum://node/n1/x"}, pki.ErrIdentity, "one name behind the role"},
		{[]string{"keyquorum://node//n1"}, pki.ErrIdentity, "one name behind the role"},
		{[]string{"keyquorum://root@node/n1"}, pki.ErrIdentity, "no user, port, query or fragment"},
		{[]string{"keyquorum://node:7400/n1"}, pki.ErrIdentity, "no user, port, query or fragment"},
		{[]string{"keyquorum://node:/n1"}, pki.ErrIdentity, "no user, port, query or fragment"},
		{[]string{"keyquorum://node/n1?role=operator"}, pki.ErrIdentity, "no user, port, query or fragment"},
		{[]string{"keyquorum://node/n1?"}, pki.ErrIdentity, "no user, port, query or fragment"},
		{[]string{"keyquorum://node/n1#x"}, pki.ErrIdentity, "no user, port, query or fragment"},
		{[]string{"keyquorum://node/n%31"}, pki.ErrIdentity, "is not spelt as it should be: keyquorum://node/n1"},
		{[]string{"keyquorum://node/n%2f1"}, pki.ErrIdentity, "is not spelt as it should be: keyquorum://node/n%2F1"},
		{[]string{"keyquorum://node/n%0A1"}, pki.ErrIdentity, "the name must not contain control characters"},
		{[]string{"keyquorum://node/%FF"}, pki.ErrIdentity, "the name must be valid UTF-8"},
		{[]string{"keyquorum://node/" + strings.Repeat("n", 257)}, pki.ErrIdentity, "the name must not be longer than 256 bytes"},
	} {
		id, err := pki.Identify(naming(t, c.uris...))
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.told) {
			t.Errorf("%v: %v, want %q", c.uris, err, c.told)
		}
		if id.Name != "" || id.Roles != nil {
			t.Errorf("%v: refused, and yet %v", c.uris, id)
		}
	}
}

func TestRolesHaveOneSpelling(t *testing.T) {
	for _, name := range []string{"verifier", "issuer", "operator", "auditor", "node"} {
		if role, err := pki.ParseRole(name); err != nil || string(role) != name {
			t.Errorf("%s: %q, %v", name, role, err)
		}
	}
	for _, name := range []string{"", "Node", "NODE", " node", "nodes", "admin"} {
		if _, err := pki.ParseRole(name); !errors.Is(err, pki.ErrRole) || !strings.Contains(err.Error(), "there are verifier, issuer, operator, auditor, node") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// FuzzIdentify: whatever is accepted has one spelling, and says what it says whoever reads it.
func FuzzIdentify(f *testing.F) {
	for _, seed := range []string{
		"keyquorum://node/n1", "keyquorum://node/a%2Fb", "keyquorum://node/n%31", "keyquorum://a@node:1/n?q#f", "keyquorum:node/n1",
		"KEYQUORUM://node/n1", "keyquorum://node/..", "keyquorum://node/%C3%BC", "keyquorum://n%6Fde/n1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil {
			t.Skip()
		}
		id, err := pki.Identify(&x509.Certificate{URIs: []*url.URL{u}})
		if err != nil {
			if !errors.Is(err, pki.ErrIdentity) && !errors.Is(err, pki.ErrNoIdentity) {
				t.Errorf("%q: an error of no kind: %v", text, err)
			}
			return
		}
		if err := pki.CheckName(id.Name); err != nil || len(id.Roles) != 1 {
			t.Errorf("%q: %v, %v", text, id, err)
		}
		if want := "keyquorum://" + string(id.Roles[0]) + "/" + url.PathEscape(id.Name); u.String() != want {
			t.Errorf("%q was accepted for %s", text, want)
		}
	})
}

// What a parser of URIs makes alike is told apart: a CA that goes by the text lets none through that is read as another.
func TestASpellingThatParsesAlikeIsRefused(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]error{
		"keyquorum://node/n1":     nil,
		"KEYQUORUM://node/n1":     pki.ErrIdentity,
		"keyQuorum://node/n1":     pki.ErrIdentity,
		"keyquorum://node/n1#":    pki.ErrIdentity,
		"spiffe://node/n1":        pki.ErrNoIdentity,
		"urn:keyquorum://node/n1": pki.ErrNoIdentity,
	} {
		value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := pki.Identify(cert); !errors.Is(err, want) {
			t.Errorf("%s: %v, %v", text, id, err)
		}
	}
}

package pki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/pki"
)

const year = 365 * 24 * time.Hour

// today is when most of the tests' certificates are made.
var today = time.Date(2026, 11, 24, 12, 0, 0, 500, time.UTC)

func at(when time.Time) func() time.Time { return func() time.Time { return when } }

func newCA(t *testing.T, o pki.CAOptions) *pki.CA {
	t.Helper()
	if o.Now == nil {
		o.Now = at(today)
	}
	ca, err := pki.NewCA(o)
	must(t, err)
	return ca
}

func TestTheCASignsLeavesAndNothingElse(t *testing.T) {
	cert := newCA(t, pki.CAOptions{}).Certificate()
	must(t, cert.CheckSignatureFrom(cert))
	must(t, pki.CheckCA(cert))
	if !cert.IsCA || !cert.MaxPathLenZero || cert.MaxPathLen != 0 || cert.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("CA %t, path length %d (zero: %t), usage %b", cert.IsCA, cert.MaxPathLen, cert.MaxPathLenZero, cert.KeyUsage)
	}
	if key, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("%T", cert.PublicKey)
	}
	wantLife(t, cert, today, 10*year)
	if other := newCA(t, pki.CAOptions{}).Certificate(); other.Subject.String() == cert.Subject.String() {
		t.Errorf("two CAs are both called %s", other.Subject)
	}
}

// wantLife wants a life that began a few minutes before it was given.
func wantLife(t *testing.T, cert *x509.Certificate, given time.Time, d time.Duration) {
	t.Helper()
	given = given.Truncate(time.Second)
	if back := given.Sub(cert.NotBefore); back < time.Minute || back > 10*time.Minute {
		t.Errorf("%s: begins %s before it was given", cert.Subject, back)
	}
	if !cert.NotAfter.Equal(given.Add(d)) {
		t.Errorf("%s: ends %s, want %s", cert.Subject, cert.NotAfter, given.Add(d))
	}
}

func TestANodesCertificate(t *testing.T) {
	ca := newCA(t, pki.CAOptions{})
	leaf, err := ca.IssueNode(pki.NodeRequest{Name: "rack 1/ü", Hosts: []string{"n1.example.org", "10.0.0.1", "::1", "keyquorum_node_1"}})
	must(t, err)
	cert := leaf.Certificate()
	verify(t, ca, cert, x509.ExtKeyUsageServerAuth, nil)
	verify(t, ca, cert, x509.ExtKeyUsageClientAuth, nil)
	wantLife(t, cert, today, year)
	if id, err := pki.Identify(cert); err != nil || id.Name != "rack 1/ü" || !slices.Equal(id.Roles, []pki.Role{pki.Node}) {
		t.Error(id, err)
	}
	for _, host := range []string{"n1.example.org", "10.0.0.1", "[::1]", "keyquorum_node_1"} {
		if err := cert.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if cert.VerifyHostname("n2.example.org") == nil || cert.VerifyHostname("10.0.0.2") == nil || len(cert.DNSNames) != 2 {
		t.Errorf("it is good for other hosts: %v, %v", cert.DNSNames, cert.IPAddresses)
	}
	if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature || len(cert.ExtKeyUsage) != 2 {
		t.Errorf("CA %t, usage %b, %v", cert.IsCA, cert.KeyUsage, cert.ExtKeyUsage)
	}
}

func TestAClientsCertificateIsForCallingAlone(t *testing.T) {
	ca := newCA(t, pki.CAOptions{})
	leaf, err := ca.IssueClient(pki.ClientRequest{Name: "ops", Roles: []pki.Role{pki.Auditor, pki.Operator, pki.Auditor}, ValidFor: time.Hour})
	must(t, err)
	cert := leaf.Certificate()
	verify(t, ca, cert, x509.ExtKeyUsageClientAuth, nil)
	verify(t, ca, cert, x509.ExtKeyUsageServerAuth, x509.CertificateInvalidError{})
	wantLife(t, cert, today, time.Hour)
	if id, err := pki.Identify(cert); err != nil || id.Name != "ops" || !slices.Equal(id.Roles, []pki.Role{pki.Operator, pki.Auditor}) {
		t.Error(id, err)
	}
	if len(cert.URIs) != 2 || len(cert.DNSNames)+len(cert.IPAddresses) != 0 {
		t.Error(cert.URIs, cert.DNSNames, cert.IPAddresses)
	}
}

func verify(t *testing.T, ca *pki.CA, cert *x509.Certificate, use x509.ExtKeyUsage, want error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: today, KeyUsages: []x509.ExtKeyUsage{use}})
	if fmt.Sprintf("%T", err) != fmt.Sprintf("%T", want) {
		t.Errorf("%s, use %d: %v", cert.Subject, use, err)
	}
}

// A common name has at most 64 characters, and a name of ours has more room: the URI alone has it then.
func TestALongNameStandsInTheURIAlone(t *testing.T) {
	ca := newCA(t, pki.CAOptions{})
	for length, common := range map[int]bool{64: true, 65: false, 256: false} {
		name := strings.Repeat("ü", length/2) + strings.Repeat("n", length-length/2)
		if len(name) > 256 {
			name = name[:256]
		}
		leaf, err := ca.IssueClient(pki.ClientRequest{Name: name, Roles: []pki.Role{pki.Verifier}})
		must(t, err)
		verify(t, ca, leaf.Certificate(), x509.ExtKeyUsageClientAuth, nil)
		if id, err := pki.Identify(leaf.Certificate()); err != nil || id.Name != name {
			t.Error(id, err)
		}
		if has := leaf.Certificate().Subject.CommonName == name; has != common {
			t.Errorf("%d characters: the common name is %q", length, leaf.Certificate().Subject.CommonName)
		}
	}
}

func TestSerialNumbersAre128RandomBits(t *testing.T) {
	ca := newCA(t, pki.CAOptions{})
	seen := map[string]bool{}
	longest := 0
	for range 32 {
		leaf, err := ca.IssueClient(pki.ClientRequest{Name: "c", Roles: []pki.Role{pki.Verifier}})
		must(t, err)
		serial := leaf.Certificate().SerialNumber
		if serial.Sign() <= 0 || serial.BitLen() > 128 || seen[serial.String()] {
			t.Errorf("%x", serial)
		}
		seen[serial.String()] = true
		longest = max(longest, serial.BitLen())
	}
	if longest < 120 {
		t.Errorf("of 32 serial numbers, none has more than %d bits", longest)
	}
}

func TestNoCertificateOutlivesItsCA(t *testing.T) {
	now := today
	ca, err := pki.NewCA(pki.CAOptions{ValidFor: 30 * 24 * time.Hour, Now: func() time.Time { return now }})
	must(t, err)
	issue := func(d time.Duration) error {
		_, err := ca.IssueClient(pki.ClientRequest{Name: "c", Roles: []pki.Role{pki.Verifier}, ValidFor: d})
		return err
	}
	must(t, issue(30*24*time.Hour))
	refused(t, issue(30*24*time.Hour+time.Second), pki.ErrOutlives, "2026-12-24T12:00:01Z", "2026-12-24T12:00:00Z")
	refused(t, issue(0), pki.ErrOutlives, "2027-11-24T12:00:00Z", "2026-12-24T12:00:00Z") // the default is no exception
	now = today.Add(-4 * time.Minute)
	leaf, err := ca.IssueClient(pki.ClientRequest{Name: "c", Roles: []pki.Role{pki.Verifier}, ValidFor: time.Hour})
	must(t, err)
	if leaf.Certificate().NotBefore.Before(ca.Certificate().NotBefore) {
		t.Error("a certificate begins before its CA does")
	}
	now = today.Add(-time.Hour)
	refused(t, issue(time.Hour), pki.ErrNotYetValid, "the CA's certificate is not yet valid")
	now = today.Add(31 * 24 * time.Hour)
	refused(t, issue(time.Minute), pki.ErrExpired, "the CA's certificate has expired")
}

func TestUnacceptableRequestsAreRefusedByTheField(t *testing.T) {
	ca := newCA(t, pki.CAOptions{})
	node := func(r pki.NodeRequest) error { _, err := ca.IssueNode(r); return err }
	client := func(r pki.ClientRequest) error { _, err := ca.IssueClient(r); return err }
	hosts, verifier := []string{"n1"}, []pki.Role{pki.Verifier}
	refused(t, node(pki.NodeRequest{Hosts: hosts}), nil, "name: must not be empty")
	refused(t, node(pki.NodeRequest{Name: "n\n1", Hosts: hosts}), nil, "name: must not contain control characters")
	refused(t, node(pki.NodeRequest{Name: "n1"}), nil, "hosts: a node needs at least one")
	refused(t, node(pki.NodeRequest{Name: "n1", Hosts: []string{"n1", "n1:7400"}}), nil, `hosts: "n1:7400" has a port`)
	refused(t, node(pki.NodeRequest{Name: "n1", Hosts: hosts, ValidFor: time.Second}), nil, "validity: must not be shorter than 1m")
	refused(t, node(pki.NodeRequest{Name: "n1", Hosts: hosts, ValidFor: -time.Hour}), nil, "validity: must not be shorter than 1m")
	refused(t, client(pki.ClientRequest{Name: "c"}), nil, "roles: a client needs at least one")
	refused(t, client(pki.ClientRequest{Roles: verifier}), nil, "name: must not be empty")
	refused(t, client(pki.ClientRequest{Name: "c", Roles: []pki.Role{"root"}}), pki.ErrRole, "roles: ")
	refused(t, client(pki.ClientRequest{Name: "c", Roles: []pki.Role{pki.Verifier, pki.Node}}), nil, "roles: a client is no node")
	_, err := pki.NewCA(pki.CAOptions{ValidFor: time.Second})
	refused(t, err, nil, "validity: must not be shorter than 1m")
}

func TestHosts(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, host := range []string{"n1", "N1.Example.ORG", "a-b.c_d", "1.n", "10.0.0.1", "::1", "2001:db8::1", long, strings.Repeat(long+".", 3) + "abcdefg"} {
		if err := pki.CheckHost(host); err != nil {
			t.Error(err)
		}
	}
	for host, told := range map[string]string{
		"": "neither a DNS name", "n1:7400": "has a port", "10.0.0.1:7400": "has a port", "[::1]:7400": "has a port", "[::1]": "neither",
		"https://n1": "neither", "*.example.org": "has a wildcard", "n1.": "neither", ".n1": "neither", "a..b": "neither",
		"-n1": "neither", "n1-": "neither", "n 1": "neither", "bücher": "neither", "10.0.0": "neither", "10.0.0.256": "neither",
		"0.0.0.0": "no address that others could reach", "::": "no address that others could reach", "fe80::1%eth0": "neither",
		long + "a": "neither", strings.Repeat(long+".", 3) + strings.Repeat("a", 62): "neither",
	} {
		refused(t, pki.CheckHost(host), nil, told)
		if net.ParseIP(host) != nil && told == "neither" {
			t.Errorf("%s is an address", host)
		}
	}
}

// refused wants an error of a kind, if one is given, that tells each of the texts.
func refused(t *testing.T, err, kind error, told ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("nothing was refused, want %q", told)
		return
	}
	if kind != nil && !errors.Is(err, kind) {
		t.Errorf("%v is not of the kind %v", err, kind)
	}
	for _, text := range told {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in %q", text, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

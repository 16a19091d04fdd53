package pki_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/pki"
)

// FuzzParseCertificates reads any text as a file of certificates, and of each whom it names: nothing panics, what is read is
// written and read again the same, and an identity that is given has a name and a role.
func FuzzParseCertificates(f *testing.F) {
	ca, err := pki.NewCA(pki.CAOptions{})
	if err != nil {
		f.Fatal(err)
	}
	node, err := ca.IssueNode(pki.NodeRequest{Name: "n1", Hosts: []string{"127.0.0.1", "h"}})
	if err != nil {
		f.Fatal(err)
	}
	client, err := ca.IssueClient(pki.ClientRequest{Name: "ü/ö", Roles: []pki.Role{pki.Operator, pki.Auditor}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(pki.EncodeCertificate(node.Certificate()), pki.EncodeCertificate(ca.Certificate())...))
	f.Add(append([]byte("text\n"), pki.EncodeCertificate(client.Certificate())...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := pki.ParseCertificates(text)
		if (err == nil) != (len(certs) > 0) {
			t.Fatalf("%d certificates and %v", len(certs), err)
		}
		for _, cert := range certs {
			again, err := pki.ParseCertificates(pki.EncodeCertificate(cert))
			if err != nil || len(again) != 1 || !bytes.Equal(again[0].Raw, cert.Raw) {
				t.Errorf("a certificate that was read is not read again: %v", err)
			}
			_, _ = pki.CheckCA(cert), pki.CheckTime(cert, time.Unix(0, 0))
			id, err := pki.Identify(cert)
			switch {
			case err != nil && !errors.Is(err, pki.ErrIdentity) && !errors.Is(err, pki.ErrNoIdentity):
				t.Errorf("an error of no kind: %v", err)
			case err == nil && (len(id.Roles) == 0 || pki.CheckName(id.Name) != nil):
				t.Errorf("it names %v", id)
			}
		}
	})
}

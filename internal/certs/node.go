package certs

import (
	"crypto/x509"
	"fmt"

	"github.com/keyquorum/keyquorum/internal/pki"
)

// CheckNode tells why the others would not take this process for the node with that name at those hosts, or nil: its
// certificate must name it with the role node, be good for each host and for both ends of a connection, and come from a CA
// that it trusts itself.
func (s *Source) CheckNode(name string, hosts ...string) error {
	m := s.current.Load()
	fault := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w", s.files.Certificate, fmt.Errorf(format, args...))
	}
	id, err := pki.Identify(m.chain[0])
	switch {
	case err != nil:
		return fault("%w", err)
	case !id.Has(pki.Node):
		return fault("%w: it is that of %s", ErrNotNode, id)
	case id.Name != name:
		return fault("it is the certificate of node %q, and this node is %q: say --name %[1]s, or issue one for it", id.Name, name)
	}
	for _, host := range hosts {
		if err := m.chain[0].VerifyHostname(host); err != nil {
			return fault("the others reach this node at %s, and the certificate is not for that: %w", host, err)
		}
	}
	intermediates := x509.NewCertPool()
	for _, cert := range m.chain[1:] {
		intermediates.AddCert(cert)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := m.chain[0].Verify(x509.VerifyOptions{
			Roots: m.pool, Intermediates: intermediates, CurrentTime: s.now(), KeyUsages: []x509.ExtKeyUsage{usage},
		})
		if err != nil {
			return fault("it does not stand up to the CAs in %s: %w", s.files.CA, err)
		}
	}
	return nil
}

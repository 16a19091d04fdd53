package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/keyquorum/keyquorum/internal/pki"
)

// Callers says who gets past the handshake of a server. What each may do there is for others to decide.
type Callers int

const (
	// NodesOnly lets members of the cluster in: a certificate of a trusted CA that has the role node.
	NodesOnly Callers = iota
	// Identified lets those in who have a certificate of a trusted CA, with an identity of any role.
	Identified
	// Anyone lets those in as well who show no certificate; one that is shown must be as for Identified.
	Anyone
)

var (
	// ErrNoCertificate says that the other end shows no certificate where one is needed.
	ErrNoCertificate = errors.New("no certificate was shown")
	// ErrNotNode says that the other end has a certificate, and not that of a node.
	ErrNotNode = errors.New("the certificate is not that of a node")
)

// Server gives the config of a server, for as long as it lives: each handshake takes what counts at that time. Only TLS
// 1.3 (RFC 8446) is spoken. The caller may set NextProtos and nothing else.
//
// Who calls is told by pki.Identify of the connection's first peer certificate, which has been verified then, though
// ConnectionState.VerifiedChains stays empty.
//
// It panics for a Source without a certificate of its own, as such a server could greet nobody.
func (s *Source) Server(who Callers) *tls.Config {
	if !s.files.own() {
		panic("certs: a server needs a certificate of its own, and the Source was opened without one")
	}
	ask := tls.RequireAnyClientCert
	if who == Anyone {
		ask = tls.RequestClientCert
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &s.current.Load().own, nil
		},
		// What is asked for here, VerifyConnection verifies, by the CAs that are trusted at that time.
		ClientAuth:       ask,
		VerifyConnection: func(cs tls.ConnectionState) error { return s.verifyCaller(cs, who) },
		// A session that is resumed would carry on with what an older CA has vouched for.
		SessionTicketsDisabled: true,
		Time:                   s.now,
	}
}

func (s *Source) verifyCaller(cs tls.ConnectionState, who Callers) error {
	if len(cs.PeerCertificates) == 0 {
		if who == Anyone {
			return nil
		}
		return ErrNoCertificate
	}
	intermediates := x509.NewCertPool()
	for _, cert := range cs.PeerCertificates[1:] {
		intermediates.AddCert(cert)
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: s.current.Load().pool, Intermediates: intermediates, CurrentTime: s.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
	}
	return checkIdentity(cs.PeerCertificates[0], who == NodesOnly)
}

func checkIdentity(cert *x509.Certificate, node bool) error {
	id, err := pki.Identify(cert)
	if err != nil {
		return err
	}
	if node && !id.Has(pki.Node) {
		return fmt.Errorf("%w: it is that of %s", ErrNotNode, id)
	}
	return nil
}

// Client gives the config of one connection to the node at host, a DNS name or an IP address, with what counts now: a
// config that is kept would miss what comes after. Whoever has no certificate shows none. The node must have a certificate of a trusted CA for that host, with
// the role node. Only TLS 1.3 is spoken. The caller may set NextProtos and nothing else.
func (s *Source) Client(host string) *tls.Config {
	m := s.current.Load()
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Not in Certificates: of those none is shown to a server that names other CAs than this one's, and the
		// server's reason for refusing is then a wrong one.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &m.own, nil },
		RootCAs:              m.pool,
		ServerName:           host,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return checkIdentity(cs.PeerCertificates[0], true)
		},
		Time: s.now,
	}
}

package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/keyquorum/keyquorum/internal/pki"
)

// Dial shakes hands over conn with the node at host, as Client says, with what the files hold now; they are looked at
// where that is due. It speaks the first of the protocols (ALPN, RFC 7301) that the node knows; with HTTP/2 it waits for the
// node's greeting, or for its refusal of this side's certificate. Where it fails it has closed conn, and its error says what
// is wrong and holds the one underneath; see also Explain.
func (s *Source) Dial(ctx context.Context, conn net.Conn, host string, protos ...string) (*tls.Conn, error) {
	_ = s.ReloadIfDue(ctx) // what is wrong with them counts where the handshake fails
	config := s.Client(host)
	config.NextProtos = protos
	heard := &hearing{Conn: conn}
	secured := tls.Client(heard, config)
	err := secured.HandshakeContext(ctx)
	if err == nil && secured.ConnectionState().NegotiatedProtocol == "h2" {
		err = heard.greeting(secured)
	}
	if err != nil {
		_ = conn.Close()
		return nil, s.Explain(err)
	}
	return secured, nil
}

const (
	// greetingLimit is how long the greeting is waited for; a node that sends none is taken as it is.
	greetingLimit = time.Second
	// recordHeader is the length of the header before what TLS sends, alertRecord that of an alert behind it: two bytes, one
	// for the type, and 16 for authentication (RFC 8446, 5.2). A frame of HTTP/2 has 9 bytes at least.
	recordHeader, alertRecord = 5, 19
)

// hearing is the connection below TLS, with what was read of it already.
type hearing struct {
	net.Conn
	first []byte
}

// Read gives that first.
func (h *hearing) Read(b []byte) (int, error) {
	if len(h.first) == 0 {
		return h.Conn.Read(b)
	}
	n := copy(b, h.first)
	h.first = h.first[n:]
	return n, nil
}

// greeting waits for the first that the node says once the handshake is done on this side, and gives the error if that is a
// refusal. Were a request sent meanwhile, it would meet a closed connection, whose reset can overtake the node's words, and
// nobody could tell whether the request was taken.
func (h *hearing) greeting(secured *tls.Conn) error {
	if err := h.SetReadDeadline(time.Now().Add(greetingLimit)); err != nil {
		return err
	}
	header := make([]byte, recordHeader)
	n, err := io.ReadFull(h.Conn, header)
	h.first = header[:n]
	switch late, ok := errors.AsType[net.Error](err); {
	case ok && late.Timeout():
	case err != nil:
		return fmt.Errorf("the node closed the connection after the handshake: %w", err)
	case binary.BigEndian.Uint16(header[recordHeader-2:]) == alertRecord:
		_, err := secured.Read(make([]byte, 1))
		return err
	}
	return h.SetReadDeadline(time.Time{})
}

// HandshakeError is a connection that could not be secured. No request was sent over it that anybody took.
type HandshakeError struct {
	// Reason is what is wrong, in words for whoever can mend it.
	Reason string
	err    error
}

// Error is the reason.
func (e *HandshakeError) Error() string { return e.Reason }

// Unwrap gives what TLS said.
func (e *HandshakeError) Unwrap() error { return e.err }

// Explain turns what a handshake failed with into a *HandshakeError. It gives any other error as it is, and one that it
// has explained already. With TLS 1.3 a node refuses its caller's certificate when the caller is done with the
// handshake, so errors of reading and writing want to be explained too.
func (s *Source) Explain(err error) error {
	if _, done := errors.AsType[*HandshakeError](err); done {
		return err
	}
	reason := s.reason(err)
	if reason == "" {
		return err
	}
	if fault := s.Fault(); fault != nil {
		reason += "; and what this side's files hold now does not count: " + fault.Error()
	}
	return &HandshakeError{reason, err}
}

// reason is empty for what is not of a handshake's making.
func (s *Source) reason(err error) string {
	if record, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		if string(record.RecordHeader[:]) == "HTTP/" {
			return "the node speaks plain HTTP, not TLS: is that the address of its probes, or is its TLS off?"
		}
		return "what answers speaks no TLS: is there a Keyquorum node at this address?"
	}
	if refused, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "the node's certificate is not accepted: " + s.unaccepted(refused.Err)
	}
	if errors.Is(err, ErrNotNode) || errors.Is(err, pki.ErrNoIdentity) || errors.Is(err, pki.ErrIdentity) {
		return "what answers is no node of a cluster: " + err.Error()
	}
	if told, ok := errors.AsType[*net.OpError](err); ok && told.Op == "remote error" {
		return s.alert(told.Err.Error())
	}
	if strings.HasPrefix(err.Error(), "tls: server selected unsupported protocol version") { // it has no type
		return noTLS13
	}
	return ""
}

const noTLS13 = "the node does not speak TLS 1.3: is there a Keyquorum node at this address?"

// unaccepted says why a node's certificate is not.
func (s *Source) unaccepted(err error) string {
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("it is not for %s, but for %s", name.Host, hosts(name.Certificate))
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		if err := pki.CheckTime(invalid.Cert, s.now()); err != nil {
			return fmt.Sprintf("it, or the CA that signed it, %v", err)
		}
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.IncompatibleUsage {
		return "it is not for serving: is it a client's?"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "no CA in " + s.files.CA + " has signed it"
	}
	return err.Error()
}

// hosts are those that a certificate is for.
func hosts(cert *x509.Certificate) string {
	list := append([]string(nil), cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		list = append(list, ip.String())
	}
	if len(list) == 0 {
		return "no host: is it a client's?"
	}
	return strings.Join(list, ", ")
}

// alerts are those (RFC 8446, 6.2) by which a server ends a handshake, by their texts: net.OpError holds them in a type
// of crypto/tls's own.
var alerts = func() map[string]tls.AlertError {
	texts := map[string]tls.AlertError{}
	for _, code := range append([]tls.AlertError{handshakeFailure, protocolVersion, certificateRequired}, badCertificates...) {
		texts[code.Error()] = code
	}
	return texts
}()

const (
	handshakeFailure    tls.AlertError = 40
	protocolVersion     tls.AlertError = 70
	certificateRequired tls.AlertError = 116
)

// badCertificates are those about a certificate that was shown: bad, unsupported, revoked, expired, unknown in what is
// wrong with it, of an unknown CA, without access.
var badCertificates = []tls.AlertError{42, 43, 44, 45, 46, 48, 49}

// alert says why a node ended the handshake.
func (s *Source) alert(text string) string {
	code, known := alerts[text]
	switch {
	case !known:
		return ""
	case code == protocolVersion:
		return noTLS13
	case code == certificateRequired:
		return "the node wants a client certificate, and there is none to show"
	case code == handshakeFailure:
		return "the node would not go on with the handshake"
	}
	return "the node does not accept this side's certificate (" + text + "): " + s.suspicion()
}

// suspicion is what may be wrong with the own certificate, as far as this side can tell.
func (s *Source) suspicion() string {
	cert := s.Certificate()
	if cert == nil {
		return "there is none"
	}
	if err := pki.CheckTime(cert, s.now()); err != nil {
		return err.Error()
	}
	if _, err := pki.Identify(cert); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("it is valid until %s here; does the node trust the CA that signed it? The node's log says more", cert.NotAfter.UTC().Format(time.RFC3339))
}

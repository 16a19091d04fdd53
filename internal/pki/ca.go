package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"time"
	"unicode/utf8"
)

const (
	// DefaultCAValidity is how long a CA is valid unless told: 10 years.
	DefaultCAValidity = 10 * year
	// DefaultValidity is how long a certificate of a node or a client is valid unless told: 1 year.
	DefaultValidity = year
	// MinValidity is the shortest life that can be asked for.
	MinValidity = time.Minute

	year = 365 * 24 * time.Hour
	// backdated is how far back a certificate's life begins: the clock of who checks it may be behind.
	backdated = 5 * time.Minute
	// maxCommonName is the longest common name in characters (RFC 5280, A.1, ub-common-name).
	maxCommonName = 64
)

var (
	// ErrOutlives says that a certificate would be valid for longer than the CA that signs it.
	ErrOutlives = errors.New("would outlive its CA")
	// ErrExpired says that a certificate's time is over.
	ErrExpired = errors.New("has expired")
	// ErrNotYetValid says that a certificate's time has not begun.
	ErrNotYetValid = errors.New("is not yet valid")
)

// privateKey holds a key behind a function, as no print of any value that holds it follows one.
type privateKey struct{ reveal func() *ecdsa.PrivateKey }

func newKey() (privateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return privateKey{}, fmt.Errorf("make a private key: %w", err)
	}
	return hide(key), nil
}

func hide(key *ecdsa.PrivateKey) privateKey {
	return privateKey{func() *ecdsa.PrivateKey { return key }}
}

// CA is a small certificate authority: one key (ECDSA P-256) that signs certificates of nodes and clients, and nothing
// below them. It is safe for concurrent use, and does not print its key.
type CA struct {
	cert *x509.Certificate
	key  privateKey
	now  func() time.Time
}

// CAOptions are those of a new CA. The zero value works.
type CAOptions struct {
	// ValidFor is how long the CA is valid from now; DefaultCAValidity if zero.
	ValidFor time.Duration
	// Now is the clock, of the new CA too; time.Now if nil.
	Now func() time.Time
}

// NewCA makes a CA, which is nowhere but in memory until Write. Its certificate may sign certificates and revocation
// lists, and no further CA (RFC 5280, 4.2.1.3 and 4.2.1.9).
func NewCA(o CAOptions) (*CA, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	ca := &CA{key: key, now: clock(o.Now)}
	template, err := newTemplate(ca.now(), o.ValidFor, DefaultCAValidity)
	if err != nil {
		return nil, err
	}
	// The number tells a CA from the one that follows it.
	template.Subject = pkix.Name{CommonName: fmt.Sprintf("Keyquorum CA %.4x", template.SerialNumber.Bytes())}
	template.IsCA, template.MaxPathLenZero = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	ca.cert, err = sign(template, template, key, key)
	return ca, err
}

func clock(now func() time.Time) func() time.Time {
	if now == nil {
		return time.Now
	}
	return now
}

// Certificate is the CA's own, which whoever is to trust it needs. It is not to be changed.
func (c *CA) Certificate() *x509.Certificate { return c.cert }

// NodeRequest asks for the certificate of a member of the cluster.
type NodeRequest struct {
	// Name is the node's, by the rule of CheckName.
	Name string
	// Hosts are the DNS names and IP addresses at which others reach it; at least one, by the rule of CheckHost.
	Hosts []string
	// ValidFor is how long the certificate is valid from now; DefaultValidity if zero.
	ValidFor time.Duration
}

// IssueNode makes a key and a certificate for a node, with the role Node: it may serve at its hosts, and call other
// nodes. The error wraps ErrOutlives, or ErrExpired or ErrNotYetValid for the CA itself, where that is the reason.
func (c *CA) IssueNode(r NodeRequest) (*Leaf, error) {
	if len(r.Hosts) == 0 {
		return nil, errors.New("hosts: a node needs at least one name or address at which others reach it")
	}
	for _, h := range r.Hosts {
		if err := CheckHost(h); err != nil {
			return nil, fmt.Errorf("hosts: %w", err)
		}
	}
	return c.issue(r.Name, []Role{Node}, r.ValidFor, func(t *x509.Certificate) {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		addHosts(t, r.Hosts)
	})
}

func addHosts(t *x509.Certificate, hosts []string) {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
}

// ClientRequest asks for the certificate of one who calls the cluster.
type ClientRequest struct {
	// Name is the caller's, by the rule of CheckName.
	Name string
	// Roles are one or more, Node not among them.
	Roles []Role
	// ValidFor is how long the certificate is valid from now; DefaultValidity if zero.
	ValidFor time.Duration
}

// IssueClient makes a key and a certificate for a caller, good for calling alone. Errors are as those of IssueNode.
func (c *CA) IssueClient(r ClientRequest) (*Leaf, error) {
	if len(r.Roles) == 0 {
		return nil, errors.New("roles: a client needs at least one")
	}
	for _, role := range r.Roles {
		if _, err := ParseRole(string(role)); err != nil {
			return nil, fmt.Errorf("roles: %w", err)
		}
	}
	if slices.Contains(r.Roles, Node) {
		return nil, errors.New("roles: a client is no node")
	}
	return c.issue(r.Name, ordered(r.Roles), r.ValidFor, func(t *x509.Certificate) {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
}

// issue makes a leaf of what all leaves have, and what fill adds.
func (c *CA) issue(name string, of []Role, validFor time.Duration, fill func(*x509.Certificate)) (*Leaf, error) {
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	now := c.now()
	if err := CheckTime(c.cert, now); err != nil {
		return nil, fmt.Errorf("the CA's certificate %w", err)
	}
	t, err := newTemplate(now, validFor, DefaultValidity)
	if err != nil {
		return nil, err
	}
	if t.NotAfter.After(c.cert.NotAfter) {
		return nil, fmt.Errorf("the certificate %w: it would be valid until %s, and the CA is until %s", ErrOutlives, date(t.NotAfter), date(c.cert.NotAfter))
	}
	if t.NotBefore.Before(c.cert.NotBefore) {
		t.NotBefore = c.cert.NotBefore
	}
	t.URIs = identityURIs(of, name)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	if utf8.RuneCountInString(name) <= maxCommonName {
		t.Subject = pkix.Name{CommonName: name} // for people: nothing reads it
	}
	fill(t)
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	cert, err := sign(t, c.cert, key, c.key)
	if err != nil {
		return nil, err
	}
	return &Leaf{cert, key}, nil
}

func identityURIs(of []Role, name string) []*url.URL {
	var uris []*url.URL
	for _, role := range of {
		uris = append(uris, identityURI(role, name))
	}
	return uris
}

// newTemplate has a new serial number and a life that begins a little before now.
func newTemplate(now time.Time, validFor, unlessGiven time.Duration) (*x509.Certificate, error) {
	if validFor == 0 {
		validFor = unlessGiven
	}
	if err := CheckValidity(validFor); err != nil {
		return nil, fmt.Errorf("validity: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: newSerial(), BasicConstraintsValid: true,
		NotBefore: now.Add(-backdated).UTC().Truncate(time.Second), NotAfter: now.Add(validFor).UTC().Truncate(time.Second),
	}, nil
}

// CheckValidity tells what is wrong with the length of a certificate's life, or nil. The error is worded to follow a
// field's name.
func CheckValidity(d time.Duration) error {
	if d < MinValidity {
		return fmt.Errorf("must not be shorter than %s", MinValidity)
	}
	return nil
}

// newSerial gives 128 random bits, which no two certificates share and nobody can foretell (RFC 5280, 4.1.2.2: a positive
// number of at most 20 bytes).
func newSerial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return new(big.Int).SetBytes(b[:])
}

func sign(template, parent *x509.Certificate, key, by privateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.reveal().Public(), by.reveal())
	if err != nil {
		return nil, fmt.Errorf("sign the certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate that was signed: %w", err)
	}
	return cert, nil
}

// CheckTime tells that now is outside of a certificate's life, or nil. The error is worded to follow what names the
// certificate, and wraps ErrExpired or ErrNotYetValid.
func CheckTime(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.After(cert.NotAfter):
		return fmt.Errorf("%w: it was valid until %s, and it is %s here", ErrExpired, date(cert.NotAfter), date(now))
	case now.Before(cert.NotBefore):
		return fmt.Errorf("%w: it is from %s on, and it is %s here", ErrNotYetValid, date(cert.NotBefore), date(now))
	}
	return nil
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Package pki has what a certificate says of its holder, in one place, and a small certificate authority for those who
// have none.
//
// A certificate names its holder by URIs in its subject alternative name (RFC 5280, 4.2.1.6), one for each role:
//
//	keyquorum://ROLE/NAME
//
// An authority of one's own works as well as this package's, if its certificates carry such URIs. Who may do what is
// decided by roles alone, so whatever issues certificates must choose these URIs itself, and never let the
// one who asks choose.
package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/keyquorum/keyquorum/internal/subject"
)

const scheme = "keyquorum"

// Role is what the holder of a certificate may be to a cluster.
type Role string

const (
	// Verifier has tokens judged.
	Verifier Role = "verifier"
	// Issuer has tokens issued, and keys rotated, revoked and deleted.
	Issuer Role = "issuer"
	// Operator sees and changes the cluster.
	Operator Role = "operator"
	// Auditor reads the audit chain.
	Auditor Role = "auditor"
	// Node is a member of the cluster.
	Node Role = "node"
)

var roles = []Role{Verifier, Issuer, Operator, Auditor, Node}

// ErrRole says that a text names no role.
var ErrRole = errors.New("unknown role")

// ParseRole gives the role of that name, which is all in lower case. The error wraps ErrRole and quotes the text.
func ParseRole(text string) (Role, error) {
	if role := Role(text); slices.Contains(roles, role) {
		return role, nil
	}
	return "", fmt.Errorf("%w %q: there are %s", ErrRole, text, join(roles))
}

func join(list []Role) string {
	var names []string
	for _, r := range list {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

// CheckName tells what is wrong with a holder's name, or nil. It is the rule for nodes' names everywhere: 1 to 256 bytes
// of UTF-8 without control characters. The error is worded to follow a field's name, and never quotes the name.
func CheckName(name string) error { return subject.Check(name) }

var (
	// ErrNoIdentity says that a certificate has no URI of ours: it is someone's, and no one whom a cluster knows.
	ErrNoIdentity = errors.New("the certificate has no URI of the form keyquorum://ROLE/NAME")
	// ErrIdentity says that a certificate has a URI of ours that cannot be read, or that several contradict each other.
	ErrIdentity = errors.New("the certificate's identity is not acceptable")
)

// Identity is whom a certificate names.
type Identity struct {
	Name string
	// Roles has at least one, each once, in the order in which the constants stand.
	Roles []Role
}

// Has tells whether the holder has a role.
func (i Identity) Has(r Role) bool { return slices.Contains(i.Roles, r) }

// String is for people: the name, quoted, and the roles.
func (i Identity) String() string { return fmt.Sprintf("%q (%s)", i.Name, join(i.Roles)) }

// Identify tells whom a certificate names. It looks at nothing else: that the certificate is genuine and valid has to
// be known already. URIs of other schemes are passed over. The error wraps ErrNoIdentity or ErrIdentity.
func Identify(cert *x509.Certificate) (Identity, error) {
	var id Identity
	texts, err := spelt(cert)
	if err != nil {
		return Identity{}, err
	}
	for i, u := range cert.URIs {
		if u.Scheme != scheme {
			continue
		}
		role, name, err := readURI(u, texts[i])
		if err != nil {
			return Identity{}, fmt.Errorf("%w: %q: %w", ErrIdentity, u, err)
		}
		if len(id.Roles) > 0 && name != id.Name {
			return Identity{}, fmt.Errorf("%w: it has two names, %q and %q", ErrIdentity, id.Name, name)
		}
		id.Name = name
		id.Roles = append(id.Roles, role)
	}
	if len(id.Roles) == 0 {
		return Identity{}, ErrNoIdentity
	}
	id.Roles = ordered(id.Roles)
	return id, nil
}

// altNames is the extension that has a certificate's URIs, and uriTag the tag of each there (RFC 5280, 4.2.1.6).
var altNames = asn1.ObjectIdentifier{2, 5, 29, 17}

const uriTag = 6

// spelt gives the URIs as the certificate has them. Parsing makes some of them alike, such as those in capitals, and who
// issues certificates may go by the text.
func spelt(cert *x509.Certificate) ([]string, error) {
	var texts []string
	for _, e := range cert.Extensions {
		if !e.Id.Equal(altNames) {
			continue
		}
		var names []asn1.RawValue
		if _, err := asn1.Unmarshal(e.Value, &names); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
		}
		for _, n := range names {
			if n.Class == asn1.ClassContextSpecific && n.Tag == uriTag {
				texts = append(texts, string(n.Bytes))
			}
		}
	}
	if len(cert.Extensions) == 0 { // it is not out of a certificate's bytes
		for _, u := range cert.URIs {
			texts = append(texts, u.String())
		}
	}
	if len(texts) != len(cert.URIs) {
		return nil, fmt.Errorf("%w: its URIs cannot be told apart", ErrIdentity)
	}
	return texts, nil
}

// ordered gives each role of a list once, in the order of the constants.
func ordered(list []Role) []Role {
	return slices.DeleteFunc(slices.Clone(roles), func(r Role) bool { return !slices.Contains(list, r) })
}

var (
	errForm     = errors.New("is not of the form keyquorum://ROLE/NAME")
	errExtra    = errors.New("must have no user, port, query or fragment")
	errSegments = errors.New("must have one name behind the role; a slash in it is written %2F")
	errSpelling = errors.New("is not spelt as it should be")
)

// readURI gives what a URI of our scheme, which is spelt as text, says. Each role and name has one spelling (see identityURI), so that what else
// compares the texts comes to no other result.
func readURI(u *url.URL, text string) (Role, string, error) {
	switch {
	case u.Opaque != "" || u.Host == "":
		return "", "", errForm
	case u.User != nil || strings.Contains(u.Host, ":") || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", "", errExtra
	}
	role, err := ParseRole(u.Host)
	if err != nil {
		return "", "", err
	}
	escaped, ok := strings.CutPrefix(u.EscapedPath(), "/")
	if !ok || strings.Contains(escaped, "/") {
		return "", "", errSegments
	}
	name, err := url.PathUnescape(escaped)
	if err != nil {
		return "", "", errSpelling
	}
	if err := CheckName(name); err != nil {
		return "", "", fmt.Errorf("the name %w", err)
	}
	if want := identityURI(role, name).String(); text != want {
		return "", "", fmt.Errorf("%w: %s", errSpelling, want)
	}
	return role, name, nil
}

// identityURI is the URI of a role and a name, with all that is not plain in a path segment (RFC 3986, 3.3) in percent
// encoding.
func identityURI(role Role, name string) *url.URL {
	return &url.URL{Scheme: scheme, Host: string(role), Path: "/" + name, RawPath: "/" + url.PathEscape(name)}
}

package pki

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// The longest DNS name and label in bytes (RFC 1035, 2.3.4).
const maxHost, maxLabel = 253, 63

// CheckHost tells what is wrong with the name or address by which others reach a node, or nil: it must be an IP address
// or a DNS name, without scheme, port, wildcard or zone. The error quotes the host.
func CheckHost(host string) error {
	if err := checkHost(host); err != nil {
		return fmt.Errorf("%q %w", host, err)
	}
	return nil
}

var (
	errWildcard = errors.New("has a wildcard: name each host")
	errHostPort = errors.New("has a port: give the host alone")
	errHostForm = errors.New("is neither a DNS name nor an IP address")
	errNowhere  = errors.New("is no address that others could reach")
)

func checkHost(host string) error {
	if ip, err := netip.ParseAddr(host); err == nil {
		return checkIP(ip)
	}
	if _, err := netip.ParseAddrPort(host); err == nil {
		return errHostPort
	}
	name, port, hasPort := strings.Cut(host, ":")
	switch {
	case strings.Contains(host, "*"):
		return errWildcard
	case hasPort && isDNSName(name) && port != "" && strings.Trim(port, "0123456789") == "":
		return errHostPort
	case !isDNSName(host):
		return errHostForm
	}
	return nil
}

func checkIP(ip netip.Addr) error {
	switch {
	case ip.Zone() != "":
		return errHostForm
	case ip.IsUnspecified():
		return errNowhere
	}
	return nil
}

// isDNSName takes what TLS clients can check a certificate against: also the underscores of compose files' names. What
// ends in a number is a broken address, and no name (RFC 1123, 2.1).
func isDNSName(s string) bool {
	if s == "" || len(s) > maxHost {
		return false
	}
	var last string
	for last = range strings.SplitSeq(s, ".") {
		if last == "" || len(last) > maxLabel || last[0] == '-' || last[len(last)-1] == '-' || strings.ContainsFunc(last, oddInLabel) {
			return false
		}
	}
	return strings.Trim(last, "0123456789") != ""
}

func oddInLabel(r rune) bool {
	return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

package client

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// DefaultPort is that of a node's RPCs.
const DefaultPort = "7400"

// ParseAddress turns the ways of writing a node's address into its URL. HOST:PORT, and HOST with the default
// port, are spoken to in plain HTTP; an IPv6 host with a port goes in brackets. An http or https URL has a host
// and, if it likes, a port, and nothing else. Its errors do not repeat a user name and password.
func ParseAddress(s string) (string, error) {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return "", fmt.Errorf("address at %q: no user name and no @ has a place in it", s[i+1:])
	}
	if strings.Contains(s, "://") {
		return parseURL(s)
	}
	return parseHostPort("http", s)
}

// parse is ParseAddress, with https where no scheme is given and the client speaks TLS. It refuses what the client's
// credentials do not go with.
func (c *config) parse(s string) (string, error) {
	address, err := ParseAddress(s)
	if err != nil {
		return "", err
	}
	if c.tls != nil && !strings.Contains(s, "://") {
		address, err = parseHostPort("https", s)
		return address, err
	}
	return address, c.accepts(s, address)
}

// accepts tells what is wrong with an address, or nil.
func (c *config) accepts(s, address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return err
	case c.tls != nil && u.Scheme == "http":
		return fmt.Errorf("address %q is plain HTTP, and TLS was asked for: write https, or no scheme", s)
	case len(c.tokens) > 0 && !c.readable && isReadable(u):
		return fmt.Errorf("address %q is plain HTTP on another machine, and anyone on the way could read the API token: use TLS", s)
	}
	return nil
}

func parseURL(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", fmt.Errorf("address %q is not a URL: %w", s, errors.Unwrap(err))
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("address %q: the scheme must be http or https", s)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("address %q: nothing may follow the host and port", s)
	}
	return checkHost(s, u.Scheme, u.Hostname(), u.Port())
}

func parseHostPort(scheme, s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"), DefaultPort
		if strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return "", fmt.Errorf("address %q is neither HOST:PORT nor a URL", s)
		}
	}
	if port == "" {
		return "", fmt.Errorf("address %q: the port after the colon is missing", s)
	}
	return checkHost(s, scheme, host, port)
}

func checkHost(s, scheme, host, port string) (string, error) {
	if host == "" || strings.ContainsAny(host, " \t\r\n/\\?#@<>\"") {
		return "", fmt.Errorf("address %q has no host that could be reached", s)
	}
	if port == "" {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return scheme + "://" + host, nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("address %q: the port must be a number from 1 to 65535", s)
	}
	return scheme + "://" + net.JoinHostPort(host, port), nil
}

// parseAddresses parses all of them, drops repeats and names every fault.
func parseAddresses(addrs []string, c *config) ([]string, error) {
	var faults []error
	var urls []string
	for _, a := range addrs {
		u, err := c.parse(a)
		switch {
		case err != nil:
			faults = append(faults, err)
		case !slices.Contains(urls, u):
			urls = append(urls, u)
		}
	}
	if len(addrs) == 0 {
		faults = append(faults, errors.New("no address of a node was given"))
	}
	return urls, errors.Join(faults...)
}

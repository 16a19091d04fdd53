package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// hostPort is an address to listen at; an empty host means all interfaces.
type hostPort string

// hostPorts are addresses of other nodes: flags repeat, or hold several parted by commas.
type hostPorts []string

// everywhere tells whether it means all interfaces, which is nowhere for others.
func (a hostPort) everywhere() bool {
	host, _, err := net.SplitHostPort(string(a))
	ip, notIP := netip.ParseAddr(host)
	return err == nil && (host == "" || notIP == nil && ip.IsUnspecified())
}

func parseHostPort(_ hostPort, given texts) (hostPort, error) {
	return hostPort(given[0]), checkHostPort(given[0])
}

func parseHostPorts(before hostPorts, given texts) (hostPorts, error) {
	for _, list := range given {
		for address := range strings.SplitSeq(list, ",") {
			address = strings.TrimSpace(address)
			if err := checkHostPort(address); err != nil {
				return nil, err
			}
			before = append(before, address)
		}
	}
	return before, nil
}

func checkHostPort(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%s is not HOST:PORT", quoted(address))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%s: the port must be a number from 0 to 65535", quoted(address))
	}
	return nil
}

// isHost tells a name or an address, by which others could reach this machine, from what is neither.
func isHost(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return !ip.IsUnspecified()
	}
	odd := func(r rune) bool {
		return r != '-' && r != '.' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}
	return !strings.ContainsFunc(host, odd)
}

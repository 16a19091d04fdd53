package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// KeySize is the length of Config.Key in bytes.
const KeySize = 32

// DefaultPort is the port of a seed that names none.
const DefaultPort = 7402

// Config is what a Gossip is made of. Listen, NodeID, and Key or Insecure are required.
type Config struct {
	// Listen is the HOST:PORT to bind, for TCP and UDP both. Port 0 lets the system choose.
	Listen string
	// Advertise is the HOST, or HOST:PORT, that other nodes are told to reach this one at. If empty, it is
	// the bound address, or the machine's private one if Listen is 0.0.0.0.
	Advertise string

	// Key encrypts and authenticates all gossip; KeySize bytes, the same on all nodes.
	Key []byte
	// Insecure allows to go without a key: anybody on the network can then read and forge gossip.
	Insecure bool
	// Label keeps clusters apart that share a network; the same on all nodes, at most 255 bytes.
	Label string
	// AllowedNetworks are those that nodes may be in, this one too; any if empty.
	AllowedNetworks []netip.Prefix

	// Seeds are gossip addresses of other nodes, each HOST:PORT or HOST. Names are looked up anew at each
	// attempt and may stand for several nodes. A node's own address does no harm.
	Seeds []string
	// ExtraSeeds returns further seeds that became known in another way; none if nil. It is called at each
	// attempt.
	ExtraSeeds func() []string

	// NodeID is the node's unique id.
	NodeID string
	// Name is what people call the node; may be empty.
	Name string
	// RPCAddress is the HOST:PORT at which other nodes reach this node's RPC. While it is empty, nobody is
	// told to.
	RPCAddress string
	// RaftAddress is the HOST:PORT at which other nodes reach this node's Raft; may be empty.
	RaftAddress string

	// Logger is told what happens, memberlist's own messages included; none if nil.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate names every fault at once.
func (c Config) validate() error {
	var faults []error
	fault := func(field string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("gossip: %s: %w", field, err))
		}
	}
	fault("listen address", checkHostPort(c.Listen))
	fault("key", c.checkKey())
	fault("label", c.checkLabel())
	if c.NodeID == "" {
		fault("node id", errors.New("must not be empty"))
	}
	if c.RPCAddress != "" {
		fault("RPC address", checkAddress(c.RPCAddress))
	}
	if c.RaftAddress != "" {
		fault("Raft address", checkAddress(c.RaftAddress))
	}
	if n := len(c.meta().encode()); n > memberlist.MetaMaxSize {
		fault("name and addresses", fmt.Errorf("too long: %d bytes encoded, at most %d are possible",
			n, memberlist.MetaMaxSize))
	}
	for _, seed := range c.Seeds {
		fault("seed "+strconv.Quote(seed), checkHostPort(withPort(seed, DefaultPort)))
	}
	return errors.Join(faults...)
}

func (c Config) meta() meta {
	return meta{RPCAddress: c.RPCAddress, Name: c.Name, RaftAddress: c.RaftAddress}
}

func (c Config) checkKey() error {
	switch {
	case len(c.Key) == 0 && !c.Insecure:
		return errors.New("missing: without one, anybody on the network can read and forge gossip")
	case len(c.Key) != 0 && len(c.Key) != KeySize:
		return fmt.Errorf("has %d bytes, must have %d", len(c.Key), KeySize)
	}
	return nil
}

func (c Config) checkLabel() error {
	if len(c.Label) > memberlist.LabelMaxSize {
		return fmt.Errorf("has %d bytes, at most %d are possible", len(c.Label), memberlist.LabelMaxSize)
	}
	return nil
}

func checkHostPort(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("must be HOST:PORT: %w", err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q must be a number from 0 to 65535", port)
	}
	return nil
}

// withPort adds a port to an address that is a host alone.
func withPort(addr string, port uint16) string {
	if ip, err := netip.ParseAddr(addr); err == nil {
		return netip.AddrPortFrom(ip, port).String()
	}
	if strings.Contains(addr, ":") {
		return addr
	}
	return net.JoinHostPort(addr, strconv.Itoa(int(port)))
}

// addresses are the config's own, with names looked up. memberlist binds every interface if given a name.
type addresses struct {
	listen    netip.AddrPort
	advertise netip.AddrPort // invalid if not given; port 0 for the bound one
}

func (c Config) resolve() (addresses, error) {
	//nolint:forbidigo // names are looked up once, at the start, where there is no caller's context yet
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var at addresses
	var err error
	if host, port, _ := net.SplitHostPort(c.Listen); host == "" {
		at.listen, err = lookUpOne(ctx, net.JoinHostPort("0.0.0.0", port))
	} else {
		at.listen, err = lookUpOne(ctx, c.Listen)
	}
	if err != nil {
		return addresses{}, fmt.Errorf("gossip: listen address: %w", err)
	}
	if c.Advertise != "" {
		if at.advertise, err = lookUpOne(ctx, withPort(c.Advertise, 0)); err != nil {
			return addresses{}, fmt.Errorf("gossip: advertised address: %w", err)
		}
	}
	return at, c.checkReachable(at)
}

// checkReachable refuses what others could not, or would not, connect to.
func (c Config) checkReachable(at addresses) error {
	ip := at.listen.Addr()
	if at.advertise.IsValid() {
		ip = at.advertise.Addr()
		if ip.IsUnspecified() {
			return fmt.Errorf("gossip: advertised address %s is none that others can reach", ip)
		}
	}
	if ip == netip.IPv6Unspecified() {
		return fmt.Errorf("gossip: listening on %s needs an advertised address", ip)
	}
	if ip.IsUnspecified() || len(c.AllowedNetworks) == 0 {
		return nil
	}
	for _, network := range c.AllowedNetworks {
		if network.Contains(ip) {
			return nil
		}
	}
	return fmt.Errorf("gossip: this node's own address %s is in none of the allowed networks %v", ip, c.AllowedNetworks)
}

// lookUp returns what HOST:PORT stands for.
func lookUp(ctx context.Context, addr string) ([]netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("must be HOST:PORT: %w", err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q must be a number from 0 to 65535", portText)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look up %q: %w", host, err)
	}
	found := make([]netip.AddrPort, 0, len(ips))
	for _, ip := range ips {
		found = append(found, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return found, nil
}

// lookUpOne prefers IPv4, which all nodes of a mixed network can reach.
func lookUpOne(ctx context.Context, addr string) (netip.AddrPort, error) {
	found, err := lookUp(ctx, addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, a := range found {
		if a.Addr().Is4() {
			return a, nil
		}
	}
	if len(found) == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q has no address", addr)
	}
	return found[0], nil
}

func ipNets(prefixes []netip.Prefix) []net.IPNet {
	nets := make([]net.IPNet, 0, len(prefixes))
	for _, p := range prefixes {
		p = p.Masked()
		nets = append(nets, net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	return nets
}

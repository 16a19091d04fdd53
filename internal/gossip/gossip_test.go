package gossip

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func TestNodesFindEachOtherThroughOneSeed(t *testing.T) {
	a := boot(t, "a", nil)
	b := boot(t, "b", nil, a.Addr())
	c := boot(t, "c", nil, a.Addr())
	a.awaits("b", "c")
	b.awaits("a", "c")
	c.awaits("a", "b")
	want := Node{ID: "b", Name: "node b", RPCAddress: "b.example:7400", RaftAddress: "b.example:7401", GossipAddress: b.Addr()}
	if got := a.Nodes(); len(got) != 2 || got[0] != want {
		t.Errorf("Nodes = %+v, want %+v first", got, want)
	}
}

func TestASeedThatComesLater(t *testing.T) {
	first := boot(t, "first", nil)
	addr := first.Addr()
	first.stop()
	b := boot(t, "b", nil, addr, "name.invalid:7402")
	b.log.awaits(t, 1, "no other node was reached")
	a := boot(t, "a", func(c *Config) { c.Listen = addr })
	a.awaits("b")
	b.awaits("a")
	b.log.awaits(t, 1, "reached other nodes")
}

func TestExtraSeedsAreAskedForAgainAndAgain(t *testing.T) {
	var extra atomic.Pointer[string]
	b := boot(t, "b", func(c *Config) {
		c.ExtraSeeds = func() []string {
			if addr := extra.Load(); addr != nil {
				return []string{*addr}
			}
			return nil
		}
	})
	a := boot(t, "a", nil)
	addr := a.Addr()
	extra.Store(&addr)
	b.awaits("a")
	a.awaits("b")
}

func TestItsOwnAddressAmongTheSeedsDoesNoHarm(t *testing.T) {
	a := boot(t, "a", nil)
	addr := a.Addr()
	a.stop()
	a = boot(t, "a", func(c *Config) { c.Listen = addr }, addr)
	b := boot(t, "b", nil, addr)
	a.awaits("b")
	b.awaits("a")
}

func TestAnotherKeyOrLabelIsAnotherCluster(t *testing.T) {
	others := map[string]func(*Config){
		"key":    func(c *Config) { c.Key = bytes.Repeat([]byte{8}, KeySize) },
		"no key": func(c *Config) { c.Key, c.Insecure = nil, true },
		"label":  func(c *Config) { c.Label = "other" },
	}
	for name, change := range others {
		t.Run(name, func(t *testing.T) {
			a := boot(t, "a", nil)
			b := boot(t, "b", change, a.Addr())
			b.log.awaits(t, 1, "no other node was reached")
			b.log.awaits(t, 3, "a node was not reached")
			if len(a.Nodes()) != 0 || len(b.Nodes()) != 0 {
				t.Errorf("they merged: %v, %v", a.Nodes(), b.Nodes())
			}
		})
	}
}

func TestWithoutAKeyIfSaidSo(t *testing.T) {
	open := func(c *Config) { c.Key, c.Insecure = nil, true }
	a := boot(t, "a", open)
	b := boot(t, "b", open, a.Addr())
	a.awaits("b")
	b.awaits("a")
}

// stranger is a node that holds the key but tells what it likes.
type stranger struct {
	self
	meta []byte
}

func (s *stranger) NodeMeta(int) []byte { return s.meta }

func TestNodesThatTellRubbishAreNotProposed(t *testing.T) {
	rubbish := map[string][]byte{
		"nothing":           nil,
		"newer version":     append([]byte{metaVersion + 1}, meta{RPCAddress: "x.example:7400"}.encode()[1:]...),
		"noise":             bytes.Repeat([]byte{metaVersion, 0xff}, 100),
		"unusable address":  meta{RPCAddress: "http://x/"}.encode(),
		"unprintable name":  meta{RPCAddress: "x.example:7400", Name: "a\nb"}.encode(),
		"address of nobody": meta{RPCAddress: ":7400"}.encode(),
	}
	a := boot(t, "a", nil)
	b := boot(t, "b", nil, a.Addr())
	for name, buf := range rubbish {
		t.Run(name, func(t *testing.T) {
			joinAsStranger(t, "stranger "+name, buf, a)
			a.log.awaits(t, 1, `node="stranger `+name)
			a.awaits("b")
		})
	}
	a.awaits("b")
	b.awaits("a")
}

func joinAsStranger(t *testing.T, name string, buf []byte, to *node) {
	t.Helper()
	conf := memberlist.DefaultLocalConfig()
	conf.Name, conf.Label, conf.SecretKey = name, to.cfg.Label, to.cfg.Key
	conf.BindAddr, conf.BindPort = "127.0.0.1", 0
	conf.Delegate = &stranger{meta: buf}
	conf.LogOutput = &logBook{}
	list, err := memberlist.Create(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = list.Shutdown() })
	if _, err := list.Join([]string{to.Addr()}); err != nil {
		t.Fatal(err)
	}
}

// These nodes are far too calm to notice by themselves.
func TestLeavingIsToldToTheOthers(t *testing.T) {
	a := boot(t, "a", nil)
	b := boot(t, "b", nil, a.Addr())
	a.awaits("b")
	b.awaits("a")
	b.stop()
	a.awaits()
}

func TestACrashedNodeComesBackElsewhere(t *testing.T) {
	a := bootNervous(t, "a", nil)
	b := bootNervous(t, "b", nil, a.Addr())
	c := bootNervous(t, "c", nil, a.Addr())
	c.awaits("a", "b")
	if err := b.Close(); err != nil { // without a word
		t.Fatal(err)
	}
	a.awaits("c")
	c.awaits("a")
	b.stop()
	b = bootNervous(t, "b", func(c *Config) { c.RPCAddress = "elsewhere.example:7400" }, a.Addr())
	c.awaitsPeers("a.example:7400", "elsewhere.example:7400")
	b.awaits("a", "c")
}

func TestPartedHalvesFindEachOtherAgain(t *testing.T) {
	a := bootNervous(t, "a", nil)
	b := bootNervous(t, "b", nil, a.Addr())
	c := bootNervous(t, "c", nil, a.Addr())
	d := bootNervous(t, "d", nil, c.Addr())
	all := []*node{a, b, c, d}
	a.awaits("b", "c", "d")
	d.awaits("a", "b", "c")
	part(all[:2], all[2:])
	a.awaits("b")
	b.awaits("a")
	c.awaits("d")
	d.awaits("c")
	heal(all...)
	a.awaits("b", "c", "d")
	b.awaits("a", "c", "d")
	c.awaits("a", "b", "d")
	d.awaits("a", "b", "c")
}

// The founder knows no seed, and nobody else's seeds name the others: only what was there once helps.
func TestWithoutSeedsMissingNodesAreSoughtWhereTheyWere(t *testing.T) {
	a := bootNervous(t, "a", nil)
	var seed atomic.Pointer[string]
	addr := a.Addr()
	seed.Store(&addr)
	b := bootNervous(t, "b", func(c *Config) {
		c.ExtraSeeds = func() []string {
			if s := seed.Swap(nil); s != nil { // told once
				return []string{*s}
			}
			return nil
		}
	})
	a.awaits("b")
	b.awaits("a")
	part([]*node{a}, []*node{b})
	a.awaits()
	b.awaits()
	heal(a, b)
	a.awaits("b")
	b.awaits("a")
}

func TestWhoGivesNoAddressIsNotProposed(t *testing.T) {
	a := boot(t, "a", nil)
	b := boot(t, "b", func(c *Config) { c.RPCAddress, c.RaftAddress = "", "" }, a.Addr())
	b.awaits("a")
	a.awaitsThat(func() bool { return len(a.Nodes()) == 1 }, "b")
	if len(a.Peers()) != 0 {
		t.Errorf("a node without RPC address is proposed: %v", a.Peers())
	}
	if address, ok := a.RaftAddress("b"); ok {
		t.Errorf("a node without Raft address has %q", address)
	}
	if address, ok := b.RaftAddress("a"); !ok || address != "a.example:7401" {
		t.Errorf("the Raft address of a: %q, %v", address, ok)
	}
	a.stop()
	b.awaits()
	if address, ok := b.RaftAddress("a"); ok {
		t.Errorf("a node that left has %q", address)
	}
}

func TestAddressesThatNobodyCanReachAreRefused(t *testing.T) {
	for _, bad := range []string{"", "host", "host:0", ":7400", "host:port", "ho st:7400"} {
		if err := checkAddress(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestANodeIsNotItsOwnPeer(t *testing.T) {
	a := boot(t, "a", nil)
	b := boot(t, "reborn", func(c *Config) { c.RPCAddress = "a.example:7400" }, a.Addr())
	c := boot(t, "c", nil, a.Addr())
	c.awaits("a")
	a.awaits("c")
	b.awaits("c")
}

func TestAllowedNetworks(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	a := boot(t, "a", func(c *Config) { c.AllowedNetworks = loopback })
	b := boot(t, "b", func(c *Config) { c.AllowedNetworks = loopback }, a.Addr())
	a.awaits("b")
	b.awaits("a")
	_, err := New(Config{
		Listen: "127.0.0.1:0", Insecure: true, NodeID: "c",
		AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	})
	if err == nil || !strings.Contains(err.Error(), "own address 127.0.0.1") {
		t.Errorf("err = %v", err)
	}
}

func TestRunEndsAlthoughASeedIsSilent(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	accepted := make(chan struct{})
	go func() {
		if conn, err := silent.Accept(); err == nil {
			defer conn.Close()
			close(accepted)
			_, _ = conn.Read(make([]byte, 1<<20))
			_, _ = conn.Read(make([]byte, 1))
		}
	}()
	slow := quickPace
	g, err := start(Config{
		Listen: "127.0.0.1:0", Insecure: true, NodeID: "a", Seeds: []string{silent.Addr().String()},
	}, slow, func(conf *memberlist.Config) { conf.TCPTimeout = time.Hour })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	<-accepted
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Run waits for the seed")
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	a := boot(t, "a", nil)
	b := boot(t, "b", nil, a.Addr(), "127.0.0.1:1")
	a.awaits("b")
	b.awaits("a")
	a.stop()
	b.stop()
	noneLeft(t)
	if l, err := net.Listen("tcp", a.Addr()); err != nil {
		t.Errorf("the address is still taken: %v", err)
	} else {
		l.Close()
	}
}

func TestCloseWithoutRun(t *testing.T) {
	g, err := New(Config{Listen: "127.0.0.1:0", Insecure: true, NodeID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := g.Run(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	noneLeft(t)
}

func TestANameToListenOnIsNotEveryInterface(t *testing.T) {
	g, err := New(Config{Listen: "localhost:0", Insecure: true, NodeID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if addr := netip.MustParseAddrPort(g.own); !addr.Addr().IsLoopback() {
		t.Errorf("it is reached at %v", addr)
	}
	if host, _, _ := net.SplitHostPort(g.Addr()); host != "localhost" {
		t.Errorf("Addr = %v", g.Addr())
	}
}

func TestAdvertise(t *testing.T) {
	for advertise, want := range map[string]string{
		"localhost": "127.0.0.1:", "127.0.0.2": "127.0.0.2:", "127.0.0.3:99": "127.0.0.3:99", "::1": "[::1]:",
	} {
		g, err := New(Config{Listen: "0.0.0.0:0", Advertise: advertise, Insecure: true, NodeID: "a"})
		if err != nil {
			t.Errorf("%s: %v", advertise, err)
			continue
		}
		if !strings.HasPrefix(g.own, want) || strings.HasSuffix(g.own, ":0") {
			t.Errorf("%s: advertised as %s", advertise, g.own)
		}
		g.Close()
	}
}

func TestEveryFaultOfAConfigIsNamed(t *testing.T) {
	_, err := New(Config{
		Listen: "nowhere", Label: strings.Repeat("x", 256), Key: []byte("short"),
		RPCAddress: "host", RaftAddress: "host", Name: strings.Repeat("n", 600), Seeds: []string{"a:b:c", "host:99999"},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{
		"listen address", "label", "has 5 bytes", "node id", "RPC address", "Raft address", "too long", `seed "a:b:c"`, `seed "host:99999"`,
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not named in:\n%v", part, err)
		}
	}
	if _, err := New(Config{Listen: "127.0.0.1:0", NodeID: "a"}); err == nil || !strings.Contains(err.Error(), "key") {
		t.Errorf("no key: %v", err)
	}
	for _, advertise := range []string{"0.0.0.0", "name.invalid", "a:b:c"} {
		if _, err := New(Config{Listen: "127.0.0.1:0", Advertise: advertise, Insecure: true, NodeID: "a"}); err == nil {
			t.Errorf("advertising %q was accepted", advertise)
		}
	}
}

func TestTheLongestGoneAreForgotten(t *testing.T) {
	r := newRoster("self", slog.New(slog.DiscardHandler))
	for i := range maxGone + 10 {
		r.NotifyLeave(&memberlist.Node{Name: string(rune('A' + i)), Addr: net.IPv4(10, 0, 0, byte(i)), Port: 1})
	}
	if got := r.missing(); len(got) != maxGone || slices.Contains(got, "10.0.0.0:1") {
		t.Errorf("%d are remembered: %v", len(got), got)
	}
}

// Whoever holds the port open shuts nobody out for long, and fills no log.
func TestStrangersAtTheDoorAreFew(t *testing.T) {
	a := boot(t, "a", nil)
	var strangers []net.Conn
	for range 3 * maxStreams {
		c, err := net.Dial("tcp", a.Addr())
		if err != nil {
			t.Fatal(err)
		}
		strangers = append(strangers, c)
	}
	turnedAway, until := 0, time.Now().Add(500*time.Millisecond) // memberlist is more patient with them
	for _, c := range strangers {                                // those that came first are the ones
		if err := c.SetReadDeadline(until); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			turnedAway++
		}
	}
	if turnedAway < 2*maxStreams {
		t.Errorf("%d of %d strangers were turned away, want %d", turnedAway, len(strangers), 2*maxStreams)
	}
	b := boot(t, "b", nil, a.Addr()) // while the others are there still
	b.awaits("a")
	a.awaits("b")
	for _, c := range strangers {
		c.Close()
	}
}

package gossip

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// patience is how long a test waits for what must come. It is no measure of speed.
const patience = 30 * time.Second

var quickPace = pace{
	retryMin: 5 * time.Millisecond, retryMax: 20 * time.Millisecond, heal: 20 * time.Millisecond,
	resolve: time.Second, reclaim: time.Millisecond, farewell: time.Second,
}

// node is a running Gossip of a test.
type node struct {
	*Gossip
	t    *testing.T
	net  *cable
	log  *logBook
	stop func() // ends Run, and waits for it; again is fine
}

// boot starts a node on loopback that tries often, but is in no hurry to call others dead. The seeds are other
// nodes' addresses.
func boot(t *testing.T, id string, change func(*Config), seeds ...string) *node {
	t.Helper()
	return bootAs(t, id, calm, change, seeds)
}

// bootNervous starts a node that soon notices that others are gone, and may be wrong about it.
func bootNervous(t *testing.T, id string, change func(*Config), seeds ...string) *node {
	t.Helper()
	return bootAs(t, id, nervous, change, seeds)
}

func calm(conf *memberlist.Config) { conf.ProbeInterval = time.Hour }

func nervous(conf *memberlist.Config) {
	conf.ProbeInterval = 50 * time.Millisecond
	conf.ProbeTimeout = 25 * time.Millisecond
	conf.SuspicionMult = 2
	conf.AwarenessMaxMultiplier = 1
	conf.GossipToTheDeadTime = time.Nanosecond // as after a parting of hours
}

func bootAs(t *testing.T, id string, mood func(*memberlist.Config), change func(*Config), seeds []string) *node {
	t.Helper()
	n := &node{t: t, net: &cable{}, log: &logBook{}}
	cfg := Config{
		Listen: "127.0.0.1:0", Key: bytes.Repeat([]byte{7}, KeySize), Label: "test", Seeds: seeds,
		NodeID: id, Name: "node " + id, RPCAddress: id + ".example:7400", RaftAddress: id + ".example:7401",
		Logger: slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	g, err := startOnce(t, cfg, func(conf *memberlist.Config) {
		n.tune(conf)
		mood(conf)
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Gossip = g
	// Not t.Context(), which ends all nodes at once: then each waits in vain for somebody to take leave of.
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: Run: %v", id, err)
			}
		case <-time.After(patience):
			t.Fatalf("%s: Run does not end", id)
		}
	})
	t.Cleanup(n.stop)
	return n
}

func (n *node) tune(conf *memberlist.Config) {
	conf.GossipInterval = 10 * time.Millisecond
	conf.TCPTimeout = time.Second
	n.net.NodeAwareTransport = conf.Transport.(memberlist.NodeAwareTransport)
	conf.Transport = n.net
}

// awaits waits, at each change, until the node's peers are the ones of these ids.
func (n *node) awaits(ids ...string) {
	n.t.Helper()
	var want []string
	for _, id := range ids {
		want = append(want, id+".example:7400")
	}
	n.awaitsPeers(want...)
}

func (n *node) awaitsPeers(want ...string) {
	n.t.Helper()
	n.awaitsThat(func() bool { return slices.Equal(n.Peers(), want) }, want)
}

func (n *node) awaitsThat(ok func() bool, want any) {
	n.t.Helper()
	end := time.After(patience)
	for !ok() {
		select {
		case <-n.Changed():
		case <-end:
			n.t.Fatalf("%s: knows %+v, want %v\n%s", n.cfg.NodeID, n.Nodes(), want, n.log)
		}
	}
}

// startOnce starts a node, once its port is free: somebody else on this machine may have it for a moment.
func startOnce(t *testing.T, cfg Config, tune func(*memberlist.Config)) (*Gossip, error) {
	t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for end := time.After(patience); ; {
		g, err := start(cfg, quickPace, tune)
		if err == nil || !strings.Contains(err.Error(), "address already in use") {
			return g, err
		}
		select {
		case <-again.C:
		case <-end:
			return nil, err
		}
	}
}

// cable is a node's way to the network, which tests can pull.
type cable struct {
	memberlist.NodeAwareTransport
	mu   sync.Mutex
	dead map[string]bool // addresses that cannot be reached
}

func (c *cable) cut(addrs ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = make(map[string]bool)
	for _, a := range addrs {
		c.dead[a] = true
	}
}

func (c *cable) isCut(addr string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead[addr]
}

var errCut = errors.New("network is parted")

func (c *cable) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if c.isCut(a.Addr) {
		return time.Now(), nil // a lost packet
	}
	return c.NodeAwareTransport.WriteToAddress(b, a)
}

func (c *cable) WriteTo(b []byte, addr string) (time.Time, error) {
	return c.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (c *cable) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if c.isCut(a.Addr) {
		return nil, errCut
	}
	return c.NodeAwareTransport.DialAddressTimeout(a, timeout)
}

func (c *cable) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return c.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// part cuts the network between two groups.
func part(left, right []*node) {
	for _, n := range left {
		n.net.cut(addrs(right)...)
	}
	for _, n := range right {
		n.net.cut(addrs(left)...)
	}
}

func heal(nodes ...*node) {
	for _, n := range nodes {
		n.net.cut()
	}
}

func addrs(nodes []*node) []string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Addr())
	}
	return out
}

// logBook is a log that tests can wait on.
type logBook struct {
	mu    sync.Mutex
	lines bytes.Buffer
	news  chan struct{}
}

func (l *logBook) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.news != nil {
		close(l.news)
		l.news = nil
	}
	return l.lines.Write(line)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.String()
}

func (l *logBook) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.news == nil {
		l.news = make(chan struct{})
	}
	return l.news
}

// awaits waits until the text was logged n times.
func (l *logBook) awaits(t *testing.T, n int, text string) {
	t.Helper()
	end := time.After(patience)
	for {
		news := l.next()
		if strings.Count(l.String(), text) >= n {
			return
		}
		select {
		case <-news:
		case <-end:
			t.Fatalf("%q was not logged %d times:\n%s", text, n, l)
		}
	}
}

// noneLeft waits until no goroutine runs code of memberlist or of this package, this one excluded.
func noneLeft(t *testing.T) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		left := goroutines()
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
		}
		runtime.Gosched()
	}
}

func goroutines() []string {
	buf := make([]byte, 1<<20)
	all := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	return slices.DeleteFunc(all, func(stack string) bool {
		ours := strings.Contains(stack, "hashicorp/memberlist.") || strings.Contains(stack, "internal/gossip.")
		return !ours || strings.Contains(stack, "testing.tRunner(")
	})
}

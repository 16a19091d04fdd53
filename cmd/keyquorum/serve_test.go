package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// lines is a stderr that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newLines() *lines { return &lines{more: make(chan struct{}, 1)} }

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits until a line matches, and gives what the pattern's groups found in it.
func (l *lines) await(t *testing.T, pattern string) []string {
	t.Helper()
	want := regexp.MustCompile(pattern)
	deadline := time.After(20 * time.Second)
	for {
		if found := want.FindStringSubmatch(l.String()); found != nil {
			return found[1:]
		}
		select {
		case <-l.more:
		case <-deadline:
			t.Fatalf("no line matches %s in\n%s", pattern, l)
		}
	}
}

// served is a "keyquorum serve" that runs in this process.
type served struct {
	rpc, gossip, probes string
	log                 *lines
	stop                context.CancelFunc
	exit                chan int
}

// serveNode starts a node on free ports of loopback.
func serveNode(t *testing.T, dir, name string, more ...string) *served {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	n := &served{log: newLines(), stop: stop, exit: make(chan int, 1)}
	args := append([]string{
		"serve", "--insecure", "--name", name, "--data-dir", filepath.Join(dir, name), "--keyring", filepath.Join(dir, "keyring"),
		"--listen", "127.0.0.1:0", "--raft-listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0", "--probe-listen", "127.0.0.1:0",
	}, more...)
	env := func(string) (string, bool) { return "", false }
	go func() { n.exit <- run(ctx, args, strings.NewReader(""), new(bytes.Buffer), n.log, env) }()
	t.Cleanup(func() { n.end(t) })
	found := n.log.await(t, `"?keyquorum starts"? name=`+name+` id=\S+ version=\S+ rpc=(\S+) raft=\S+ gossip=(\S+) data-dir=\S+ probes=(\S+)`)
	n.rpc, n.gossip, n.probes = found[0], found[1], found[2]
	return n
}

// end stops the node as SIGTERM does, once.
func (n *served) end(t *testing.T) {
	t.Helper()
	if n.stop == nil {
		return
	}
	n.stop()
	n.stop = nil
	select {
	case code := <-n.exit:
		if code != 0 {
			t.Errorf("a node that was stopped exits %d:\n%s", code, n.log)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("a node that was stopped runs on:\n%s", n.log)
	}
}

func TestThreeNodesByHand(t *testing.T) {
	dir := t.TempDir()
	here := &shell{t: t}
	here.must(0, "keyring", "init", filepath.Join(dir, "keyring"))
	n1 := serveNode(t, dir, "n1", "--region", "eu")
	wants(t, at(t, n1.probes).must(1, "health").out, "in no cluster yet")
	wants(t, at(t, n1.probes).must(0, "health", "--live").out, "ok")
	n2 := serveNode(t, dir, "n2", "--join", n1.gossip, "--log-format", "text")
	n3 := serveNode(t, dir, "n3", "--join", n1.gossip+","+n2.gossip)
	first, second, third := at(t, n1.rpc), at(t, n2.rpc), at(t, n3.rpc)

	all := at(t, strings.Join([]string{n1.rpc, n2.rpc, n3.rpc}, ","))
	wants(t, all.must(0, "cluster", "init", "--wait", "20s", "--default-ttl", "10m").out, "Founded cluster ")
	for _, n := range []*served{n1, n2, n3} { // the others have joined by themselves, and were waited for
		wants(t, at(t, n.probes).must(0, "health").out, "ok")
		wants(t, at(t, n.rpc).must(0, "cluster", "init").out, "already")
	}
	wants(t, third.must(0, "cluster", "settings", "get").out, "default-ttl        10m0s", "mode               overlap", "forget-after       never", "leader-region      anywhere", "max-staleness      5s")
	token := strings.TrimSpace(second.must(0, "issue", "ada").out)
	for _, n := range []*served{n1, n2, n3} {
		awaitVerdict(t, at(t, n.rpc), token, 0)
	}
	wants(t, second.must(0, "cluster", "settings", "set", "--mode", "strict", "--wanted-voters", "3").out, "mode               strict")
	wants(t, first.must(2, "cluster", "settings", "set").errors, "at least one setting")
	wants(t, first.must(2, "cluster", "settings", "set", "--mode", "lax").errors, "neither overlap nor strict")
	wants(t, first.must(1, "cluster", "settings", "set", "--min-ttl", "48h").errors, "settings.maxTtl: must not be below")

	wants(t, first.must(0, "cluster", "settings", "set", "--leader-region", "eu").out, "leader-region      eu")
	wants(t, first.must(0, "cluster", "settings", "set", "--leader-region=").out, "leader-region      anywhere")
	wants(t, first.must(1, "cluster", "settings", "set", "--max-staleness", "10s").errors, "settings.maxStaleness: is set when the cluster is founded")

	awaitVoters(t, first, 3)
	wants(t, first.must(0, "cluster", "members").out, "n1    leader  eu", "n2    voter", "n3    voter")
	wants(t, first.must(0, "cluster", "transfer-leadership", "n2").out, "leader: n2")
	awaitLine(t, third, "n2    leader", "cluster", "members")
	wants(t, first.must(1, "cluster", "transfer-leadership", "nobody").errors, "no such member")
	wants(t, first.must(0, "cluster", "remove", "n3").out, "n3: removed")
	awaitLine(t, &shell{t: t}, "removed from its cluster", "health", "--addr", n3.probes)
	wants(t, first.must(1, "cluster", "remove", "n3").errors, "no such member")

	wants(t, n1.log.String(), "insecure: ")
	for _, n := range []*served{n3, n2, n1} {
		n.end(t)
		wants(t, n.log.String(), "stopped in good order")
		if strings.Contains(n.log.String(), token) {
			t.Error("a log holds a token")
		}
	}
	wants(t, at(t, n1.probes).must(3, "health").errors, "connection refused")
}

func awaitVerdict(t *testing.T, sh *shell, token string, code int) {
	t.Helper()
	awaitThat(t, func() bool { return sh.run("verify", token).code == code })
}

func awaitVoters(t *testing.T, sh *shell, voters int) {
	t.Helper()
	awaitThat(t, func() bool {
		out := sh.run("cluster", "members").out
		return strings.Count(out, " voter ")+strings.Count(out, " leader ") == voters
	})
}

// awaitLine runs a command again and again until it prints the text.
func awaitLine(t *testing.T, sh *shell, text string, args ...string) {
	t.Helper()
	awaitThat(t, func() bool { r := sh.run(args...); return strings.Contains(r.out+r.errors, text) })
}

func awaitThat(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited 20 s in vain")
		}
	}
}

func TestServeTellsAllThatIsWrongAtOnce(t *testing.T) {
	r := (&shell{t: t}).must(2, "serve", "--listen", "nowhere", "--raft-listen", ":7401", "--name", "a\nb", "--log-level", "loud",
		"--log-format", "xml", "--join", "one:1,two", "--region", "\x01", "--advertise", "http://n1", "--snapshot-interval", "10ms", "--timing", "moon")
	wants(t, r.errors,
		`--listen: "nowhere" is not HOST:PORT`,
		`--log-level: "loud" is none of debug, info, warn, error`, `--log-format: "xml" is neither text nor json`,
		`--join: "two" is not HOST:PORT`, "--name: must not contain control characters", "--region: must not",
		"--data-dir: ", "--keyring: ", `--advertise: "http://n1" is no host`, "--tls-cert, --tls-key, --tls-ca: are missing", "--insecure starts without TLS",
		"--snapshot-interval: must not be shorter than 1s", `--timing: "moon" is neither lan nor wan`,
	)
	r = (&shell{t: t}).must(2, "serve", "--insecure", "--data-dir", "d", "--keyring", "k", "--raft-listen", ":7401", "--gossip-listen", "[::]:7402")
	wants(t, r.errors, "--raft-listen: :7401 is no address that other members could reach", "--gossip-listen: [::]:7402 is no address")
	if strings.Contains(r.errors, "--listen") {
		t.Error(r.errors)
	}
}

func TestAClusterOverAWANIsFoundedWithAWiderBound(t *testing.T) {
	dir := t.TempDir()
	(&shell{t: t}).must(0, "keyring", "init", filepath.Join(dir, "keyring"))
	n1 := serveNode(t, dir, "n1", "--config", settingsIn(t, "region: eu\ntiming: wan\n"))
	here := at(t, n1.rpc)
	wants(t, here.must(1, "cluster", "init", "--max-staleness", "5s").errors, "settings.maxStaleness: must be at least 20s: 10 times this node's heartbeat")
	here.must(0, "cluster", "init", "--wait", "20s", "--leader-region", "eu")
	wants(t, here.must(0, "cluster", "settings", "get").out, "leader-region      eu", "max-staleness      20s")
}

func TestServeSaysWhyItCannotStart(t *testing.T) {
	dir := t.TempDir()
	keyring, data := filepath.Join(dir, "keyring"), filepath.Join(dir, "data")
	args := []string{"serve", "--insecure", "--listen", "127.0.0.1:0", "--raft-listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0", "--data-dir", data}
	here := &shell{t: t}
	start := func(more ...string) result { return here.must(1, slices.Concat(args, more)...) }
	wants(t, start("--keyring", keyring).errors, "there is no keyring at "+keyring, "keyquorum keyring init")
	here.must(0, "keyring", "init", keyring)
	if err := os.Chmod(keyring, 0o644); err != nil {
		t.Fatal(err)
	}
	wants(t, start("--keyring", keyring).errors, keyring, "chmod 600")
	if err := os.Chmod(keyring, 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	wants(t, start("--keyring", keyring, "--listen", taken.Addr().String()).errors, "listen for requests", "address already in use")
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wants(t, start("--keyring", keyring, "--data-dir", filepath.Join(dir, "file")).errors, "file")
	wants(t, start("--keyring", "env:NOTHING_HERE").errors, "environment variable NOTHING_HERE is empty or not set")
}

func TestSettingsOfAServerCanComeFromAFile(t *testing.T) {
	dir := t.TempDir()
	here := &shell{t: t}
	here.must(0, "keyring", "init", filepath.Join(dir, "keyring"))
	file := settingsIn(t, fmt.Sprintf("insecure: true\nregion: us\nkeyring: %s/keyring\nreplica: yes-please\n", dir))
	wants(t, here.must(2, "serve", "--config", file, "--data-dir", dir).errors, file+`:4: replica: "yes-please" is neither true nor false`)
}

func TestHealthIsAboutOneNode(t *testing.T) {
	wants(t, at(t, "a:1,b:2").must(2, "health").errors, "several nodes")
	wants(t, at(t, (&fakeNode{}).serve(t)).must(3, "health").errors, "answers 404")
}

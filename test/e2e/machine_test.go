//go:build unix

package e2e_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/e2e"
)

// survives has a cluster write, lose all its processes, start again and write on.
func survives(t *testing.T, c *e2e.Cluster) {
	t.Helper()
	c.Found()
	api, acknowledged := c.Client(), e2e.NewLedger()
	write(t, acknowledged, api, "before", 30)
	acknowledged.Check(t, c.Nodes...)
	for _, n := range c.Nodes {
		n.Kill()
	}
	for _, n := range c.Nodes {
		n.Start()
	}
	write(t, acknowledged, api, "after", 10)
	acknowledged.Check(t, c.Nodes...)
}

func TestTimesAreTheSameInEveryTimeZone(t *testing.T) {
	t.Parallel()
	c := e2e.New(t, 3)
	for i, zone := range []string{"Pacific/Kiritimati", "America/St_Johns", ":no/such/zone"} {
		c.Nodes[i].Env = []string{"TZ=" + zone}
	}
	survives(t, c)
	for i, n := range c.Nodes {
		res, err := n.API().Issue(t.Context(), &v1.IssueRequest{Subject: "ada"})
		if err != nil {
			t.Fatal(err)
		}
		if off := time.Since(res.GetIssuedAt().AsTime()).Abs(); off > 5*time.Second {
			t.Errorf("%s dates a token %s off", n.Name, off)
		}
		var at time.Time
		e2e.Await(t, "a record of the token at "+n.Name, func() bool {
			times := recorded(t, n, "ada")
			if len(times) > i {
				at = times[i]
			}
			return len(times) > i
		})
		if off := at.Sub(res.GetIssuedAt().AsTime()).Abs(); off > time.Second {
			t.Errorf("%s has the token on record at %s, which is %s off", n.Name, at, off)
		}
	}
}

// recorded gives the times of a subject's issued tokens in a node's audit file, which has to have them in UTC.
func recorded(t *testing.T, n *e2e.Node, subject string) (times []time.Time) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.Dir, "audit", "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			var r struct{ Time, Kind, Subject string }
			if json.Unmarshal(line, &r) != nil || r.Kind != "TOKEN_ISSUED" || r.Subject != subject {
				continue // a line may be under way
			}
			at, err := time.Parse("2006-01-02T15:04:05.000Z", r.Time)
			if err != nil {
				t.Fatalf("%s has the time %q: %v", n.Name, r.Time, err)
			}
			times = append(times, at)
		}
	}
	return times
}

// What a node makes is its owner's alone, whatever the umask would let through or forbid.
func TestTheUmaskOpensNothing(t *testing.T) {
	t.Parallel()
	for _, mask := range []string{"000", "077"} {
		t.Run(mask, func(t *testing.T) {
			t.Parallel()
			c := e2e.New(t, 1)
			n := c.Nodes[0]
			n.Setup = "umask " + mask
			n.Flags = []string{"--snapshot-threshold", "10", "--trailing-logs", "1", "--snapshot-interval", "1s"}
			if err := os.Mkdir(n.Dir, 0o755); err != nil { // as operators do
				t.Fatal(err)
			}
			survives(t, c)
			api, acknowledged := c.Client(), e2e.NewLedger()
			e2e.Await(t, "a snapshot", func() bool {
				write(t, acknowledged, api, "more", 1)
				return newestSnapshot(t, n) != ""
			})
			n.Kill()
			checkClosed(t, n.Dir)
			n.Start()
			c.Leader()
			acknowledged.Check(t, n)
		})
	}
}

// checkClosed looks at all in a folder that others could get at, given that they can read the folder itself: there is to be
// nothing.
func checkClosed(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("others can get at %s (%s)", path, info.Mode())
		}
		if entry.IsDir() && info.Mode().Perm()&0o077 == 0 {
			return fs.SkipDir // with all that is in it
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestALowLimitOnOpenFilesIsKeptTo(t *testing.T) {
	t.Parallel()
	c := e2e.New(t, 3)
	for _, n := range c.Nodes {
		n.Setup = "ulimit -n 256"
	}
	c.Found()
	n := c.Followers()[0]
	for range 400 { // more than there are file descriptors
		conn, err := net.Dial("tcp", n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	api, acknowledged := c.Client(), e2e.NewLedger()
	write(t, acknowledged, api, "user", 30)
	acknowledged.Check(t, c.Nodes...)
	if !strings.Contains(n.Log(), "the limit on open files is low") {
		t.Error("the node does not say that the limit is low")
	}
	if strings.Contains(n.Log(), "too many open files") {
		t.Error("the node ran into the limit")
	}
}

// A node listens everywhere, and says where others find it: at loopback, or at the machine's own address.
func TestANodeThatListensEverywhereSaysWhereItIs(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"127.0.0.1", ownAddress(t)} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			if host == "" {
				t.Skip("this machine has no address but loopback")
			}
			c := e2e.New(t, 3)
			for _, n := range c.Nodes {
				n.Host = "0.0.0.0"
				n.Flags = []string{"--advertise", host}
			}
			survives(t, c)
			for _, m := range c.Members() {
				if !strings.HasPrefix(m.GetRpcAddress(), host+":") {
					t.Errorf("%s is said to be at %s, want a port of %s", m.GetName(), m.GetRpcAddress(), host)
				}
			}
			said := regexp.MustCompile(`keyquorum starts" .* rpc=0\.0\.0\.0:\d+` +
				` raft=0\.0\.0\.0:\d+ gossip=0\.0\.0\.0:\d+ .* advertise=` + regexp.QuoteMeta(host) + ` `)
			if log := c.Nodes[0].Log(); !said.MatchString(log) {
				t.Errorf("it does not say where it listens and what others are told:\n%.300s", log)
			}
		})
	}
}

// ownAddress is an IPv4 address of this machine that is none of loopback; empty if there is none.
func ownAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if ip, _, err := net.ParseCIDR(a.String()); err == nil && ip.To4() != nil && ip.IsGlobalUnicast() {
			return ip.String()
		}
	}
	return ""
}

func TestADirectoryThatCannotBeWrittenToIsRefused(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		t.Skip("root writes everywhere; the read-only mount is for root")
	}
	c := e2e.Start(t, 1)
	n := c.Nodes[0]
	n.Kill()
	if err := os.Chmod(n.Dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(n.Dir, 0o700) })
	if err := os.Chmod(filepath.Join(n.Dir, "lock"), 0o400); err != nil {
		t.Fatal(err)
	}
	if said := n.Refuses(); !strings.Contains(said, "cannot be written to") {
		t.Errorf("it says\n%s", said)
	}
}

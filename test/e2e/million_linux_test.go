package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/internal/boltstore"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/e2e"
)

// users is how many TestMillion issues tokens to: "make million" says.
var users = flag.Int("users", 0, "users of TestMillion; 0 leaves it out")

const (
	millionCallers = 256
	// millionTTL keeps keys from being rotated while they are counted.
	millionTTL = 24 * time.Hour
)

// written is when a write was asked for and answered.
type written struct{ begun, ended time.Time }

// shot is a snapshot that was taken: its name begins with its term and index, and ends with when it began.
type shot struct {
	name         string
	begun, ended time.Time
	bytes        int64
}

// A million users, all of them logged in at once, on three nodes. The figures are in docs/PERFORMANCE.md.
func TestMillion(t *testing.T) {
	if *users == 0 {
		t.Skip("takes many minutes: make million")
	}
	c := e2e.New(t, 3)
	for _, n := range c.Nodes {
		n.Flags = []string{"--snapshot-interval", "15s", "--snapshot-threshold", "4096", "--trailing-logs", "4096"}
	}
	c.Found()
	var resident []int64
	for _, n := range c.Nodes {
		resident = append(resident, memory(t, n, "VmRSS"))
	}
	shots := make(map[*e2e.Node]func() []shot)
	for _, n := range c.Nodes {
		shots[n] = watchSnapshots(t, n)
	}
	begun := time.Now()
	writes := issueToAll(t, c.Client())
	took := time.Since(begun)
	t.Logf("%d users in %s, %.0f a second, %d callers: %s", *users, took.Round(time.Second),
		float64(*users)/took.Seconds(), millionCallers, e2e.Spread(durations(writes)))
	awaitUsers(t, c)
	for i, n := range c.Nodes {
		tellSnapshots(t, n, shots[n](), writes)
		t.Logf("%s: %d B/user resident, %d B/user at its peak; on disk %d B/user, of it log %d, audit files %d", n.Name,
			(memory(t, n, "VmRSS")-resident[i])/int64(*users), memory(t, n, "VmHWM")/int64(*users),
			size(t, n.Dir)/int64(*users), size(t, filepath.Join(n.Dir, "raft.db"))/int64(*users),
			size(t, filepath.Join(n.Dir, "audit"))/int64(*users))
	}
	t.Logf("led by %s, in term %d", c.Leader().Name, c.Leader().AwaitReady().GetTerm())
	restart(t, c)
}

// issueToAll issues one token to each user, many at a time, and gives when.
func issueToAll(t *testing.T, api *client.Client) []written {
	t.Helper()
	writes := make([]written, *users)
	var next atomic.Int64
	var all sync.WaitGroup
	for range millionCallers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(writes) && !t.Failed(); i = int(next.Add(1)) - 1 {
				begun := time.Now()
				if err := issueOne(t.Context(), api, i); err != nil {
					t.Error(err)
				}
				writes[i] = written{begun, time.Now()}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return writes
}

func issueOne(ctx context.Context, api *client.Client, i int) error {
	_, err := api.Issue(ctx, &v1.IssueRequest{Subject: fmt.Sprintf("user-%08d", i), Ttl: durationpb.New(millionTTL)})
	return err
}

func durations(writes []written) []time.Duration {
	var took []time.Duration
	for _, w := range writes {
		took = append(took, w.ended.Sub(w.begun))
	}
	return took
}

// watchSnapshots follows a node's snapshots, of which it keeps two. What it gives ends that, and gives them all.
func watchSnapshots(t *testing.T, n *e2e.Node) func() []shot {
	ctx, stop := context.WithCancel(t.Context())
	var seen []shot
	var watching sync.WaitGroup
	look := func() {
		for _, s := range snapshots(t, n) {
			if len(seen) == 0 || seen[len(seen)-1].begun.Before(s.begun) {
				seen = append(seen, s)
			}
		}
	}
	watching.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for ctx.Err() == nil {
			look()
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	return func() []shot {
		stop()
		watching.Wait()
		look()
		return seen
	}
}

// snapshots are those that a node has now, the oldest first.
func snapshots(t *testing.T, n *e2e.Node) []shot {
	files, err := filepath.Glob(filepath.Join(n.Dir, "snapshots", "*", "meta.json"))
	if err != nil {
		t.Error(err)
	}
	var found []shot
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		at, err := strconv.ParseInt(name[strings.LastIndex(name, "-")+1:], 10, 64)
		done, statErr := os.Stat(file)
		state, stateErr := os.Stat(filepath.Join(filepath.Dir(file), "state.bin"))
		if err != nil || statErr != nil || stateErr != nil {
			continue // it is not finished, or is being removed
		}
		found = append(found, shot{name, time.UnixMilli(at), done.ModTime(), state.Size()})
	}
	return found
}

// tellSnapshots tells how long each took, and the slowest write that was under way meanwhile. No write waits for a snapshot:
// while one was taken that lasted several times as long as most writes, others were asked for and answered.
func tellSnapshots(t *testing.T, n *e2e.Node, shots []shot, writes []written) {
	t.Helper()
	if len(shots) == 0 {
		t.Errorf("%s took no snapshot", n.Name)
	}
	took := durations(writes)
	slices.Sort(took)
	median := took[len(took)/2]
	last := slices.MaxFunc(writes, func(a, b written) int { return a.ended.Compare(b.ended) }).ended
	for _, s := range shots {
		var meanwhile []written
		within := 0
		for _, w := range writes {
			if w.begun.Before(s.ended) && w.ended.After(s.begun) {
				meanwhile = append(meanwhile, w)
			}
			if w.begun.After(s.begun) && w.ended.Before(s.ended) {
				within++
			}
		}
		if within == 0 && s.ended.Before(last) && s.ended.Sub(s.begun) > 4*median {
			t.Errorf("%s: no write was asked for and answered while the snapshot %s was taken", n.Name, s.name)
		}
		t.Logf("%s: snapshot %s: %.1f MB in %s; %d writes within it; those that it touched took %s", n.Name, s.name,
			float64(s.bytes)/1e6, s.ended.Sub(s.begun).Round(time.Millisecond), within, e2e.Spread(durations(meanwhile)))
	}
}

func awaitUsers(t *testing.T, c *e2e.Cluster) {
	t.Helper()
	for _, n := range c.Nodes {
		e2e.Await(t, n.Name+" to have all users", func() bool {
			status, err := n.Status()
			return err == nil && status.GetUsers() == uint64(*users)
		})
	}
}

// restart kills all nodes and starts them, and tells how long that took.
func restart(t *testing.T, c *e2e.Cluster) {
	t.Helper()
	for _, n := range c.Nodes {
		n.Kill()
		first, last := log(t, n)
		t.Logf("%s: the log holds the entries %d to %d", n.Name, first, last)
		if first == 1 {
			t.Errorf("%s: the log was not compacted", n.Name)
		}
	}
	begun := time.Now()
	for _, n := range c.Nodes {
		n.Start()
		t.Logf("%s answers %s after the first was started", n.Name, time.Since(begun).Round(10*time.Millisecond))
	}
	c.Leader()
	if err := issueOne(t.Context(), c.Client(), 0); err != nil {
		t.Error(err)
	}
	t.Logf("the first write after %s", time.Since(begun).Round(10*time.Millisecond))
	awaitUsers(t, c)
}

// log gives the first and the last entry in the log of a node that does not run.
func log(t *testing.T, n *e2e.Node) (first, last uint64) {
	t.Helper()
	store, err := boltstore.Open(filepath.Join(n.Dir, "raft.db"), boltstore.Options{MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if first, err = store.FirstIndex(); err != nil {
		t.Fatal(err)
	}
	if last, err = store.LastIndex(); err != nil {
		t.Fatal(err)
	}
	return first, last
}

// memory reads a figure of a node's process, in bytes.
func memory(t *testing.T, n *e2e.Node, name string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name+":" {
			kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	t.Fatalf("%s tells no %s", n.Name, name)
	return 0
}

// size is that of a file, or of all files below a folder.
func size(t *testing.T, path string) int64 {
	t.Helper()
	var sum int64
	err := filepath.WalkDir(path, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

package e2e_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/e2e"
)

var partition = flag.Bool("partition", false, "cut nodes off from each other; `make partition` gives the network for that")

const (
	// networks are partitioned at the same time, each cuts times.
	networks, cuts = 4, 25
	// fine is the step at which those that are cut off are asked around the acknowledgement, coarse the one before.
	fine, coarse = time.Millisecond, 20 * time.Millisecond
)

// Each network has a cluster of five. The leader's side revokes, while the two others are cut off, and are asked all the
// while: what the one side has acknowledged, the other never contradicts.
func TestARevocationHoldsOnBothSidesOfAPartition(t *testing.T) {
	if !*partition {
		t.Skip("it needs root and a network of its own: run `make partition`")
	}
	onlyLoopback(t, "make partition")
	var took struct {
		sync.Mutex
		all []time.Duration
	}
	var accepted, refused atomic.Int64
	t.Run("networks", func(t *testing.T) {
		for i := range networks {
			t.Run(fmt.Sprint(i+1), func(t *testing.T) {
				t.Parallel()
				net := newNetwork(t, i+1)
				for round := range cuts {
					d := net.revokeWhileCut(t, fmt.Sprint("user-", round), &accepted, &refused)
					took.Lock()
					took.all = append(took.all, d)
					took.Unlock()
				}
			})
		}
	})
	t.Logf("revocations while two of five were cut off: %s", e2e.Spread(took.all))
	t.Logf("those that were cut off accepted the token %d times before it was revoked for good, and refused %d times", accepted.Load(), refused.Load())
	if len(took.all) != networks*cuts || accepted.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d revocations: the test shows nothing", len(took.all))
	}
}

// onlyLoopback sees that nothing but the test's own networks is touched.
func onlyLoopback(t *testing.T, target string) {
	t.Helper()
	links := strings.Split(strings.TrimSpace(run(t, "ip", "-o", "link")), "\n")
	if len(links) != 1 || !strings.Contains(links[0], " lo:") {
		t.Fatalf("this network is not the test's own: run `%s`\n%s", target, strings.Join(links, "\n"))
	}
	run(t, "ip", "link", "set", "lo", "up")
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// network is a bridge with a namespace for each node of a cluster. The test is at the bridge, and reaches all of them.
type network struct {
	cluster *e2e.Cluster
	names   map[*e2e.Node]string
}

func newNetwork(t *testing.T, number int) *network {
	t.Helper()
	bridge := fmt.Sprint("kq", number)
	run(t, "ip", "link", "add", bridge, "type", "bridge")
	run(t, "ip", "addr", "add", fmt.Sprintf("10.77.%d.254/24", number), "dev", bridge)
	run(t, "ip", "link", "set", bridge, "up")
	w := &network{cluster: e2e.New(t, 5), names: make(map[*e2e.Node]string)}
	for i, n := range w.cluster.Nodes {
		name, host := fmt.Sprintf("kq%d-%d-%d", os.Getpid(), number, i+1), fmt.Sprintf("10.77.%d.%d", number, i+1)
		near, far := fmt.Sprintf("kq%d-%d", number, i+1), fmt.Sprintf("kq%d-%dn", number, i+1)
		run(t, "ip", "netns", "add", name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", name).Run() })
		run(t, "ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
		run(t, "ip", "link", "set", near, "master", bridge, "up")
		w.inside(t, name, "ip", "link", "set", "lo", "up")
		w.inside(t, name, "ip", "addr", "add", host+"/24", "dev", far)
		w.inside(t, name, "ip", "link", "set", far, "up")
		n.Inside(name, host)
		w.names[n] = name
	}
	w.cluster.Found()
	return w
}

func (w *network) inside(t *testing.T, name string, command ...string) {
	t.Helper()
	run(t, "ip", append([]string{"netns", "exec", name}, command...)...)
}

// cut has the nodes drop all that comes from the others, and all that goes to them.
func (w *network) cut(t *testing.T, nodes, others []*e2e.Node) {
	t.Helper()
	var hosts []string
	for _, n := range others {
		hosts = append(hosts, n.Host)
	}
	set := "{ " + strings.Join(hosts, ", ") + " }"
	for _, n := range nodes {
		w.inside(t, w.names[n], "nft", fmt.Sprintf(`
			add table ip cut
			add chain ip cut in { type filter hook input priority 0; }
			add chain ip cut out { type filter hook output priority 0; }
			add rule ip cut in ip saddr %s drop
			add rule ip cut out ip daddr %s drop`, set, set))
	}
}

func (w *network) heal(t *testing.T, nodes []*e2e.Node) {
	t.Helper()
	for _, n := range nodes {
		w.inside(t, w.names[n], "nft", "delete table ip cut")
	}
	for _, n := range w.cluster.Nodes {
		n.AwaitReady()
	}
}

// revokeWhileCut gives how long the revocation took.
func (w *network) revokeWhileCut(t *testing.T, subject string, accepted, refused *atomic.Int64) time.Duration {
	t.Helper()
	leader := w.cluster.Leader()
	followers := w.cluster.Followers()
	cut, rest := followers[:2], append([]*e2e.Node{leader}, followers[2:]...)
	api := w.cluster.ClientOf([]string{leader.Addr()}, client.InOrder())
	defer api.Close()
	token := issue(t, api, subject)
	for _, n := range cut {
		if res, err := n.API().Verify(t.Context(), &v1.VerifyRequest{Token: token}); err != nil || !res.GetValid() {
			t.Errorf("before the partition, %s says %v, %v", n.Name, res, err)
		}
	}
	w.cut(t, cut, rest)
	begun := time.Now()
	acknowledged := make(chan struct{})
	var at atomic.Int64 // when it was acknowledged, since begun
	var watchers sync.WaitGroup
	for _, n := range cut {
		watchers.Go(func() { watch(t, n, token, begun, acknowledged, &at, accepted, refused) })
	}
	res, err := api.Revoke(t.Context(), &v1.RevokeRequest{Subject: subject})
	took := time.Since(begun)
	at.Store(int64(took))
	close(acknowledged)
	if err != nil || res.GetFinality().GetExpiredNodes() != 2 || res.GetFinality().GetAppliedNodes() != 3 {
		t.Errorf("the leader's side says %v, %v", res, err)
	}
	watchers.Wait()
	w.heal(t, cut)
	for _, n := range cut {
		if res, err := n.API().Verify(t.Context(), &v1.VerifyRequest{Token: token}); err != nil || res.GetReason() != v1.VerifyResponse_KEY_NOT_FOUND {
			t.Errorf("once healed, %s says %v, %v", n.Name, res, err)
		}
	}
	return took
}

// watch asks a node that is cut off, in fine steps from shortly before the revocation can be acknowledged, and until a
// while after it was.
func watch(t *testing.T, n *e2e.Node, token string, begun time.Time, acknowledged <-chan struct{}, at, accepted, refused *atomic.Int64) {
	step := time.NewTicker(coarse)
	defer step.Stop()
	var end <-chan time.Time
	for {
		start := time.Since(begun)
		res, err := n.API().Verify(t.Context(), &v1.VerifyRequest{Token: token, OmitClaims: true})
		after := at.Load()
		switch {
		case err == nil && res.GetValid() && after != 0 && int64(start) >= after:
			t.Errorf("%s accepts the token %v after it was revoked", n.Name, start-time.Duration(after))
		case err == nil && res.GetValid():
			accepted.Add(1)
		case err == nil || errors.Is(err, client.ErrUnavailable):
			refused.Add(1)
		default:
			t.Errorf("%s: %v", n.Name, err)
		}
		if start > bound { // it can be acknowledged from then on
			step.Reset(fine)
		}
		select {
		case <-end:
			return
		case <-acknowledged:
			step.Reset(fine)
			acknowledged, end = nil, time.After(250*time.Millisecond)
		case <-step.C:
		}
	}
}

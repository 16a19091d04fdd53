package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node"
	"github.com/keyquorum/keyquorum/node/raftnet"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// rotated gives the cluster's keyring with one master key more, and the ids of both.
func rotated(t *testing.T, k *seal.Keyring) (next *seal.Keyring, before, added uint32) {
	t.Helper()
	next, err := k.WithNewKey()
	if err != nil {
		t.Fatal(err)
	}
	ids := next.IDs()
	return next, k.Primary(), ids[len(ids)-1]
}

func giveAll(c *cluster.Cluster, k *seal.Keyring) {
	for _, m := range c.Members() {
		m.GiveKeyring(k)
	}
}

func awaitPrimary(c *cluster.Cluster, id uint32) {
	c.Await(fmt.Sprintf("master key %d to be the primary one everywhere", id), func() bool {
		return !slices.ContainsFunc(c.Running(), func(m *cluster.Member) bool { return m.View().PrimaryMasterKey() != id })
	})
}

// awaitRewrapped waits until nothing is sealed under another master key than the primary one.
func awaitRewrapped(c *cluster.Cluster) {
	c.Await("all keys to be sealed anew", func() bool {
		return !slices.ContainsFunc(c.Running(), func(m *cluster.Member) bool { return m.View().SealedElsewhere() != 0 })
	})
}

// sealedUnder looks at every key.
func sealedUnder(v *fsm.View, id uint32) (n int) {
	for _, u := range v.Users("", v.UserCount()) {
		for _, k := range append([]fsm.Key{u.Active}, u.Retiring...) {
			if fsm.SealedBy(k.Sealed) == id {
				n++
			}
		}
	}
	return n
}

func retire(t *testing.T, c *cluster.Cluster, id uint32) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cluster.Patience)
	defer cancel()
	_, err := c.Follower().Node().RetireMasterKey(ctx, cluster.Caller, &v1.RetireMasterKeyRequest{MasterKey: id})
	return err
}

func status(t *testing.T, m *cluster.Member) *v1.KeyringStatusResponse {
	t.Helper()
	res, err := m.Node().KeyringStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func states(res *v1.KeyringStatusResponse) string {
	var all []string
	for _, k := range res.GetMasterKeys() {
		all = append(all, fmt.Sprintf("%s by %d", k.GetState(), len(k.GetHolders())))
	}
	return strings.Join(all, ", ")
}

func wantStates(t *testing.T, m *cluster.Member, want string) {
	t.Helper()
	if got := states(status(t, m)); got != want {
		t.Errorf("at %s the master keys are: %s; want: %s", m.Host, got, want)
	}
}

// The whole of a rotation, under load, and the leader is killed while it rewraps: no verification fails, nothing is sealed
// under the old master key at the end, and once it is retired and dropped everything verifies still, after a restart too.
func TestMasterKeyIsRotatedUnderLoad(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		l := startLoad(t, c, 1500)
		next, before, added := rotated(t, c.Keyring)
		giveAll(c, next)
		awaitPrimary(c, added)

		leader := c.Leader()
		c.Await("the leader to be in the middle", func() bool {
			left := leader.View().SealedElsewhere()
			return left > 200 && left < 1300
		})
		c.Kill(leader)
		awaitRewrapped(c)
		c.Restart(leader)
		c.Await("the leader of before to be back", func() bool { return leader.Ready() == nil })
		awaitRewrapped(c)
		for _, m := range c.Members() {
			if n := sealedUnder(m.View(), before); n != 0 {
				t.Errorf("at %s %d keys are sealed under the old master key", m.Host, n)
			}
		}
		wantStates(t, c.Follower(), "OLDER by 3, PRIMARY by 3")

		if err := retire(t, c, before); err != nil {
			t.Fatal(err)
		}
		giveAll(c, next.WithoutKey(before))
		c.Await("the old master key to be dropped", func() bool {
			return states(status(t, c.Leader())) == "RETIRED by 0, PRIMARY by 3"
		})
		tokens := l.end()
		if l.verified.Load() < 1000 {
			t.Errorf("only %d verifications", l.verified.Load())
		}
		c.AwaitAgreed()
		verifyAll(t, c, tokens)
		for _, m := range c.Members() {
			c.Shutdown(m)
		}
		for _, m := range c.Members() {
			c.Restart(m)
		}
		c.AwaitSettled()
		verifyAll(t, c, tokens)
	})
}

// Wherever in a rotation the whole cluster is killed, it goes on from there.
func TestClusterIsKilledAtEachStageOfARotation(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		var tokens []string
		for i := range 300 {
			tokens = append(tokens, c.Leader().MustIssue(t, fmt.Sprint("user ", i), time.Hour))
		}
		killAll := func(stage string) {
			t.Log("killed:", stage)
			for _, m := range c.Members() {
				c.Kill(m)
			}
			for _, m := range c.Members() {
				c.Restart(m)
			}
			c.AwaitSettled()
			verifyAll(t, c, tokens)
		}
		next, before, added := rotated(t, c.Keyring)
		c.Members()[0].GiveKeyring(next)
		time.Sleep(3 * time.Second)
		killAll("one member has the key")
		giveAll(c, next)
		awaitPrimary(c, added)
		killAll("the key is in use")
		c.Await("some keys to be sealed anew", func() bool { return c.Leader().View().SealedElsewhere() < 300 })
		killAll("keys are being sealed anew")
		awaitRewrapped(c)
		killAll("nothing is sealed under the old key")
		if err := retire(t, c, before); err != nil {
			t.Fatal(err)
		}
		c.AwaitAgreed()
		killAll("the old key is retired")
		giveAll(c, next.WithoutKey(before))
		killAll("the old key is dropped")
		wantStates(t, c.Leader(), "RETIRED by 0, PRIMARY by 3") // they were started without it
	})
}

// A key that a member lacks is not used; the status names the member, and removing it is a way out.
func TestMemberWithoutTheNewMasterKeyIsWaitedFor(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 4, cluster.Options{})
		followers := c.Followers()
		lacking, silent := followers[0], followers[1]
		next, before, added := rotated(t, c.Keyring)
		giveAll(c, next)
		lacking.GiveKeyring(c.Keyring)
		c.Kill(silent)
		time.Sleep(time.Minute)
		if got := c.Leader().View().PrimaryMasterKey(); got != before {
			t.Fatalf("master key %d is in use, and a member lacks it", got)
		}
		res := status(t, lacking)
		if got := states(res); got != "PRIMARY by 3, NEXT by 2" {
			t.Errorf("the master keys are: %s", got)
		}
		for _, m := range res.GetMembers() {
			if m.GetAnswered() == (m.GetName() == silent.Host) {
				t.Errorf("%s answered: %v", m.GetName(), m.GetAnswered())
			}
		}
		if slices.Contains(res.GetMasterKeys()[1].GetHolders(), lacking.UUID) {
			t.Error("the member is counted among those that hold the key")
		}
		lacking.GiveKeyring(next)
		time.Sleep(time.Minute)
		if got := c.Leader().View().PrimaryMasterKey(); got != before {
			t.Fatalf("master key %d is in use, and a member that is away may lack it", got)
		}
		if _, err := c.Leader().Node().Remove(t.Context(), cluster.Caller, &v1.RemoveRequest{Node: silent.Host}); err != nil {
			t.Fatal(err)
		}
		awaitPrimary(c, added)
	})
}

// A keyring from which a key is gone that is needed changes nothing, whether it is primary, older, or only held so far.
func TestKeyringThatLosesAKeyIsNotTaken(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		token := c.Leader().MustIssue(t, "ada", time.Hour)
		m := c.Follower()
		next, before, added := rotated(t, c.Keyring)
		m.GiveKeyring(next)
		time.Sleep(3 * time.Second)
		m.GiveKeyring(c.Keyring) // it has told the others that it holds the new one
		time.Sleep(3 * time.Second)
		if got := states(status(t, m)); got != "PRIMARY by 3, UNUSED by 1" {
			t.Errorf("the master keys are: %s", got)
		}
		giveAll(c, next)
		awaitPrimary(c, added)
		awaitRewrapped(c)
		for _, less := range []*seal.Keyring{next.WithoutKey(before), next.WithoutKey(added)} {
			m.GiveKeyring(less)
			time.Sleep(3 * time.Second)
			wantStates(t, m, "OLDER by 3, PRIMARY by 3")
		}
		m.GiveKeyring(nil) // the provider is gone: nothing changes
		time.Sleep(3 * time.Second)
		if reason := m.MustVerify(t, token); reason != valid {
			t.Errorf("without its provider, a node calls a good token %s", reason)
		}
		if err := m.Ready(); err != nil {
			t.Errorf("without its provider, a node is not ready: %v", err)
		}
	})
}

// Started with a keyring that lacks the primary key, a node ends.
func TestNodeThatLostTheMasterKeyEnds(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		next, _, added := rotated(t, c.Keyring)
		giveAll(c, next)
		awaitPrimary(c, added)
		m := c.Follower()
		c.Shutdown(m)
		m.GiveKeyring(c.Keyring)
		c.Restart(m)
		if err := m.Ended(); !errors.Is(err, fault.ErrKeyring) {
			t.Errorf("it ended with %v, want one that wraps ErrKeyring", err)
		}
	})
}

// deaf loses what Raft sends to one member, which goes on to answer other questions.
type deaf struct {
	raftnet.Inner
	to *atomic.Pointer[string]
}

func (d deaf) hears(id raft.ServerID) error {
	if to := d.to.Load(); to != nil && *to == string(id) {
		return errors.New("it is deaf")
	}
	return nil
}

func (d deaf) AppendEntries(id raft.ServerID, at raft.ServerAddress, req *raft.AppendEntriesRequest, res *raft.AppendEntriesResponse) error {
	return d.lost(id, func() error { return d.Inner.AppendEntries(id, at, req, res) })
}

func (d deaf) lost(id raft.ServerID, send func() error) error {
	if err := d.hears(id); err != nil {
		return err
	}
	return send()
}

func (d deaf) AppendEntriesPipeline(id raft.ServerID, at raft.ServerAddress) (raft.AppendPipeline, error) {
	if err := d.hears(id); err != nil {
		return nil, err
	}
	return d.Inner.AppendEntriesPipeline(id, at)
}

func (d deaf) InstallSnapshot(id raft.ServerID, at raft.ServerAddress, req *raft.InstallSnapshotRequest, res *raft.InstallSnapshotResponse, data io.Reader) error {
	return d.lost(id, func() error { return d.Inner.InstallSnapshot(id, at, req, res, data) })
}

// A member that was away while the old key was retired comes back with a keyring that lacks it, and with a state, a
// snapshot included, from before the new one was used. It said in time that it holds the new one.
func TestMemberThatWasAwayWhileTheKeyWasRetired(t *testing.T) {
	in(t, func(t *testing.T) {
		var to atomic.Pointer[string]
		c := cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) {
			cfg.SnapshotThreshold, cfg.TrailingLogs, cfg.SnapshotInterval = 20, 5, time.Second
			cfg.WrapTransport = func(inner raftnet.Inner) raftnet.Inner { return deaf{inner, &to} }
		}})
		var tokens []string
		for i := range 50 {
			tokens = append(tokens, c.Leader().MustIssue(t, fmt.Sprint("user ", i), time.Hour))
		}
		time.Sleep(5 * time.Second) // snapshots are taken
		away := c.Follower()
		if snapshots, err := away.Snapshots.List(); err != nil || len(snapshots) == 0 {
			t.Fatalf("there are no snapshots: %v", err)
		}
		to.Store(&away.UUID)
		next, before, added := rotated(t, c.Keyring)
		giveAll(c, next)
		c.Await("the others to use the new key", func() bool { return c.Leader().View().PrimaryMasterKey() == added })
		if away.View().PrimaryMasterKey() != before {
			t.Fatal("the member has heard of it")
		}
		c.Kill(away)
		to.Store(nil)
		awaitRewrapped(c)
		if err := retire(t, c, before); err != nil {
			t.Fatal(err)
		}
		giveAll(c, next.WithoutKey(before))
		c.Restart(away)
		c.AwaitSettled()
		verifyAll(t, c, tokens)
		c.Await("the old master key to be dropped", func() bool { return states(status(t, away)) == "RETIRED by 0, PRIMARY by 3" })
	})
}

// A node that joins has to hold the primary key.
func TestNodeThatJoinsHoldsThePrimaryMasterKey(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		next, before, added := rotated(t, c.Keyring)
		giveAll(c, next)
		awaitPrimary(c, added)
		late := c.Prepare() // with the keyring of the founding
		c.Start(late)
		time.Sleep(20 * time.Second)
		if _, member := c.Leader().View().Member(late.UUID); member {
			t.Fatal("a node without the primary master key is a member")
		}
		late.GiveKeyring(next)
		c.Await("the node to join", func() bool { return late.Ready() == nil })
		awaitRewrapped(c)
		if err := retire(t, c, before); err != nil {
			t.Fatal(err)
		}
		giveAll(c, next.WithoutKey(before))
		c.AwaitAgreed()
		last := c.Prepare()
		last.GiveKeyring(next) // its keyring says that the dropped one is primary
		c.Start(last)
		c.Await("the last node to join", func() bool { return last.Ready() == nil })
	})
}

// What was sealed in time and comes too late is sealed again by the node: callers do not notice.
func TestKeysSealedUnderARetiredMasterKeyAreMadeAgain(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		l := startLoad(t, c, 5)
		k := c.Keyring
		for range 3 {
			next, before, added := rotated(t, k)
			giveAll(c, next)
			awaitPrimary(c, added)
			awaitRewrapped(c)
			c.Await("the old key to be retired", func() bool { return retire(t, c, before) == nil }) // as soon as it can be
			k = next.WithoutKey(before)
			giveAll(c, k)
			c.Await("the old key to be dropped", func() bool {
				return !slices.ContainsFunc(c.Members(), func(m *cluster.Member) bool { return m.Node().HoldsMasterKey(before) })
			})
		}
		l.end()
	})
}

// Who has retired a master key, and asks another node, hears of it; a node that is cut off answers too.
func TestKeyringStatusIsNotBehind(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		next, before, added := rotated(t, c.Keyring)
		giveAll(c, next)
		awaitPrimary(c, added)
		slow := c.Followers()[1]
		for _, m := range c.Members() {
			if m != slow {
				c.Net.Delay(m.Host, slow.Host, 50*time.Millisecond)
			}
		}
		if _, err := c.Leader().Node().RetireMasterKey(t.Context(), cluster.Caller, &v1.RetireMasterKeyRequest{MasterKey: before}); err != nil {
			t.Fatal(err)
		}
		if state, _ := slow.View().MasterKeyState(before); state == fsm.MasterKeyRetired {
			t.Fatal("the node has heard of it already")
		}
		wantStates(t, slow, "RETIRED by 3, PRIMARY by 3")
		c.Partition(slow)
		wantStates(t, slow, "RETIRED by 1, PRIMARY by 1")
	})
}

func TestRetiringAMasterKeyInUseIsRefused(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		next, before, added := rotated(t, c.Keyring)
		if err := retire(t, c, before); err == nil || !strings.Contains(err.Error(), "is the primary one") {
			t.Errorf("retiring the primary one: %v", err)
		}
		if err := retire(t, c, 12345); err == nil || !strings.Contains(err.Error(), "no member holds") {
			t.Errorf("retiring one that nobody has: %v", err)
		}
		c.Leader().GiveKeyring(next)
		time.Sleep(3 * time.Second)
		if err := retire(t, c, added); err != nil { // it was a mistake, and is not used for ever
			t.Errorf("retiring one that was never used: %v", err)
		}
		giveAll(c, next)
		time.Sleep(10 * time.Second)
		if got := c.Leader().View().PrimaryMasterKey(); got != before {
			t.Errorf("master key %d is in use", got)
		}
	})
}

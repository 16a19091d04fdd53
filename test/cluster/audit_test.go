package cluster_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// snapshotting has members take snapshots often, and keep next to no log behind them.
func snapshotting(cfg *node.Config) {
	cfg.SnapshotThreshold, cfg.SnapshotInterval, cfg.TrailingLogs = 20, time.Second, 4
}

// busy makes some changes at m.
func busy(t *testing.T, m *cluster.Member, n int) {
	t.Helper()
	for i := range n {
		m.MustIssue(t, fmt.Sprintf("user-%d", i%5), time.Hour)
	}
}

func TestEveryMemberKeepsTheSameAuditRecords(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		res, err := c.Follower().Issue(t.Context(), "ada", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Follower().Revoke(t.Context(), "ada"); err != nil {
			t.Fatal(err)
		}
		all := c.AwaitAudited()
		issued := slices.IndexFunc(all, func(e audit.Entry) bool { return e.Kind == audit.TokenIssued })
		if e := all[issued]; e.Subject != "ada" || e.KeyID != res.GetKeyId() || e.TokenID != jti(t, res.GetToken()) || e.Expires != res.GetExpiresAt().GetSeconds() ||
			e.Actor != "test" || e.Source != "127.0.0.1" || e.Node != "test" {
			t.Errorf("the token is on record as %+v", e)
		}
		if e := all[len(all)-2]; e.Kind != audit.KeyRotated || e.Reason != audit.Revoked || e.PreviousKeyID != res.GetKeyId() {
			t.Errorf("the revocation is on record as %+v", e)
		}
		for _, m := range c.Members() {
			head, err := m.Node().AuditHead(t.Context())
			if err != nil || head.GetHash() != all[len(all)-1].Hash.String() || head.GetStoredHash() != head.GetHash() {
				t.Errorf("%s: %v, %v", m.Host, head, err)
			}
		}
	})
}

// jti reads that of a token.
func jti(t *testing.T, token string) string {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	var claims struct {
		ID string `json:"jti"`
	}
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil || claims.ID == "" {
		t.Fatalf("a token without a jti: %s, %v", payload, err)
	}
	return claims.ID
}

// TestAuditRecordsAreFilledInAfterASnapshot, where a member was cut off, where one is new, and where one lost its files.
func TestAuditRecordsAreFilledInAfterASnapshot(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{Config: snapshotting})
		behind := c.Follower()
		c.Partition(behind)
		busy(t, c.Leader(), 100)
		time.Sleep(5 * time.Second) // snapshots are taken
		c.Heal()
		c.AwaitSettled()
		c.AwaitAudited()

		added := c.Add()
		c.AwaitSettled()
		c.AwaitAudited()

		// raft's store in memory cannot be opened again where a snapshot took the place of all its log.
		lost := slices.DeleteFunc(c.Followers(), func(m *cluster.Member) bool { return m == behind || m == added })[0]
		c.Shutdown(lost)
		c.EmptyAudit(lost)
		c.Restart(lost)
		busy(t, c.Leader(), 10)
		c.AwaitSettled()
		if all := c.AwaitAudited(); len(all) < 110 {
			t.Errorf("%d records", len(all))
		}
	})
}

// TestAuditRecordsThatNobodyHas are told to be missing, and nothing waits for them.
func TestAuditRecordsThatNobodyHas(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{Config: snapshotting})
		busy(t, c.Leader(), 100)
		time.Sleep(5 * time.Second)
		members := c.Members()
		for _, m := range members {
			c.Shutdown(m)
			c.EmptyAudit(m)
		}
		for _, m := range members {
			c.Restart(m)
		}
		c.AwaitSettled()
		busy(t, c.Leader(), 50)
		time.Sleep(time.Minute)
		for _, m := range c.Members() {
			all := m.Audit.Records()
			if head := m.View().AuditHead(); len(all) == 0 || all[0].Sequence < 50 || all[len(all)-1].Head() != head {
				t.Errorf("%s has %d records, and the head is %v", m.Host, len(all), head)
			}
		}
	})
}

// TestALeaderThatCannotWriteItsAuditFileHandsOver, and comes back to it by itself.
func TestALeaderThatCannotWriteItsAuditFileHandsOver(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		full := c.Leader()
		full.Audit.Full.Store(true)
		_, _ = full.Issue(t.Context(), "ada", time.Minute) // it shows with the next record
		c.Await("another leader", func() bool { return c.Leader() != full })
		busy(t, c.Leader(), 20)
		if _, err := full.Issue(t.Context(), "bob", time.Minute); err != nil {
			t.Errorf("as a follower it passes on no writes: %v", err)
		}
		full.Audit.Full.Store(false)
		c.AwaitAudited()
	})
}

// TestWhereNoAuditFileCanBeWritten there are no changes, verification goes on, and it all ends by itself.
func TestWhereNoAuditFileCanBeWritten(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		token := c.Follower().MustIssue(t, "ada", time.Hour)
		for _, m := range c.Members() {
			m.Audit.Full.Store(true)
		}
		c.Await("the failure to show", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.Leader().Issue(ctx, "ada", time.Minute)
			return errors.Is(err, fault.ErrAudit)
		})
		for range 6 {
			time.Sleep(10 * time.Second)
			for _, m := range c.Members() {
				if got := m.MustVerify(t, token); got != valid {
					t.Fatalf("%s: %v", m.Host, got)
				}
			}
			if _, err := c.Leader().Issue(t.Context(), "ada", time.Minute); !errors.Is(err, fault.ErrAudit) {
				t.Fatalf("a change without a record: %v", err)
			}
		}
		for _, m := range c.Members() {
			m.Audit.Full.Store(false)
		}
		c.Await("changes to go on", func() bool {
			_, err := c.Leader().Issue(t.Context(), "ada", time.Minute)
			return err == nil
		})
		c.AwaitAudited()
	})
}

// TestWhereItIsEnoughToWarn changes go on, and the records are there once they can be written.
func TestWhereItIsEnoughToWarn(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{Config: func(cfg *node.Config) { cfg.AuditWarn = true; snapshotting(cfg) }})
		for _, m := range c.Members() {
			m.Audit.Full.Store(true)
		}
		busy(t, c.Leader(), 100)
		time.Sleep(10 * time.Second)
		for _, m := range c.Members() {
			m.Audit.Full.Store(false)
		}
		c.AwaitAudited()
	})
}

// TestIssuedTokensAreOnRecordWhereTheSettingSaysSo.
func TestIssuedTokensAreOnRecordWhereTheSettingSaysSo(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 1, cluster.Options{Settings: &v1.Settings{AuditIssued: new(false)}})
		c.Leader().MustIssue(t, "ada", time.Minute)
		for _, e := range c.AwaitAudited() {
			if e.Kind == audit.TokenIssued {
				t.Error("the token is on record")
			}
		}
	})
}

// TestWatchingAuditRecords gives what there is, goes on as more comes, and ends with the node.
func TestWatchingAuditRecords(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 1, cluster.Options{})
		m := c.Leader()
		var seen []*v1.AuditRecord
		done := make(chan error, 1)
		go func() {
			done <- m.Node().AuditWatch(context.Background(), &v1.AuditServiceWatchRequest{From: 1}, func(res *v1.AuditServiceWatchResponse) error {
				seen = append(seen, res.GetRecords()...)
				return nil
			})
		}()
		busy(t, m, 10)
		time.Sleep(time.Second)
		c.Shutdown(m)
		if err := <-done; !errors.Is(err, fault.ErrShuttingDown) {
			t.Errorf("it ended with %v", err)
		}
		if all := m.Audit.Records(); len(seen) != len(all) || seen[len(seen)-1].GetHash() != all[len(all)-1].Hash.String() {
			t.Errorf("%d of %d records were seen", len(seen), len(all))
		}
	})
}

// TestAWatchOutlastsTheServersTimeLimits, which are a minute for what has one answer; and it ends after an hour, so that
// the client asks again.
func TestAWatchOutlastsTheServersTimeLimits(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 1, cluster.Options{})
		app := application(t, c)
		ctx, stop := context.WithCancel(t.Context())
		var last atomic.Uint64
		done := make(chan error, 1)
		go func() {
			done <- app.AuditWatch(ctx, 1, func(r *v1.AuditRecord) error {
				if r.GetSequence() != last.Load()+1 {
					t.Errorf("record %d came after %d", r.GetSequence(), last.Load())
				}
				last.Store(r.GetSequence())
				return nil
			})
		}()
		for range 7 {
			time.Sleep(10 * time.Minute)
			c.Leader().MustIssue(t, "ada", time.Second)
			c.Await("the watch to bring it", func() bool { return last.Load() == c.Leader().View().AuditHead().Sequence })
		}
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
}

package cluster_test

import (
	"errors"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// A node that cannot tell whether an API token was revoked since takes none, and takes it again once it can.
func TestAStaleNodeTakesNoAPIToken(t *testing.T) {
	in(t, func(t *testing.T) {
		c := cluster.New(t, 3, cluster.Options{})
		made, err := c.Leader().Node().CreateToken(t.Context(), rpc.Caller{Actor: "ada", Source: "10.0.0.1", Node: c.Leader().Host},
			&v1.CreateTokenRequest{Name: "the gateway's", Roles: []v1.ApiToken_Role{v1.ApiToken_VERIFIER}})
		if err != nil {
			t.Fatal(err)
		}
		cut := c.Follower()
		bearer := func(m *cluster.Member) error {
			_, err := m.Node().Bearer(t.Context(), made.GetToken())
			return err
		}
		c.Await("the token everywhere", func() bool { return bearer(cut) == nil })
		c.Partition(cut)
		time.Sleep(window)
		if err := bearer(cut); !errors.Is(err, fault.ErrStale) {
			t.Errorf("cut off for %v, %s says %v", window, cut.Host, err)
		}
		if err := bearer(c.Leader()); err != nil {
			t.Errorf("the leader says %v", err)
		}
		c.Heal()
		c.Await("the token to be taken again", func() bool { return bearer(cut) == nil })
	})
}

package cluster_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/node"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// application is a client on a host of its own, which reaches every member.
func application(t *testing.T, c *cluster.Cluster, opts ...client.Option) *client.Client {
	t.Helper()
	transport := &http.Transport{DialContext: c.Net.Dialer("app")}
	t.Cleanup(transport.CloseIdleConnections)
	var addresses []string
	for _, m := range c.Members() {
		addresses = append(addresses, m.Host+":7400")
	}
	app, err := client.New(addresses, append(opts, client.WithHTTPClient(&http.Client{Transport: transport}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(app.Close)
	return app
}

// verifies has the application verify a token every 20 ms for the time, and gives how many answers each node gave. Each
// must say that the token is valid.
func verifies(t *testing.T, app *client.Client, token string, d time.Duration) map[string]int {
	t.Helper()
	answers := make(map[string]int)
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		res, err := app.Verify(t.Context(), &v1.VerifyRequest{Token: token})
		if err != nil {
			t.Errorf("a caller noticed: %v", err)
			continue
		}
		if !res.GetValid() {
			t.Errorf("at %s: %v", res.GetNode(), res.GetReason())
		}
		answers[res.GetNode()]++
	}
	return answers
}

func TestAClientLeavesAStaleNodeOfItsRegionAndComesBack(t *testing.T) {
	in(t, func(t *testing.T) {
		home := "eu"
		c := cluster.New(t, 4, cluster.Options{
			Config: func(cfg *node.Config) {
				regions("eu", "eu", "eu", "us")(cfg)
				cfg.Replica = cfg.Region == "us"
			},
			Settings: &v1.Settings{LeaderRegion: &home},
		})
		near := c.Members()[3]
		for _, m := range c.Members()[:3] {
			c.Net.Delay("app", m.Host, 40*time.Millisecond)
			c.Net.Delay(near.Host, m.Host, 40*time.Millisecond)
		}
		app := application(t, c, client.WithRegion("us"))
		token := c.Leader().MustIssue(t, "ada", time.Hour)
		c.AwaitAgreed()
		verifies(t, app, token, 2*time.Second) // it learns of the members

		if answers := verifies(t, app, token, 20*time.Second); len(answers) != 1 || answers[near.Host] == 0 {
			t.Errorf("while the near node is fresh: %v", answers)
		}
		c.Partition(near)
		if answers := verifies(t, app, token, 3*time.Second); len(answers) != 1 || answers[near.Host] == 0 {
			t.Errorf("while the near node is cut off, and fresh still: %v", answers)
		}
		if answers := verifies(t, app, token, 60*time.Second); answers[near.Host] > 200 || len(answers) < 3 {
			t.Errorf("once it is stale: %v", answers)
		}
		for range 30 { // whoever told of the members last
			if _, err := app.Issue(t.Context(), &v1.IssueRequest{Subject: "bob"}); err != nil {
				t.Errorf("issue while the near node is cut off: %v", err)
			}
			if _, err := app.Revoke(t.Context(), &v1.RevokeRequest{Subject: "bob"}); err != nil {
				t.Errorf("revoke while the near node is cut off: %v", err)
			}
			time.Sleep(time.Second)
		}
		c.Heal()
		verifies(t, app, token, 40*time.Second)
		if answers := verifies(t, app, token, 20*time.Second); len(answers) != 1 || answers[near.Host] == 0 {
			t.Errorf("once the near node is fresh again: %v", answers)
		}
	})
}

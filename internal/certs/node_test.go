package certs_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/pki"
)

func TestWhatANodesOwnCertificateMustSay(t *testing.T) {
	r := newRig(t)
	ca, other := r.ca(), r.ca()
	node := r.node(ca, "n1")
	for name, c := range map[string]struct {
		source *certs.Source
		hosts  []string
		told   string
	}{
		"good":         {r.source(node, ca), []string{"127.0.0.1"}, ""},
		"another name": {r.source(r.node(ca, "n2"), ca), nil, `certificate of node "n2", and this node is "n1"`},
		"another host": {r.source(node, ca), []string{"127.0.0.1", "10.1.2.3"}, "reach this node at 10.1.2.3"},
		"another CA":   {r.source(node, other), nil, "does not stand up to the CAs"},
		"a client's":   {r.source(r.client(ca, "n1", pki.Operator), ca), nil, "not that of a node"},
	} {
		err := c.source.CheckNode("n1", c.hosts...)
		switch {
		case c.told == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.told != "" && (err == nil || !strings.Contains(err.Error(), c.told)):
			t.Errorf("%s: got %v, want %q", name, err, c.told)
		}
	}
}

// What runs out is told once a day, from when it matters, until it was replaced.
func TestWhatRunsOutIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ca := r.ca()
		files := r.files(r.node(ca, "n1"), ca)
		logs := new(logged)
		start := time.Now()
		s, err := certs.Open(files, certs.Options{
			Logger: slog.New(slog.NewTextHandler(logs, nil)), Interval: time.Hour,
			Now: func() time.Time { return r.time().Add(time.Since(start)) },
		})
		must(t, err)
		end, _ := s.Expiry()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		const told = "runs out soon"
		day := 24 * time.Hour
		time.Sleep(end.Sub(r.time()) - 31*day)
		synctest.Wait()
		logs.want(t, told, 0)
		time.Sleep(2 * day)
		synctest.Wait()
		before := logs.count(told)
		time.Sleep(3 * day)
		synctest.Wait()
		if n := logs.count(told) - before; before == 0 || n != 3 {
			t.Errorf("told %d times, and then %d times in 3 days", before, n)
		}
		stop()
		must(t, <-ended)
	})
}

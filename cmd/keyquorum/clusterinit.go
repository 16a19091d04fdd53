package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

type clusterInitCommand struct {
	Wait time.Duration `percall:"" placeholder:"30s" help:"Wait that long for the node to start, and for the cluster to be ready."`

	settingFlags
	connection
	format
}

func (*clusterInitCommand) Help() string {
	return "Founds the cluster at the node that --addr names, with that node as its first voter; the others find it and join. Where the node is in a cluster already, nothing is changed, and that is no failure."
}

func (c *clusterInitCommand) check() (faults []string) {
	if c.Wait < 0 {
		faults = append(faults, "--wait: must not be negative")
	}
	return slices.Concat(faults, c.single(), c.settingFlags.check(), c.connection.check())
}

// retryPause is the time between two attempts while a command waits.
const retryPause = 200 * time.Millisecond

func (c *clusterInitCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	waiting, stop := context.WithTimeout(ctx, c.Wait)
	defer stop()
	var res *v1.InitResponse
	err = persist(ctx, waiting, func() error {
		var err error
		res, err = cluster.Init(ctx, &v1.InitRequest{Settings: c.message()})
		return err
	})
	if err == nil && c.Wait > 0 {
		err = persist(ctx, waiting, func() error { return ready(ctx, cluster) })
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	if res.GetAlreadyFounded() {
		s.out.printf("The node is in cluster %s already.\n", clean(res.GetClusterId()))
		return nil
	}
	s.out.printf("Founded cluster %s.\n", clean(res.GetClusterId()))
	return nil
}

// errNotReady says that a node is in its cluster and cannot serve yet.
var errNotReady = errors.New("the node is not ready")

func ready(ctx context.Context, cluster *client.Client) error {
	res, err := cluster.Status(ctx)
	if err != nil || res.GetReady() {
		return err
	}
	return errNotReady
}

// persist tries again, until waiting ends, what another attempt may mend.
func persist(ctx, waiting context.Context, try func() error) error {
	for {
		err := try()
		if !isAny(err, []error{client.ErrUnavailable, client.ErrDeadlineExceeded, client.ErrOutcomeUnknown, errNotReady}) {
			return err
		}
		select {
		case <-waiting.Done():
			return err
		case <-ctx.Done():
			return err
		case <-time.After(retryPause):
		}
	}
}

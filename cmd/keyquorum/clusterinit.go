package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

type clusterInitCommand struct {
	Wait time.Duration `percall:"" placeholder:"30s" help:"Wait that long for the first node to start, and for all that --addr names to be ready."`

	NoAPIToken bool `name:"no-api-token" percall:"" help:"Make no API token for the first operator, where that one has a certificate."`

	settingFlags
	connection
	format
}

func (*clusterInitCommand) Help() string {
	return "Founds the cluster at the first node that --addr names, with that node as its first voter; the others find it and join. Where the node is in a cluster already, nothing is changed, and that is no failure."
}

func (c *clusterInitCommand) check() (faults []string) {
	if c.Wait < 0 {
		faults = append(faults, "--wait: must not be negative")
	}
	return slices.Concat(faults, c.settingFlags.check(), c.connection.check())
}

// retryPause is the time between two attempts while a command waits.
const retryPause = 200 * time.Millisecond

func (c *clusterInitCommand) run(ctx context.Context, s *session) error {
	first, err := c.clientOf(c.nodes()[0], c.wait())
	if err != nil {
		return err
	}
	defer first.Close()
	waiting, stop := context.WithTimeout(ctx, c.Wait)
	defer stop()
	var res *v1.InitResponse
	err = persist(ctx, waiting, func() error {
		var err error
		res, err = first.Init(ctx, &v1.InitRequest{Settings: c.message(), OmitOperatorToken: c.NoAPIToken})
		return err
	})
	if err != nil {
		return err
	}
	if err := c.tell(s, res); err != nil || c.Wait == 0 {
		return err
	}
	for _, node := range c.nodes() {
		if err := c.awaitReady(ctx, waiting, node); err != nil {
			return err
		}
	}
	return nil
}

// tell comes before what else is waited for: the token is not shown again.
func (c *clusterInitCommand) tell(s *session, res *v1.InitResponse) error {
	if c.JSON {
		return s.out.json(res)
	}
	if res.GetAlreadyFounded() {
		s.out.printf("The node is in cluster %s already.\n", clean(res.GetClusterId()))
		return nil
	}
	s.out.printf("Founded cluster %s.\n", clean(res.GetClusterId()))
	if token := res.GetOperatorToken(); token != "" {
		s.out.printf("The first operator's API token, which is not shown again:\n%s\n", clean(token))
	}
	return nil
}

// errNotReady says that a node is in its cluster and cannot serve yet.
var errNotReady = errors.New("the node is not ready")

func (c *clusterInitCommand) awaitReady(ctx, waiting context.Context, address string) error {
	node, err := c.clientOf(address, c.wait())
	if err != nil {
		return err
	}
	defer node.Close()
	err = persist(ctx, waiting, func() error {
		res, err := node.Status(ctx)
		if err != nil || res.GetReady() {
			return err
		}
		return errNotReady
	})
	if err != nil {
		return fmt.Errorf("%s: %w", clean(address), err)
	}
	return nil
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

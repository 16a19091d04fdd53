package main

import (
	"cmp"
	"context"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

type clusterMembersCommand struct {
	connection
	format
}

func (*clusterMembersCommand) Help() string {
	return "Lists the members as one node has them, without asking each; \"cluster status\" asks each for itself."
}

func (c *clusterMembersCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	res, err := cluster.Members(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	var rows [][]string
	for _, m := range res.GetMembers() {
		rows = append(rows, []string{
			m.GetName(), roleName(m, res.GetLeaderId()), m.GetRegion(), m.GetVersion(), m.GetRpcAddress(), m.GetRaftAddress(), m.GetNodeId(),
		})
	}
	newTable(s.out, "NAME", "ROLE", "REGION", "VERSION", "ADDRESS", "RAFT", "ID").print(rows)
	return nil
}

type clusterRemoveCommand struct {
	Node string `arg:"" help:"The member's name or id."`

	connection
	format
}

func (*clusterRemoveCommand) Help() string {
	return "Takes a member out for good: it does not come back under its identity, and its node serves no more. Empty its data directory to let it join as a new member. A removal that would cost the cluster its quorum is refused."
}

func (c *clusterRemoveCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	res, err := cluster.Remove(ctx, &v1.RemoveRequest{Node: c.Node})
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	s.out.printf("%s: removed\n", clean(c.Node))
	return nil
}

type clusterTransferCommand struct {
	Node string `arg:"" optional:"" help:"The voter that should lead, by name or id. Default: the one furthest along."`

	connection
	format
}

func (c *clusterTransferCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	res, err := cluster.TransferLeadership(ctx, &v1.TransferLeadershipRequest{Node: c.Node})
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	s.out.printf("leader: %s\n", clean(cmp.Or(nameOf(ctx, cluster, res.GetLeaderId()), "none yet")))
	return nil
}

// nameOf gives a member's name, or its id where no node can be asked for the name.
func nameOf(ctx context.Context, cluster *client.Client, id string) string {
	res, err := cluster.Members(ctx)
	if err != nil {
		return id
	}
	for _, m := range res.GetMembers() {
		if m.GetNodeId() == id {
			return m.GetName()
		}
	}
	return id
}

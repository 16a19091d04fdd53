package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

type clusterCommand struct {
	Init               clusterInitCommand     `cmd:"" help:"Found the cluster, once, at one node."`
	Status             clusterStatusCommand   `cmd:"" help:"Show members, leader, time and how far each member is."`
	Members            clusterMembersCommand  `cmd:"" help:"List the members."`
	Remove             clusterRemoveCommand   `cmd:"" help:"Take a member out for good."`
	TransferLeadership clusterTransferCommand `cmd:"" help:"Have another voter lead."`
	Settings           clusterSettingsCommand `cmd:"" help:"Show or change what holds for the whole cluster."`
}

type clusterStatusCommand struct {
	connection
	format
}

func (*clusterStatusCommand) Help() string {
	return "Asks one node how it sees the cluster, then each member for itself. With --json, prints the one node's answer."
}

func (c *clusterStatusCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	res, err := cluster.Status(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	printStatus(s.out, res)
	views := askMembers(ctx, &c.connection, res)
	printMembers(s.out, res, views)
	return nil
}

func printStatus(p *printer, res *v1.StatusResponse) {
	list := fields{}
	list.add("cluster", cmp.Or(res.GetClusterId(), "not founded yet"))
	list.add("leader", cmp.Or(leaderName(res), "none that this node knows of"))
	list.add("term", strconv.FormatUint(res.GetTerm(), 10))
	list.add("revision", strconv.FormatUint(res.GetRevision(), 10))
	list.add("users", fmt.Sprintf("%d, with %d keys", res.GetUsers(), res.GetKeys()))
	list.add("time", clusterTime(res.GetClock()))
	list.add("seen by", res.GetNode().GetName())
	p.fields(list)
}

func leaderName(res *v1.StatusResponse) string {
	for _, m := range res.GetMembers() {
		if m.GetNodeId() == res.GetLeaderId() {
			return m.GetName()
		}
	}
	return res.GetLeaderId()
}

func clusterTime(c *v1.Clock) string {
	if !c.GetKnown() {
		return "unknown: no majority of the voters' clocks agrees"
	}
	return stamp(c.GetTime())
}

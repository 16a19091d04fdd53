package main

import (
	"cmp"
	"context"
	"strconv"
	"sync"
	"time"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

const (
	// memberTimeout bounds the asking of one member: a status that waits long for a dead one helps nobody.
	memberTimeout = 2 * time.Second
	// maxShown bounds the members that are asked and shown: far more than a cluster has, and few enough to read.
	maxShown = 100
	// maxAsked bounds how many are asked at a time.
	maxAsked = 20
)

// shown are the members to ask and show.
func shown(asked *v1.StatusResponse) []*v1.Member {
	return asked.GetMembers()[:min(len(asked.GetMembers()), maxShown)]
}

// askMembers asks each shown member for its own status, many at once, and all within the time that there is. A member that does not
// answer, or turns out to be another node than the one recorded, is nil. The node that was asked already is not asked again.
func askMembers(ctx context.Context, c *connection, asked *v1.StatusResponse) []*v1.StatusResponse {
	ctx, cancel := context.WithTimeout(ctx, c.wait())
	defer cancel()
	members := shown(asked)
	views := make([]*v1.StatusResponse, len(members))
	turns := make(chan struct{}, maxAsked)
	var all sync.WaitGroup
	for i, m := range members {
		if m.GetNodeId() == asked.GetNode().GetNodeId() {
			views[i] = asked
			continue
		}
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			views[i] = askMember(ctx, c, m)
		})
	}
	all.Wait()
	return views
}

func askMember(ctx context.Context, c *connection, m *v1.Member) *v1.StatusResponse {
	node, err := c.clientOf(m.GetRpcAddress(), memberTimeout)
	if err != nil {
		return nil
	}
	defer node.Close()
	res, err := node.Status(ctx)
	if err != nil || res.GetNode().GetNodeId() != m.GetNodeId() {
		return nil
	}
	return res
}

func printMembers(p *printer, asked *v1.StatusResponse, views []*v1.StatusResponse) {
	if len(views) == 0 {
		if because := asked.GetNotReadyBecause(); because != "" {
			p.printf("\nnot ready: %s\n", clean(because))
		}
		return
	}
	committed := asked.GetCommitIndex()
	for _, view := range views {
		committed = max(committed, view.GetCommitIndex())
	}
	var rows [][]string
	for i, m := range shown(asked) {
		rows = append(rows, memberRow(m, views[i], committed, asked.GetLeaderId()))
	}
	p.printf("\n")
	newTable(p, "NAME", "ROLE", "READY", "LAG", "STALENESS", "CLOCK", "REGION", "VERSION", "ADDRESS", "ID").print(rows)
	if more := len(asked.GetMembers()) - len(views); more > 0 {
		p.printf("and %d more, which were not asked; --json has them all\n", more)
	}
	printReasons(p, asked, views)
}

// memberRow tells what is recorded of a member and, if it answered, what it says of itself.
func memberRow(m *v1.Member, view *v1.StatusResponse, committed uint64, leader string) []string {
	row := []string{m.GetName(), roleName(m, leader), "no answer", "", "", "", m.GetRegion(), m.GetVersion(), m.GetRpcAddress(), m.GetNodeId()}
	if view == nil {
		return row
	}
	row[2] = yesNo(view.GetReady())
	row[3] = strconv.FormatUint(committed-min(committed, view.GetAppliedIndex()), 10)
	row[4] = staleness(view.GetStaleness())
	row[5] = clockOffset(view.GetClock())
	return row
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func roleName(m *v1.Member, leader string) string {
	switch {
	case leader != "" && m.GetNodeId() == leader:
		return "leader"
	case m.GetRole() == v1.Member_VOTER:
		return "voter"
	case m.GetReplica():
		return "replica"
	case m.GetRole() == v1.Member_NON_VOTER:
		return "joining"
	}
	return "absent"
}

// clockOffset is how far a member's own clock is off the cluster's time.
func clockOffset(c *v1.Clock) string {
	if !c.GetKnown() {
		return "unknown"
	}
	offset := c.GetOffset().AsDuration().Round(100 * time.Microsecond)
	if offset >= 0 {
		return "+" + offset.String()
	}
	return offset.String()
}

// printReasons says why members are not ready.
func printReasons(p *printer, asked *v1.StatusResponse, views []*v1.StatusResponse) {
	for i, m := range shown(asked) {
		if because := views[i].GetNotReadyBecause(); because != "" {
			p.printf("%s is not ready: %s\n", clean(cmp.Or(m.GetName(), m.GetNodeId())), clean(because))
		}
	}
}

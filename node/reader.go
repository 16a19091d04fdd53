package node

import (
	"context"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Verify implements rpc.Reader.
func (n *Node) Verify(ctx context.Context, req *v1.VerifyRequest) (*v1.VerifyResponse, error) {
	if err := n.reading(); err != nil {
		return nil, err
	}
	return n.tokens.Verify(ctx, req)
}

// VerifyBatch implements rpc.Reader.
func (n *Node) VerifyBatch(ctx context.Context, req *v1.VerifyBatchRequest) (*v1.VerifyBatchResponse, error) {
	if err := n.reading(); err != nil {
		return nil, err
	}
	return n.tokens.VerifyBatch(ctx, req)
}

// Get implements rpc.Reader.
func (n *Node) Get(ctx context.Context, req *v1.GetRequest) (*v1.GetResponse, error) {
	if err := n.reading(); err != nil {
		return nil, err
	}
	return n.tokens.Get(ctx, req)
}

// List implements rpc.Reader.
func (n *Node) List(ctx context.Context, req *v1.ListRequest) (*v1.ListResponse, error) {
	if err := n.reading(); err != nil {
		return nil, err
	}
	return n.tokens.List(ctx, req)
}

// Status implements rpc.Reader.
func (n *Node) Status(context.Context) (*v1.StatusResponse, error) {
	view := n.fsm.View()
	_, leader := n.raft.LeaderWithID()
	servers := n.servers()
	res := &v1.StatusResponse{
		ClusterId:    view.ClusterID(),
		Node:         memberMessage(n.self, servers, leader),
		LeaderId:     string(leader),
		Term:         n.raft.CurrentTerm(),
		Revision:     view.Revision(),
		AppliedIndex: n.raft.AppliedIndex(),
		CommitIndex:  n.raft.CommitIndex(),
		Clock:        n.clockMessage(),
		Users:        uint64(view.UserCount()),
		Keys:         uint64(view.KeyCount()),
		Members:      memberMessages(view, servers, leader),
		Ready:        true,
		Staleness:    n.staleness(),
	}
	if err := n.Ready(); err != nil {
		res.Ready, res.NotReadyBecause = false, err.Error()
	}
	return res, nil
}

// staleness gives how old the state can be; nil where nothing has been proved.
func (n *Node) staleness() *durationpb.Duration {
	age, proved := n.freshness.Age(n.fsm.State())
	if !proved {
		return nil
	}
	return durationpb.New(age)
}

func (n *Node) clockMessage() *v1.Clock {
	c := &v1.Clock{}
	if now, known := n.clock.Now(); known {
		c.Known, c.Time = true, timestamppb.New(now)
	}
	if offset, known := n.clock.Offset(); known {
		c.Offset = durationpb.New(offset)
	}
	return c
}

// Members implements rpc.Reader.
func (n *Node) Members(context.Context) (*v1.MembersResponse, error) {
	view := n.fsm.View()
	_, leader := n.raft.LeaderWithID()
	return &v1.MembersResponse{
		Members: memberMessages(view, n.servers(), leader), LeaderId: string(leader), Revision: view.Revision(),
		ClusterId: view.ClusterID(),
	}, nil
}

func memberMessages(view *fsm.View, servers []raft.Server, leader raft.ServerID) []*v1.Member {
	var messages []*v1.Member
	for _, m := range view.Members() {
		messages = append(messages, memberMessage(m, servers, leader))
	}
	return messages
}

// memberMessage joins a member's record with what Raft's configuration says of it.
func memberMessage(m fsm.Member, servers []raft.Server, leader raft.ServerID) *v1.Member {
	msg := rpc.MemberMessage(m)
	msg.Role = v1.Member_ABSENT
	for _, s := range servers {
		switch {
		case string(s.ID) != m.ID:
		case s.Suffrage == raft.Voter:
			msg.Role = v1.Member_VOTER
		default:
			msg.Role = v1.Member_NON_VOTER
		}
	}
	msg.Leader = string(leader) == m.ID
	return msg
}

// GetSettings implements rpc.Reader.
func (n *Node) GetSettings(context.Context) (*v1.GetSettingsResponse, error) {
	view := n.fsm.View()
	if !view.Founded() {
		return nil, fault.ErrNotFounded
	}
	return &v1.GetSettingsResponse{Settings: rpc.SettingsMessage(view.Settings())}, nil
}

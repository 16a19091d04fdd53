package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/plant"
	"github.com/keyquorum/keyquorum/rpc"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// writer gives the place where a write is carried out: here, or at the leader. What comes forwarded never gets
// here, so nothing is forwarded twice.
func (n *Node) writer() (rpc.Writer, error) {
	if err := n.serving(); err != nil {
		return nil, err
	}
	if n.raft.State() == raft.Leader {
		return n.local, nil
	}
	_, id := n.raft.LeaderWithID()
	if id == "" {
		return nil, fault.ErrNoLeader
	}
	address, ok := n.rpcAddress(string(id))
	if !ok {
		return nil, fmt.Errorf("%w that this node has an address for", fault.ErrNoLeader)
	}
	return &forwarder{peers: n.peers, address: address, id: n.cfg.ID}, nil
}

// route carries out a write wherever it belongs.
func route[Req, Res any](ctx context.Context, n *Node, by rpc.Caller, req Req,
	do func(rpc.Writer, context.Context, rpc.Caller, Req) (Res, error),
) (Res, error) {
	w, err := n.writer()
	if err != nil {
		var none Res
		return none, err
	}
	res, err := do(w, ctx, by, req)
	if plant.On(plant.BlindRetry) && open(err) && n.awaitLeader(ctx) != "" {
		if w, err = n.writer(); err == nil {
			return do(w, ctx, by, req)
		}
	}
	return res, err
}

// open tells whether nobody can say what became of a write.
func open(err error) bool {
	return errors.Is(err, fault.ErrOutcomeUnknown) || connect.IsWireError(err) && connect.CodeOf(err) == connect.CodeUnknown
}

// Issue implements rpc.Writer.
func (n *Node) Issue(ctx context.Context, by rpc.Caller, req *v1.IssueRequest) (*v1.IssueResponse, error) {
	return route(ctx, n, by, req, rpc.Writer.Issue)
}

// Rotate implements rpc.Writer.
func (n *Node) Rotate(ctx context.Context, by rpc.Caller, req *v1.RotateRequest) (*v1.RotateResponse, error) {
	return route(ctx, n, by, req, rpc.Writer.Rotate)
}

// Revoke implements rpc.Writer.
func (n *Node) Revoke(ctx context.Context, by rpc.Caller, req *v1.RevokeRequest) (*v1.RevokeResponse, error) {
	return route(ctx, n, by, req, rpc.Writer.Revoke)
}

// Delete implements rpc.Writer.
func (n *Node) Delete(ctx context.Context, by rpc.Caller, req *v1.DeleteRequest) (*v1.DeleteResponse, error) {
	return route(ctx, n, by, req, rpc.Writer.Delete)
}

// Remove implements rpc.Writer.
func (n *Node) Remove(ctx context.Context, by rpc.Caller, req *v1.RemoveRequest) (*v1.RemoveResponse, error) {
	return route(ctx, n, by, req, rpc.Writer.Remove)
}

// TransferLeadership implements rpc.Writer.
func (n *Node) TransferLeadership(ctx context.Context, by rpc.Caller, req *v1.TransferLeadershipRequest) (*v1.TransferLeadershipResponse, error) {
	return route(ctx, n, by, req, rpc.Writer.TransferLeadership)
}

// UpdateSettings implements rpc.Writer.
func (n *Node) UpdateSettings(ctx context.Context, by rpc.Caller, req *v1.UpdateSettingsRequest) (*v1.UpdateSettingsResponse, error) {
	return route(ctx, n, by, req, rpc.Writer.UpdateSettings)
}

// CreateToken implements rpc.Writer.
func (n *Node) CreateToken(ctx context.Context, by rpc.Caller, req *v1.CreateTokenRequest) (*v1.CreateTokenResponse, error) {
	return route(ctx, n, by, req, rpc.Writer.CreateToken)
}

// RevokeToken implements rpc.Writer.
func (n *Node) RevokeToken(ctx context.Context, by rpc.Caller, req *v1.RevokeTokenRequest) (*v1.RevokeTokenResponse, error) {
	return route(ctx, n, by, req, rpc.Writer.RevokeToken)
}

// RetireMasterKey implements rpc.Writer.
func (n *Node) RetireMasterKey(ctx context.Context, by rpc.Caller, req *v1.RetireMasterKeyRequest) (*v1.RetireMasterKeyResponse, error) {
	return route(ctx, n, by, req, rpc.Writer.RetireMasterKey)
}

// localWriter carries writes out on this node; the log refuses them where it does not lead.
type localWriter struct{ node *Node }

var _ rpc.Writer = (*localWriter)(nil)

func originOf(by rpc.Caller) fsm.Origin {
	return fsm.Origin{Actor: by.Actor, Source: by.Source, Node: by.Node}
}

func (w *localWriter) Issue(ctx context.Context, by rpc.Caller, req *v1.IssueRequest) (*v1.IssueResponse, error) {
	return w.node.tokens.Issue(ctx, originOf(by), req)
}

func (w *localWriter) Rotate(ctx context.Context, by rpc.Caller, req *v1.RotateRequest) (*v1.RotateResponse, error) {
	return w.node.tokens.Rotate(ctx, originOf(by), req)
}

func (w *localWriter) Revoke(ctx context.Context, by rpc.Caller, req *v1.RevokeRequest) (*v1.RevokeResponse, error) {
	return w.node.tokens.Revoke(ctx, originOf(by), req)
}

func (w *localWriter) Delete(ctx context.Context, by rpc.Caller, req *v1.DeleteRequest) (*v1.DeleteResponse, error) {
	return w.node.tokens.Delete(ctx, originOf(by), req)
}

func (w *localWriter) Remove(ctx context.Context, by rpc.Caller, req *v1.RemoveRequest) (*v1.RemoveResponse, error) {
	member, err := w.node.find(req.GetNode())
	if err != nil {
		return nil, err
	}
	if err := w.node.members.Remove(ctx, raft.ServerID(member.ID), originOf(by)); err != nil {
		return nil, err
	}
	return &v1.RemoveResponse{NodeId: member.ID}, nil
}

func (w *localWriter) TransferLeadership(ctx context.Context, _ rpc.Caller, req *v1.TransferLeadershipRequest) (*v1.TransferLeadershipResponse, error) {
	to, err := w.node.successor(req.GetNode())
	if err != nil {
		return nil, err
	}
	if len(w.node.voters()) < 2 {
		return nil, fault.Invalid("node", "there is no other voter that could lead")
	}
	if to == nil || string(to.ID) != w.node.cfg.ID {
		if err := w.node.handOver(ctx, to); err != nil {
			return nil, err
		}
	}
	return &v1.TransferLeadershipResponse{LeaderId: w.node.awaitLeader(ctx)}, nil
}

func (w *localWriter) UpdateSettings(ctx context.Context, by rpc.Caller, req *v1.UpdateSettingsRequest) (*v1.UpdateSettingsResponse, error) {
	res, err := w.node.propose(ctx, fsm.Command{Origin: originOf(by), Op: rpc.SettingsChange(req.GetSettings())})
	if err != nil {
		return nil, ofSettings(err)
	}
	return &v1.UpdateSettingsResponse{Settings: rpc.SettingsMessage(res.Settings)}, nil
}

func (w *localWriter) RetireMasterKey(ctx context.Context, by rpc.Caller, req *v1.RetireMasterKeyRequest) (*v1.RetireMasterKeyResponse, error) {
	return w.retire(ctx, originOf(by), req.GetMasterKey())
}

// ofSettings names the field of a refusal as requests have it: settings come in a message of their own.
func ofSettings(err error) error {
	refusal, ok := errors.AsType[*fsm.Refusal](err)
	if !ok || refusal.Field == "" {
		return err
	}
	named := *refusal
	named.Field = "settings." + refusal.Field
	return &named
}

// forwarder carries writes out at the leader.
type forwarder struct {
	peers   *peers
	address string
	id      string // this node's
}

var _ rpc.Writer = (*forwarder)(nil)

func (f *forwarder) send(ctx context.Context, by rpc.Caller, req *peerv1.ForwardRequest) (*peerv1.ForwardResponse, error) {
	req.Actor, req.Source, req.Node, req.NodeId, req.RequestId = by.Actor, by.Source, by.Node, f.id, by.RequestID
	return f.peers.forward(ctx, f.address, req)
}

func (f *forwarder) Issue(ctx context.Context, by rpc.Caller, req *v1.IssueRequest) (*v1.IssueResponse, error) {
	res, err := f.send(ctx, by, &peerv1.ForwardRequest{Write: &peerv1.ForwardRequest_Issue{Issue: req}})
	return res.GetIssue(), err
}

func (f *forwarder) Rotate(ctx context.Context, by rpc.Caller, req *v1.RotateRequest) (*v1.RotateResponse, error) {
	res, err := f.send(ctx, by, &peerv1.ForwardRequest{Write: &peerv1.ForwardRequest_Rotate{Rotate: req}})
	return res.GetRotate(), err
}

func (f *forwarder) Revoke(ctx context.Context, by rpc.Caller, req *v1.RevokeRequest) (*v1.RevokeResponse, error) {
	res, err := f.send(ctx, by, &peerv1.ForwardRequest{Write: &peerv1.ForwardRequest_Revoke{Revoke: req}})
	return res.GetRevoke(), err
}

func (f *forwarder) Delete(ctx context.Context, by rpc.Caller, req *v1.DeleteRequest) (*v1.DeleteResponse, error) {
	res, err := f.send(ctx, by, &peerv1.ForwardRequest{Write: &peerv1.ForwardRequest_Delete{Delete: req}})
	return res.GetDelete(), err
}

func (f *forwarder) Remove(ctx context.Context, by rpc.Caller, req *v1.RemoveRequest) (*v1.RemoveResponse, error) {
	res, err := f.send(ctx, by, &peerv1.ForwardRequest{Write: &peerv1.ForwardRequest_Remove{Remove: req}})
	return res.GetRemove(), err
}

func (f *forwarder) TransferLeadership(ctx context.Context, by rpc.Caller, req *v1.TransferLeadershipRequest) (*v1.TransferLeadershipResponse, error) {
	res, err := f.send(ctx, by, &peerv1.ForwardRequest{Write: &peerv1.ForwardRequest_TransferLeadership{TransferLeadership: req}})
	return res.GetTransferLeadership(), err
}

func (f *forwarder) UpdateSettings(ctx context.Context, by rpc.Caller, req *v1.UpdateSettingsRequest) (*v1.UpdateSettingsResponse, error) {
	res, err := f.send(ctx, by, &peerv1.ForwardRequest{Write: &peerv1.ForwardRequest_UpdateSettings{UpdateSettings: req}})
	return res.GetUpdateSettings(), err
}

func (f *forwarder) CreateToken(ctx context.Context, by rpc.Caller, req *v1.CreateTokenRequest) (*v1.CreateTokenResponse, error) {
	res, err := f.send(ctx, by, &peerv1.ForwardRequest{Write: &peerv1.ForwardRequest_CreateToken{CreateToken: req}})
	return res.GetCreateToken(), err
}

func (f *forwarder) RevokeToken(ctx context.Context, by rpc.Caller, req *v1.RevokeTokenRequest) (*v1.RevokeTokenResponse, error) {
	res, err := f.send(ctx, by, &peerv1.ForwardRequest{Write: &peerv1.ForwardRequest_RevokeToken{RevokeToken: req}})
	return res.GetRevokeToken(), err
}

func (f *forwarder) RetireMasterKey(ctx context.Context, by rpc.Caller, req *v1.RetireMasterKeyRequest) (*v1.RetireMasterKeyResponse, error) {
	res, err := f.send(ctx, by, &peerv1.ForwardRequest{Write: &peerv1.ForwardRequest_RetireMasterKey{RetireMasterKey: req}})
	return res.GetRetireMasterKey(), err
}

// find gives the one member that an id or a name means.
func (n *Node) find(idOrName string) (fsm.Member, error) {
	var found []fsm.Member
	for _, m := range n.fsm.View().Members() {
		if m.ID == idOrName {
			return m, nil
		}
		if m.Name == idOrName {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 0:
		return fsm.Member{}, fmt.Errorf("%w: %q", fault.ErrNoSuchMember, idOrName)
	case 1:
		return found[0], nil
	default:
		return fsm.Member{}, fault.Invalid("node", fmt.Sprintf("%d members are called %q: give the node id", len(found), idOrName))
	}
}

// successor finds the voter to hand leadership to; nil for any.
func (n *Node) successor(idOrName string) (*raft.Server, error) {
	if idOrName == "" {
		return nil, nil //nolint:nilnil // any voter will do
	}
	member, err := n.find(idOrName)
	if err != nil {
		return nil, err
	}
	for _, s := range n.servers() {
		if string(s.ID) == member.ID && s.Suffrage == raft.Voter {
			return &s, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", fault.ErrNotVoter, member.Name)
}

// awaitLeader gives the leader's id once there is one; empty if ctx ends first.
func (n *Node) awaitLeader(ctx context.Context) string {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		if _, id := n.raft.LeaderWithID(); id != "" {
			return string(id)
		}
		select {
		case <-ctx.Done():
			return ""
		case <-poll.C:
		}
	}
}

package rpc

import (
	"context"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/internal/fault"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
)

// peerService serves keyquorum.peer.v1.PeerService, what the nodes of a cluster ask of each other.
type peerService struct{ node Node }

// Forward checks a write as if it had come from the caller itself, and carries it out here or not at all.
func (s peerService) Forward(ctx context.Context, req *connect.Request[peerv1.ForwardRequest]) (*connect.Response[peerv1.ForwardResponse], error) {
	if id := req.Msg.GetRequestId(); saneID(id) {
		callOf(ctx).id = id
	}
	return answer(ctx, req, checkForward, func(ctx context.Context, msg *peerv1.ForwardRequest) (*peerv1.ForwardResponse, error) {
		by := Caller{Actor: msg.GetActor(), Source: msg.GetSource(), Node: msg.GetNode(), RequestID: RequestID(ctx)}
		return carryOut(ctx, s.node.Local(), by, msg)
	})
}

func carryOut(ctx context.Context, w Writer, by Caller, req *peerv1.ForwardRequest) (*peerv1.ForwardResponse, error) {
	var res peerv1.ForwardResponse
	var err error
	switch write := req.GetWrite().(type) {
	case *peerv1.ForwardRequest_Issue:
		out := new(peerv1.ForwardResponse_Issue)
		out.Issue, err = checked(ctx, by, write.Issue, checkIssue, w.Issue)
		res.Result = out
	case *peerv1.ForwardRequest_Rotate:
		out := new(peerv1.ForwardResponse_Rotate)
		out.Rotate, err = checked(ctx, by, write.Rotate, checkKeyChange, w.Rotate)
		res.Result = out
	case *peerv1.ForwardRequest_Revoke:
		out := new(peerv1.ForwardResponse_Revoke)
		out.Revoke, err = checked(ctx, by, write.Revoke, checkKeyChange, w.Revoke)
		res.Result = out
	case *peerv1.ForwardRequest_Delete:
		out := new(peerv1.ForwardResponse_Delete)
		out.Delete, err = checked(ctx, by, write.Delete, checkKeyChange, w.Delete)
		res.Result = out
	case *peerv1.ForwardRequest_Remove:
		out := new(peerv1.ForwardResponse_Remove)
		out.Remove, err = checked(ctx, by, write.Remove, checkRemove, w.Remove)
		res.Result = out
	case *peerv1.ForwardRequest_TransferLeadership:
		out := new(peerv1.ForwardResponse_TransferLeadership)
		out.TransferLeadership, err = checked(ctx, by, write.TransferLeadership, checkTransfer, w.TransferLeadership)
		res.Result = out
	case *peerv1.ForwardRequest_UpdateSettings:
		out := new(peerv1.ForwardResponse_UpdateSettings)
		out.UpdateSettings, err = checked(ctx, by, write.UpdateSettings, checkUpdateSettings, w.UpdateSettings)
		res.Result = out
	case *peerv1.ForwardRequest_RetireMasterKey:
		out := new(peerv1.ForwardResponse_RetireMasterKey)
		out.RetireMasterKey, err = checked(ctx, by, write.RetireMasterKey, checkRetireMasterKey, w.RetireMasterKey)
		res.Result = out
	default:
		return nil, fault.Invalid("write", "is missing, or of a kind that this node does not know")
	}
	if err != nil {
		return nil, err
	}
	return &res, nil
}

// checked carries out a forwarded write once it has passed its check.
func checked[Req, Res any](
	ctx context.Context, by Caller, req *Req, check func(*Req) error, do func(context.Context, Caller, *Req) (*Res, error),
) (*Res, error) {
	if err := check(req); err != nil {
		return nil, err
	}
	return do(ctx, by, req)
}

func (s peerService) Clock(ctx context.Context, req *connect.Request[peerv1.ClockRequest]) (*connect.Response[peerv1.ClockResponse], error) {
	return answer(ctx, req, unchecked, noRequest[peerv1.ClockRequest](s.node.Clock))
}

func (s peerService) Standing(ctx context.Context, req *connect.Request[peerv1.StandingRequest]) (*connect.Response[peerv1.StandingResponse], error) {
	return answer(ctx, req, unchecked, noRequest[peerv1.StandingRequest](s.node.Standing))
}

func (s peerService) Tick(ctx context.Context, req *connect.Request[peerv1.TickRequest]) (*connect.Response[peerv1.TickResponse], error) {
	return answer(ctx, req, checkTick, s.node.Tick)
}

func (s peerService) Applied(ctx context.Context, req *connect.Request[peerv1.AppliedRequest]) (*connect.Response[peerv1.AppliedResponse], error) {
	return answer(ctx, req, unchecked, s.node.Applied)
}

func (s peerService) Challenge(ctx context.Context, req *connect.Request[peerv1.ChallengeRequest]) (*connect.Response[peerv1.ChallengeResponse], error) {
	return answer(ctx, req, unchecked, noRequest[peerv1.ChallengeRequest](s.node.Challenge))
}

func (s peerService) Join(ctx context.Context, req *connect.Request[peerv1.JoinRequest]) (*connect.Response[peerv1.JoinResponse], error) {
	return answer(ctx, req, checkJoin, s.node.Join)
}

func (s peerService) Leave(ctx context.Context, req *connect.Request[peerv1.LeaveRequest]) (*connect.Response[peerv1.LeaveResponse], error) {
	return answer(ctx, req, checkLeave, s.node.Leave)
}

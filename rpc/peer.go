package rpc

import (
	"cmp"
	"context"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/internal/fault"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// peerService serves keyquorum.peer.v1.PeerService, what the nodes of a cluster ask of each other.
type peerService struct{ node Node }

// Forward checks a write as if it had come from the caller itself, and carries it out here or not at all.
func (s peerService) Forward(ctx context.Context, req *connect.Request[peerv1.ForwardRequest]) (*connect.Response[peerv1.ForwardResponse], error) {
	if id := req.Msg.GetRequestId(); saneID(id) {
		callOf(ctx).id = id
	}
	return answer(ctx, req, checkForward, func(ctx context.Context, msg *peerv1.ForwardRequest) (*peerv1.ForwardResponse, error) {
		if err := cmp.Or(speaksFor(ctx, msg.GetNode()), speaksAsMember(ctx, s.node, msg.GetNodeId())); err != nil {
			return nil, err
		}
		by := Caller{Actor: msg.GetActor(), Source: msg.GetSource(), Node: msg.GetNode(), RequestID: RequestID(ctx)}
		return carryOut(ctx, s.node.Local(), by, msg)
	})
}

// carryOut carries out a forwarded write once it has passed its check.
func carryOut(ctx context.Context, w Writer, by Caller, req *peerv1.ForwardRequest) (*peerv1.ForwardResponse, error) {
	res := new(peerv1.ForwardResponse)
	var err error
	switch write := req.GetWrite().(type) {
	case *peerv1.ForwardRequest_Issue:
		err = into(ctx, by, write.Issue, checkIssue, w.Issue, func(r *v1.IssueResponse) { res.Result = &peerv1.ForwardResponse_Issue{Issue: r} })
	case *peerv1.ForwardRequest_Rotate:
		err = into(ctx, by, write.Rotate, checkKeyChange, w.Rotate, func(r *v1.RotateResponse) { res.Result = &peerv1.ForwardResponse_Rotate{Rotate: r} })
	case *peerv1.ForwardRequest_Revoke:
		err = into(ctx, by, write.Revoke, checkKeyChange, w.Revoke, func(r *v1.RevokeResponse) { res.Result = &peerv1.ForwardResponse_Revoke{Revoke: r} })
	case *peerv1.ForwardRequest_Delete:
		err = into(ctx, by, write.Delete, checkKeyChange, w.Delete, func(r *v1.DeleteResponse) { res.Result = &peerv1.ForwardResponse_Delete{Delete: r} })
	case *peerv1.ForwardRequest_Remove:
		err = into(ctx, by, write.Remove, checkRemove, w.Remove, func(r *v1.RemoveResponse) { res.Result = &peerv1.ForwardResponse_Remove{Remove: r} })
	case *peerv1.ForwardRequest_TransferLeadership:
		err = into(ctx, by, write.TransferLeadership, checkTransfer, w.TransferLeadership, func(r *v1.TransferLeadershipResponse) {
			res.Result = &peerv1.ForwardResponse_TransferLeadership{TransferLeadership: r}
		})
	case *peerv1.ForwardRequest_UpdateSettings:
		err = into(ctx, by, write.UpdateSettings, checkUpdateSettings, w.UpdateSettings, func(r *v1.UpdateSettingsResponse) {
			res.Result = &peerv1.ForwardResponse_UpdateSettings{UpdateSettings: r}
		})
	case *peerv1.ForwardRequest_CreateToken:
		err = into(ctx, by, write.CreateToken, checkCreateToken, w.CreateToken, func(r *v1.CreateTokenResponse) { res.Result = &peerv1.ForwardResponse_CreateToken{CreateToken: r} })
	case *peerv1.ForwardRequest_RevokeToken:
		err = into(ctx, by, write.RevokeToken, checkRevokeToken, w.RevokeToken, func(r *v1.RevokeTokenResponse) { res.Result = &peerv1.ForwardResponse_RevokeToken{RevokeToken: r} })
	case *peerv1.ForwardRequest_RetireMasterKey:
		err = into(ctx, by, write.RetireMasterKey, checkRetireMasterKey, w.RetireMasterKey, func(r *v1.RetireMasterKeyResponse) {
			res.Result = &peerv1.ForwardResponse_RetireMasterKey{RetireMasterKey: r}
		})
	default:
		return nil, fault.Invalid("write", "is missing, or of a kind that this node does not know")
	}
	if err != nil {
		return nil, err
	}
	return res, nil
}

// into checks a request, carries it out, and keeps the answer.
func into[Req, Res any](
	ctx context.Context, by Caller, req *Req, check func(*Req) error, do func(context.Context, Caller, *Req) (*Res, error), keep func(*Res),
) error {
	if err := check(req); err != nil {
		return err
	}
	res, err := do(ctx, by, req)
	if err == nil {
		keep(res)
	}
	return err
}

func (s peerService) Clock(ctx context.Context, req *connect.Request[peerv1.ClockRequest]) (*connect.Response[peerv1.ClockResponse], error) {
	return answer(ctx, req, unchecked, noRequest[peerv1.ClockRequest](s.node.Clock))
}

func (s peerService) Standing(ctx context.Context, req *connect.Request[peerv1.StandingRequest]) (*connect.Response[peerv1.StandingResponse], error) {
	return answer(ctx, req, unchecked, noRequest[peerv1.StandingRequest](s.node.Standing))
}

func (s peerService) Tick(ctx context.Context, req *connect.Request[peerv1.TickRequest]) (*connect.Response[peerv1.TickResponse], error) {
	return answer(ctx, req, checkTick, func(ctx context.Context, msg *peerv1.TickRequest) (*peerv1.TickResponse, error) {
		if err := speaksAsMember(ctx, s.node, msg.GetNodeId()); err != nil {
			return nil, err
		}
		return s.node.Tick(ctx, msg)
	})
}

func (s peerService) Applied(ctx context.Context, req *connect.Request[peerv1.AppliedRequest]) (*connect.Response[peerv1.AppliedResponse], error) {
	return answer(ctx, req, unchecked, s.node.Applied)
}

func (s peerService) Challenge(ctx context.Context, req *connect.Request[peerv1.ChallengeRequest]) (*connect.Response[peerv1.ChallengeResponse], error) {
	return answer(ctx, req, unchecked, noRequest[peerv1.ChallengeRequest](s.node.Challenge))
}

func (s peerService) Join(ctx context.Context, req *connect.Request[peerv1.JoinRequest]) (*connect.Response[peerv1.JoinResponse], error) {
	return answer(ctx, req, checkJoin, func(ctx context.Context, msg *peerv1.JoinRequest) (*peerv1.JoinResponse, error) {
		if err := speaksFor(ctx, msg.GetMember().GetName()); err != nil {
			return nil, err
		}
		return s.node.Join(ctx, msg)
	})
}

func (s peerService) Leave(ctx context.Context, req *connect.Request[peerv1.LeaveRequest]) (*connect.Response[peerv1.LeaveResponse], error) {
	return answer(ctx, req, checkLeave, func(ctx context.Context, msg *peerv1.LeaveRequest) (*peerv1.LeaveResponse, error) {
		if err := speaksAsMember(ctx, s.node, msg.GetNodeId()); err != nil {
			return nil, err
		}
		return s.node.Leave(ctx, msg)
	})
}

func (s peerService) AuditRecords(ctx context.Context, req *connect.Request[peerv1.AuditRecordsRequest]) (*connect.Response[peerv1.AuditRecordsResponse], error) {
	return answer(ctx, req, checkAuditRecords, func(ctx context.Context, msg *peerv1.AuditRecordsRequest) (*peerv1.AuditRecordsResponse, error) {
		if err := speaksAsMember(ctx, s.node, msg.GetNodeId()); err != nil {
			return nil, err
		}
		return s.node.AuditRecords(ctx, msg)
	})
}

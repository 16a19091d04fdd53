// Package rpc is the wire surface of a node: handlers, the JSON rules, limits, request ids, and the one mapping
// between domain errors and Connect codes. It knows a node only by the interfaces that it declares here.
package rpc

import (
	"context"

	"github.com/keyquorum/keyquorum/internal/pki"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Caller says who sent a request, from where, and which node took it. It goes into the record of what a write
// changed.
type Caller struct {
	// Actor is who asked: "cert:NAME" and "token:ID" by what was shown, "anonymous" where there is no access control.
	Actor string
	// Source is the address that the request came from, without the port.
	Source string
	// Node is the name of the node that took the request from the caller.
	Node string
	// RequestID names the request in logs and errors.
	RequestID string
}

// Writer carries out what has to go through the leader, wherever that is. Requests have been validated.
type Writer interface {
	Issue(context.Context, Caller, *v1.IssueRequest) (*v1.IssueResponse, error)
	Rotate(context.Context, Caller, *v1.RotateRequest) (*v1.RotateResponse, error)
	Revoke(context.Context, Caller, *v1.RevokeRequest) (*v1.RevokeResponse, error)
	Delete(context.Context, Caller, *v1.DeleteRequest) (*v1.DeleteResponse, error)
	Remove(context.Context, Caller, *v1.RemoveRequest) (*v1.RemoveResponse, error)
	TransferLeadership(context.Context, Caller, *v1.TransferLeadershipRequest) (*v1.TransferLeadershipResponse, error)
	UpdateSettings(context.Context, Caller, *v1.UpdateSettingsRequest) (*v1.UpdateSettingsResponse, error)
	CreateToken(context.Context, Caller, *v1.CreateTokenRequest) (*v1.CreateTokenResponse, error)
	RevokeToken(context.Context, Caller, *v1.RevokeTokenRequest) (*v1.RevokeTokenResponse, error)
	RetireMasterKey(context.Context, Caller, *v1.RetireMasterKeyRequest) (*v1.RetireMasterKeyResponse, error)
}

// Reader answers from the node's own memory.
type Reader interface {
	Verify(context.Context, *v1.VerifyRequest) (*v1.VerifyResponse, error)
	VerifyBatch(context.Context, *v1.VerifyBatchRequest) (*v1.VerifyBatchResponse, error)
	Get(context.Context, *v1.GetRequest) (*v1.GetResponse, error)
	List(context.Context, *v1.ListRequest) (*v1.ListResponse, error)
	Status(context.Context) (*v1.StatusResponse, error)
	Members(context.Context) (*v1.MembersResponse, error)
	GetSettings(context.Context) (*v1.GetSettingsResponse, error)
	ListTokens(context.Context) (*v1.ListTokensResponse, error)
	// KeyringStatus asks the other members too.
	KeyringStatus(context.Context) (*v1.KeyringStatusResponse, error)
}

// Peers answers the other nodes of the cluster. It never forwards.
type Peers interface {
	// Local carries out writes here, or fails with fault.ErrNotLeader.
	Local() Writer
	Clock(context.Context) (*peerv1.ClockResponse, error)
	Standing(context.Context) (*peerv1.StandingResponse, error)
	// Admits tells whether a node with that name and that id may be a member as far as this node knows: all may where there
	// is no cluster yet.
	Admits(name, id string) bool
	// Tick commits a tick for a member, on the leader.
	Tick(context.Context, *peerv1.TickRequest) (*peerv1.TickResponse, error)
	// Applied answers once this node has applied a position.
	Applied(context.Context, *peerv1.AppliedRequest) (*peerv1.AppliedResponse, error)
	Challenge(context.Context) (*peerv1.ChallengeResponse, error)
	Join(context.Context, *peerv1.JoinRequest) (*peerv1.JoinResponse, error)
	Leave(context.Context, *peerv1.LeaveRequest) (*peerv1.LeaveResponse, error)
	// AuditRecords gives audit records that this node keeps.
	AuditRecords(context.Context, *peerv1.AuditRecordsRequest) (*peerv1.AuditRecordsResponse, error)
}

// Bearer is whom an API token stands for.
type Bearer struct {
	ID    string
	Roles []pki.Role
}

// Node is what the handlers serve.
type Node interface {
	Writer
	Reader
	Peers
	Auditor
	// Bearer finds whom an API token stands for. The error wraps fault.ErrUnauthenticated where it is none, or one no
	// longer; it never quotes the token.
	Bearer(ctx context.Context, token string) (Bearer, error)
	// Name is the node's, for answers and logs.
	Name() string
	// Init founds a cluster here.
	Init(context.Context, Caller, *v1.InitRequest) (*v1.InitResponse, error)
	// Ready says why the node cannot serve, or nil.
	Ready() error
	// Live says why the process should be restarted, or nil.
	Live() error
}

package rpc

import (
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/apitoken"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/pki"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// accessService serves keyquorum.v1.AccessService.
type accessService struct{ node Node }

func (s accessService) CreateToken(ctx context.Context, req *connect.Request[v1.CreateTokenRequest]) (*connect.Response[v1.CreateTokenResponse], error) {
	return write(ctx, s.node, req, checkCreateToken, s.node.CreateToken)
}

func (s accessService) ListTokens(ctx context.Context, req *connect.Request[v1.ListTokensRequest]) (*connect.Response[v1.ListTokensResponse], error) {
	return answer(ctx, req, unchecked, noRequest[v1.ListTokensRequest](s.node.ListTokens))
}

func (s accessService) RevokeToken(ctx context.Context, req *connect.Request[v1.RevokeTokenRequest]) (*connect.Response[v1.RevokeTokenResponse], error) {
	return write(ctx, s.node, req, checkRevokeToken, s.node.RevokeToken)
}

// tokenRoles are the roles that an API token can have, as the API names them.
var tokenRoles = map[v1.ApiToken_Role]pki.Role{
	v1.ApiToken_VERIFIER: pki.Verifier,
	v1.ApiToken_ISSUER:   pki.Issuer,
	v1.ApiToken_OPERATOR: pki.Operator,
	v1.ApiToken_AUDITOR:  pki.Auditor,
}

// TokenRoles gives the roles that a request names, which has been validated.
func TokenRoles(asked []v1.ApiToken_Role) []pki.Role {
	var roles []pki.Role
	for _, r := range asked {
		roles = append(roles, tokenRoles[r])
	}
	return roles
}

// APITokenMessage tells of an API token what may be told.
func APITokenMessage(t fsm.APIToken) *v1.ApiToken {
	m := &v1.ApiToken{Id: t.ID, Name: t.Name, CreatedAt: stampOf(t.Created), ExpiresAt: stampOf(t.Expires), Creator: t.Creator}
	for api, role := range tokenRoles {
		if slices.Contains(t.Roles, string(role)) {
			m.Roles = append(m.Roles, api)
		}
	}
	slices.Sort(m.Roles)
	return m
}

func stampOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// maxTokenTTL is a leap year.
const maxTokenTTL = fsm.MaxLifetime

func checkCreateToken(req *v1.CreateTokenRequest) error {
	if req.GetName() != "" {
		if err := checkName("name", req.GetName()); err != nil {
			return err
		}
	}
	if len(req.GetRoles()) == 0 {
		return fault.Invalid("roles", "is missing: say what the token is to allow")
	}
	for i, r := range req.GetRoles() {
		field := fmt.Sprintf("roles[%d]", i)
		if _, ok := tokenRoles[r]; !ok {
			return fault.Invalid(field, "must be VERIFIER, ISSUER, OPERATOR or AUDITOR")
		}
		if slices.Contains(req.GetRoles()[:i], r) {
			return fault.Invalid(field, "is there twice")
		}
	}
	if req.GetTtl() == nil {
		return nil
	}
	if err := checkDuration("ttl", req.GetTtl(), time.Second); err != nil {
		return err
	}
	if req.GetTtl().AsDuration() > maxTokenTTL {
		return fault.Invalid("ttl", fmt.Sprintf("must not be longer than %.0f days; leave it out for a token that does not end by itself", maxTokenTTL.Hours()/24))
	}
	return nil
}

func checkRevokeToken(req *v1.RevokeTokenRequest) error {
	if !apitoken.IsID(req.GetId()) {
		return fault.Invalid("id", "is not the id of an API token: its 16 letters and digits between kq_ and the next _")
	}
	return nil
}

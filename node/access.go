package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/apitoken"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Bearer implements rpc.Node, from the node's own memory. A node that may not know yet that a token was revoked, since its
// state is older than the cluster allows, takes none.
func (n *Node) Bearer(_ context.Context, token string) (rpc.Bearer, error) {
	id, hash, ok := apitoken.Parse(token)
	if !ok {
		return rpc.Bearer{}, fmt.Errorf("%w: the bearer token has not the form of an API token", fault.ErrUnauthenticated)
	}
	state := n.fsm.State()
	age, proved := n.freshness.Age(state)
	view := state.View() // after its age
	kept, ok := view.APIToken(id)
	if founded := view.Founded(); founded && (!proved || age > view.Settings().MaxStaleness) {
		return rpc.Bearer{}, fmt.Errorf("%w: whether the API token still holds cannot be told here now: ask another node, or show a client certificate", fault.ErrStale)
	}
	if !ok || !hash.Equal(kept.Hash) {
		return rpc.Bearer{}, fmt.Errorf("%w: there is no such API token, or no longer", fault.ErrUnauthenticated)
	}
	last, ever := n.clock.Last()
	if err := checkEnd(kept.Expires, last, ever, view.Time()); err != nil {
		return rpc.Bearer{}, err
	}
	return rpc.Bearer{ID: id, Roles: rolesOf(kept.Roles)}, nil
}

// checkEnd tells why an API token that ends then is not taken, or nil. The time is the later of the one that this node last knew,
// carried on, and the log's; where it never knew one, it cannot tell that the token has not ended.
func checkEnd(expires, last time.Time, ever bool, log time.Time) error {
	switch {
	case expires.IsZero():
		return nil
	case !last.Before(expires), !log.Before(expires):
		return fmt.Errorf("%w: the API token has expired", fault.ErrUnauthenticated)
	case !ever:
		return fmt.Errorf("%w: whether the API token has expired cannot be told here now: ask another node, or show a client certificate", fault.ErrTimeUnknown)
	}
	return nil
}

// rolesOf gives those of the roles that this build knows.
func rolesOf(names []string) []pki.Role {
	var roles []pki.Role
	for _, name := range names {
		if role, err := pki.ParseRole(name); err == nil && role != pki.Node {
			roles = append(roles, role)
		}
	}
	return roles
}

// newAPIToken makes a token, and what the cluster keeps of it.
func newAPIToken(name string, roles []pki.Role, expires time.Time) (kept fsm.APIToken, text string) {
	id, text, hash := apitoken.New()
	kept = fsm.APIToken{ID: id, Name: name, Hash: hash[:], Expires: expires}
	for _, r := range roles {
		kept.Roles = append(kept.Roles, string(r))
	}
	slices.Sort(kept.Roles)
	return kept, text
}

func (w *localWriter) CreateToken(ctx context.Context, by rpc.Caller, req *v1.CreateTokenRequest) (*v1.CreateTokenResponse, error) {
	var expires time.Time
	if req.GetTtl() != nil {
		now, known := w.node.clock.Now()
		if !known {
			return nil, fault.ErrTimeUnknown
		}
		expires = now.Add(req.GetTtl().AsDuration()).Truncate(time.Millisecond)
	}
	kept, text := newAPIToken(req.GetName(), rpc.TokenRoles(req.GetRoles()), expires)
	if _, err := w.node.propose(ctx, fsm.Command{Origin: originOf(by), Op: fsm.PutAPIToken{Token: kept}}); err != nil {
		return nil, err
	}
	res := &v1.CreateTokenResponse{Token: text, Id: kept.ID}
	if !expires.IsZero() {
		res.ExpiresAt = timestamppb.New(expires)
	}
	return res, nil
}

func (w *localWriter) RevokeToken(ctx context.Context, by rpc.Caller, req *v1.RevokeTokenRequest) (*v1.RevokeTokenResponse, error) {
	if _, err := w.node.propose(ctx, fsm.Command{Origin: originOf(by), Op: fsm.RevokeAPIToken{ID: req.GetId()}}); err != nil {
		return nil, err
	}
	return &v1.RevokeTokenResponse{}, nil
}

// ListTokens implements rpc.Reader.
func (n *Node) ListTokens(context.Context) (*v1.ListTokensResponse, error) {
	if err := n.serving(); err != nil {
		return nil, err
	}
	res := new(v1.ListTokensResponse)
	for _, t := range n.fsm.View().APITokens() {
		res.Tokens = append(res.Tokens, rpc.APITokenMessage(t))
	}
	return res, nil
}

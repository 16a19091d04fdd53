package rpc

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1/peerv1connect"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// anyRole is for what each known caller may ask.
var anyRole = []pki.Role{pki.Verifier, pki.Issuer, pki.Operator, pki.Auditor, pki.Node}

// allowed is who may call what: a caller needs one of the roles. What is not in it, nobody may.
var allowed = map[string][]pki.Role{
	keyquorumv1connect.TokenServiceIssueProcedure:       {pki.Issuer},
	keyquorumv1connect.TokenServiceVerifyProcedure:      {pki.Verifier},
	keyquorumv1connect.TokenServiceVerifyBatchProcedure: {pki.Verifier},

	keyquorumv1connect.KeyServiceRotateProcedure: {pki.Issuer},
	keyquorumv1connect.KeyServiceRevokeProcedure: {pki.Issuer},
	keyquorumv1connect.KeyServiceDeleteProcedure: {pki.Issuer},
	keyquorumv1connect.KeyServiceGetProcedure:    {pki.Operator},
	keyquorumv1connect.KeyServiceListProcedure:   {pki.Operator},

	// With a node's own certificate as well: whoever has that can found a cluster anyway.
	keyquorumv1connect.ClusterServiceInitProcedure:               {pki.Operator, pki.Node},
	keyquorumv1connect.ClusterServiceStatusProcedure:             {pki.Operator},
	keyquorumv1connect.ClusterServiceMembersProcedure:            anyRole,
	keyquorumv1connect.ClusterServiceRemoveProcedure:             {pki.Operator},
	keyquorumv1connect.ClusterServiceTransferLeadershipProcedure: {pki.Operator},
	keyquorumv1connect.ClusterServiceGetSettingsProcedure:        {pki.Operator},
	keyquorumv1connect.ClusterServiceUpdateSettingsProcedure:     {pki.Operator},

	keyquorumv1connect.ClusterServiceKeyringStatusProcedure:   {pki.Operator},
	keyquorumv1connect.ClusterServiceRetireMasterKeyProcedure: {pki.Operator},

	keyquorumv1connect.AuditServiceListProcedure:  {pki.Auditor},
	keyquorumv1connect.AuditServiceWatchProcedure: {pki.Auditor},
	keyquorumv1connect.AuditServiceHeadProcedure:  {pki.Auditor},

	keyquorumv1connect.AccessServiceCreateTokenProcedure: {pki.Operator},
	keyquorumv1connect.AccessServiceListTokensProcedure:  {pki.Operator},
	keyquorumv1connect.AccessServiceRevokeTokenProcedure: {pki.Operator},

	peerv1connect.PeerServiceForwardProcedure:      {pki.Node},
	peerv1connect.PeerServiceClockProcedure:        {pki.Node},
	peerv1connect.PeerServiceStandingProcedure:     {pki.Node},
	peerv1connect.PeerServiceTickProcedure:         {pki.Node},
	peerv1connect.PeerServiceAppliedProcedure:      {pki.Node},
	peerv1connect.PeerServiceChallengeProcedure:    {pki.Node},
	peerv1connect.PeerServiceJoinProcedure:         {pki.Node},
	peerv1connect.PeerServiceLeaveProcedure:        {pki.Node},
	peerv1connect.PeerServiceAuditRecordsProcedure: {pki.Node},
}

// metricsPath is where metrics are served, and metricsRoles who may read them where that is beside the RPCs.
const metricsPath = "/metrics"

var metricsRoles = []pki.Role{pki.Operator, pki.Auditor}

// identity is who sent a request, as far as that was shown.
type identity struct {
	// actor is the name that the record of changes has: "cert:NAME", "token:ID" or "anonymous".
	actor string
	// name is a certificate's.
	name  string
	roles []pki.Role
	// until is when a certificate runs out; zero for what does not.
	until time.Time
}

// anonymous is every caller where there is no access control.
var anonymous = &identity{actor: "anonymous", roles: anyRole}

func (i *identity) may(roles []pki.Role) bool {
	return slices.ContainsFunc(roles, func(r pki.Role) bool { return slices.Contains(i.roles, r) })
}

// known tells of an identity whether it was shown, and not assumed.
func (i *identity) known() bool { return i != anonymous }

// lapsed tells that what was shown when the connection was made has run out since.
func (i *identity) lapsed() bool { return !i.until.IsZero() && time.Now().After(i.until) }

// access decides who a caller is, and what that allows.
type access struct {
	// bearer finds who an API token stands for; nil where there is no access control.
	bearer func(ctx context.Context, token string) (Bearer, error)
}

// admit gives who sent a request, if that one has one of the roles. The error is a *connect.Error.
func (a access) admit(r *http.Request, roles []pki.Role) (*identity, *connect.Error) {
	if a.bearer == nil {
		return anonymous, nil
	}
	who, err := a.identify(r)
	if err != nil {
		return nil, wireError(err)
	}
	if !who.may(roles) {
		return who, wireError(fmt.Errorf("%w: it takes the role %s, and %s has %s",
			fault.ErrPermissionDenied, listed(roles, " or "), who.actor, listed(who.roles, ", ")))
	}
	return who, nil
}

func listed(roles []pki.Role, between string) string {
	if len(roles) == 0 {
		return "of nobody"
	}
	var names []string
	for _, r := range roles {
		names = append(names, string(r))
	}
	return strings.Join(names, between)
}

// identify tells who sent a request: whom its API token stands for if there is one, and whom the connection's
// certificate names if not.
func (a access) identify(r *http.Request) (*identity, error) {
	if header := r.Header["Authorization"]; len(header) > 0 {
		return a.ofHeader(r.Context(), header)
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, fmt.Errorf("%w: show a client certificate, or an API token (Authorization: Bearer …)", fault.ErrUnauthenticated)
	}
	return shownBy(r.Context(), r.TLS)
}

func (a access) ofHeader(ctx context.Context, header []string) (*identity, error) {
	scheme, token, _ := strings.Cut(header[0], " ")
	if len(header) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return nil, fmt.Errorf("%w: Authorization: must be Bearer and one API token", fault.ErrUnauthenticated)
	}
	held, err := a.bearer(ctx, token)
	if err != nil {
		return nil, err
	}
	return &identity{actor: "token:" + held.ID, roles: held.Roles}, nil
}

// shown is whom a connection's certificate names, so that it is read once and not for each request.
type shown struct {
	once sync.Once
	who  *identity
	err  error
}

type shownKey struct{}

// withShown is a server's ConnContext.
func withShown(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, shownKey{}, new(shown))
}

// grace is how long a connection may outlive the certificate that it was made with. The first answer after that one has run
// out ends the connection, in good order, so that a caller that has a new certificate by then never sees a refusal.
const grace = time.Minute

// shownBy gives whom the certificate of a connection names, which was verified when the connection was made.
func shownBy(ctx context.Context, state *tls.ConnectionState) (*identity, error) {
	s, ok := ctx.Value(shownKey{}).(*shown)
	if !ok {
		s = new(shown)
	}
	s.once.Do(func() { s.read(state) })
	if s.err == nil && time.Since(s.who.until) > grace {
		return nil, fmt.Errorf("%w: the certificate that this connection was made with has expired: connect anew", fault.ErrUnauthenticated)
	}
	return s.who, s.err
}

func (s *shown) read(state *tls.ConnectionState) {
	id, err := pki.Identify(state.PeerCertificates[0])
	if err != nil {
		s.err = fmt.Errorf("%w: %w", fault.ErrUnauthenticated, err)
		return
	}
	s.who = &identity{actor: actorOf(id.Name), name: id.Name, roles: id.Roles, until: state.PeerCertificates[0].NotAfter}
}

// maxActor is the longest name of an actor that a record can have, in bytes.
const maxActor = 256

// actorOf is what the record calls the holder of a certificate. A name that does not fit is cut, and a hash of the whole tells it
// from others.
func actorOf(name string) string {
	actor := "cert:" + name
	if len(actor) <= maxActor {
		return actor
	}
	sum := sha256.Sum256([]byte(name))
	mark := fmt.Sprintf("…%x", sum[:16])
	return strings.ToValidUTF8(actor[:maxActor-len(mark)], "") + mark
}

// challengeHeader tells a caller how it can say who it is (RFC 9110, 11.6.1).
func challengeHeader(w http.ResponseWriter, err *connect.Error) {
	if err.Code() == connect.CodeUnauthenticated {
		w.Header().Set("WWW-Authenticate", `Bearer realm="keyquorum"`)
	}
}

// guarded serves what is no RPC to those who have one of the roles.
func (a access) guarded(roles []pki.Role, lines *room, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := a.admit(r, roles); err != nil {
			challengeHeader(w, err)
			status := http.StatusForbidden
			if err.Code() == connect.CodeUnauthenticated {
				status = http.StatusUnauthorized
			}
			tell(w, r, lines, status, err.Message())
			return
		}
		next.ServeHTTP(w, r)
	})
}

// errNotItself says that a node spoke for another.
var errNotItself = errors.New("a node can speak for itself alone")

// errNotMember says that a node is none of the members by its certificate's name and its id, such as one that was removed.
var errNotMember = errors.New("it takes a member's certificate")

// speaksFor tells whether the caller is the node of that name, where that can be known.
func speaksFor(ctx context.Context, name string) error {
	who := callOf(ctx).who
	if who == nil || !who.known() || who.name == name {
		return nil
	}
	return fmt.Errorf("%w: %w: the certificate is that of %q", fault.ErrPermissionDenied, errNotItself, who.name)
}

// speaksAsMember tells whether the caller is the member with the id, where that can be known: the certificate has its name, and
// nothing but its own word has its id.
func speaksAsMember(ctx context.Context, node Peers, id string) error {
	who := callOf(ctx).who
	if who == nil || !who.known() || node.Admits(who.name, id) {
		return nil
	}
	return fmt.Errorf("%w: %w: the certificate is that of %q", fault.ErrPermissionDenied, errNotMember, who.name)
}

package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/secret"
	"github.com/keyquorum/keyquorum/internal/token"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Verify judges one token. An error says that this node cannot tell: it is retryable, here or elsewhere.
func (s *Service) Verify(ctx context.Context, req *v1.VerifyRequest) (*v1.VerifyResponse, error) {
	return s.verify(ctx, query{raw: req.GetToken(), audience: req.GetAudience(), omitClaims: req.GetOmitClaims()})
}

// VerifyBatch judges each token by itself; one that this node cannot judge fails the whole batch.
func (s *Service) VerifyBatch(ctx context.Context, req *v1.VerifyBatchRequest) (*v1.VerifyBatchResponse, error) {
	verdicts := make([]*v1.VerifyResponse, len(req.GetTokens()))
	for i, raw := range req.GetTokens() {
		err := ctx.Err() // nobody waits for the rest
		if err != nil {
			return nil, err
		}
		verdicts[i], err = s.verify(ctx, query{raw: raw, audience: req.GetAudience(), omitClaims: req.GetOmitClaims()})
		if err != nil {
			return nil, fmt.Errorf("tokens[%d]: %w", i, err)
		}
	}
	return &v1.VerifyBatchResponse{Verdicts: verdicts}, nil
}

// query is one question.
type query struct {
	raw, audience string
	omitClaims    bool
}

// verify judges on the state as it is, and again once the node has caught up with a token that is ahead of it: a
// node that is merely behind calls nothing invalid.
func (s *Service) verify(ctx context.Context, q query) (*v1.VerifyResponse, error) {
	view := s.cfg.View()
	verified, reason, err := s.judge(view, q)
	for {
		caughtUp := s.ahead(view, verified, reason, err)
		if caughtUp == nil {
			break
		}
		if view, err = s.catchUp(ctx, caughtUp); err != nil {
			return nil, err
		}
		verified, reason, err = s.judge(view, q)
	}
	if err != nil {
		return nil, err
	}
	return s.answer(view, q, verified, reason), nil
}

// judge gives the verdict on one state, which supplies key, issuer and time.
func (s *Service) judge(view *fsm.View, q query) (token.Verified, token.Reason, error) {
	if !view.Founded() {
		return token.Verified{}, token.None, fault.ErrNotFounded
	}
	now, err := s.now(view)
	if err != nil {
		return token.Verified{}, token.None, err
	}
	var opened *secret.Key
	defer func() { opened.Wipe() }()
	return token.Verify(q.raw, token.Check{
		Now:      now,
		Issuer:   view.Settings().Issuer,
		Audience: q.audience,
		Key: func(subject, kid string) (*secret.Key, error) {
			opened, err = s.key(view, subject, kid)
			return opened, err
		},
	})
}

// now is the later of the time that this node last knew, carried on, and the log's.
func (s *Service) now(view *fsm.View) (time.Time, error) {
	last, ever := s.cfg.Last()
	if !ever {
		return time.Time{}, fmt.Errorf("%w: this node has not measured a majority of the voters' clocks since it started", fault.ErrTimeUnknown)
	}
	if logTime := view.Time(); logTime.After(last) {
		return logTime, nil
	}
	return last, nil
}

// key finds and opens a key; nil if there is none. A key id from beyond the state's revision may be one that this
// node has yet to hear of.
func (s *Service) key(view *fsm.View, subject, kid string) (*secret.Key, error) {
	id, err := fsm.ParseKeyID(kid)
	if err != nil {
		return nil, nil //nolint:nilnil // no such key, and no failure: the callback's contract
	}
	key, ok := view.Key(subject, id)
	if !ok {
		if id.Revision > view.Revision() {
			return nil, &aheadError{revision: id.Revision}
		}
		return nil, nil //nolint:nilnil // as above
	}
	opened, err := s.cfg.Keyring.Open(subject, id.Random, key.Sealed)
	if err != nil {
		return nil, fmt.Errorf("open key %s: %w", id, err)
	}
	return opened, nil
}

// aheadError is a key id from beyond the state.
type aheadError struct{ revision uint64 }

func (e *aheadError) Error() string { return fmt.Sprintf("key of revision %d is ahead", e.revision) }

// ahead gives what the state must come to before a token can be judged for good; nil if it can be now.
//
// A token dated in the future has a valid signature when that is found out, so the log had reached its date when
// it was issued. The leader's state lacks nothing, so there the verdict stands.
func (s *Service) ahead(view *fsm.View, verified token.Verified, reason token.Reason, err error) func(*fsm.View) bool {
	var ahead *aheadError
	switch {
	case errors.As(err, &ahead):
		return func(v *fsm.View) bool { return v.Revision() >= ahead.revision }
	case err == nil && reason == token.NotYetValid && !s.cfg.Leading():
		from := later(verified.IssuedAt, verified.NotBefore)
		return func(v *fsm.View) bool { return !v.Time().Before(from) }
	case err == nil && reason == token.IssuerMismatch && !s.cfg.Leading():
		// The issuer may have been changed by an entry that this node has yet to apply. A second after the
		// token's date, which is in whole seconds, the log has come past it.
		judged, past := view.Settings().Issuer, verified.IssuedAt.Add(time.Second)
		if !view.Time().Before(past) {
			return nil
		}
		return func(v *fsm.View) bool { return v.Settings().Issuer != judged || !v.Time().Before(past) }
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// catchUp waits, within ctx, until the state is as asked. Freshness rounds will bound this wait; until then the
// number of those who wait is bounded.
func (s *Service) catchUp(ctx context.Context, ok func(*fsm.View) bool) (*fsm.View, error) {
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return nil, fmt.Errorf("%w: too many verifications wait for it to catch up", fault.ErrBehind)
	}
	view, err := s.cfg.Wait(ctx, ok)
	if err != nil {
		if errors.Is(err, fault.ErrHalted) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: it lacks what the token has to be judged by; ask again, or ask another node", fault.ErrBehind)
	}
	return view, nil
}

// answer says of an invalid token nothing but why it is.
func (s *Service) answer(view *fsm.View, q query, verified token.Verified, reason token.Reason) *v1.VerifyResponse {
	res := &v1.VerifyResponse{Revision: view.Revision(), Node: s.cfg.Node}
	if reason != token.None {
		res.Reason = reasons[reason]
		return res
	}
	res.Valid = true
	res.Subject, res.KeyId = verified.Subject, verified.KeyID
	res.IssuedAt, res.ExpiresAt = timestamppb.New(verified.IssuedAt), timestamppb.New(verified.ExpiresAt)
	if !q.omitClaims {
		res.Claims = verified.Claims()
	}
	return res
}

var reasons = map[token.Reason]v1.VerifyResponse_Reason{
	token.Malformed:        v1.VerifyResponse_MALFORMED,
	token.Expired:          v1.VerifyResponse_EXPIRED,
	token.KeyNotFound:      v1.VerifyResponse_KEY_NOT_FOUND,
	token.SignatureInvalid: v1.VerifyResponse_SIGNATURE_INVALID,
	token.NotYetValid:      v1.VerifyResponse_NOT_YET_VALID,
	token.IssuerMismatch:   v1.VerifyResponse_ISSUER_MISMATCH,
	token.AudienceMismatch: v1.VerifyResponse_AUDIENCE_MISMATCH,
}

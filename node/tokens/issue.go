package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/token"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Issue makes a token. Its key and its expiry are committed before it is signed, so no token exists that the
// cluster does not know of.
func (s *Service) Issue(ctx context.Context, origin fsm.Origin, req *v1.IssueRequest) (*v1.IssueResponse, error) {
	spec := token.Spec{
		Subject:  req.GetSubject(),
		Audience: req.GetAudience(),
		ID:       token.NewID(),
		Claims:   req.GetClaims().AsMap(),
	}
	view := s.view()
	if !view.Founded() { // as where a node is new at an address that others take for the leader's
		return nil, fault.ErrNotFounded
	}
	if err := token.CheckSize(view.Settings().Issuer, spec.Subject, spec.Audience, spec.Claims); err != nil {
		return nil, err // before anything is recorded
	}
	res, err := s.record(ctx, origin, fsm.Issue{Subject: req.GetSubject(), TTL: req.GetTtl().AsDuration(), TokenID: spec.ID})
	if err != nil {
		return nil, err
	}
	spec.Issuer, spec.KeyID = res.Issuer, res.Key.ID.String()
	spec.IssuedAt, spec.ExpiresAt = res.IssuedAt, res.ExpiresAt
	signed, err := s.sign(spec, res.Key)
	if err != nil {
		return nil, err
	}
	return &v1.IssueResponse{
		Token:     signed,
		KeyId:     spec.KeyID,
		IssuedAt:  timestamppb.New(res.IssuedAt),
		ExpiresAt: timestamppb.New(res.ExpiresAt),
	}, nil
}

// record puts an Issue through the log. A key is made for it only where the state seems to need one, and if it
// turns out to be needed after all, the refusal changed nothing and the entry is proposed again with one.
func (s *Service) record(ctx context.Context, origin fsm.Origin, op fsm.Issue) (fsm.Result, error) {
	if s.needsKey(op.Subject) {
		candidate, err := s.candidate(op.Subject)
		if err != nil {
			return fsm.Result{}, err
		}
		op.Candidate = &candidate
	}
	res, err := s.cfg.Propose(ctx, fsm.Command{Origin: origin, Op: op})
	needed := op.Candidate == nil && errors.Is(err, &fsm.Refusal{Code: fsm.CodeNeedCandidate})
	if !needed && !sealedTooLate(err) {
		return res, err
	}
	return s.withKey(op.Subject, func(candidate fsm.Candidate) (fsm.Result, error) {
		op.Candidate = &candidate
		return s.cfg.Propose(ctx, fsm.Command{Origin: origin, Op: op})
	})
}

// withKey proposes with a new key of the subject's. If the master key that it is sealed under is retired by the time, which
// changed nothing, it proposes again with another: this node has the new primary one in its state by then.
func (s *Service) withKey(subject string, propose func(fsm.Candidate) (fsm.Result, error)) (res fsm.Result, err error) {
	for range 3 {
		candidate, err := s.candidate(subject)
		if err != nil {
			return fsm.Result{}, err
		}
		if res, err = propose(candidate); !sealedTooLate(err) {
			return res, err
		}
	}
	return res, fmt.Errorf("%w: the master key is being changed", fault.ErrOverloaded)
}

// sealedTooLate tells whether a new key was refused for the master key that it is sealed under.
func sealedTooLate(err error) bool {
	return errors.Is(err, &fsm.Refusal{Code: fsm.CodeMasterKeyRetired})
}

// needsKey tells whether the subject has no active key, or one that will be due when the entry is applied.
func (s *Service) needsKey(subject string) bool {
	user, ok := s.view().User(subject)
	if !ok {
		return true
	}
	now, known := s.cfg.Now()
	const ahead = time.Second // how long the entry may be on its way
	return known && user.Active.Earliest != 0 && user.Active.Earliest <= now.Add(ahead).Unix()
}

// candidate makes a key of the subject's, sealed.
func (s *Service) candidate(subject string) (fsm.Candidate, error) {
	random, sealed, err := s.cfg.Keyring.NewKey(subject)
	if err != nil {
		return fsm.Candidate{}, fmt.Errorf("make a key: %w", err)
	}
	return fsm.Candidate{Random: random, Sealed: sealed}, nil
}

func (s *Service) sign(spec token.Spec, key fsm.Key) (string, error) {
	opened, err := s.cfg.Keyring.Open(spec.Subject, key.ID.Random, key.Sealed)
	if err != nil {
		return "", fmt.Errorf("open key %s: %w", key.ID, err)
	}
	defer opened.Wipe()
	return token.Sign(spec, opened)
}

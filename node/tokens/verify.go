package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/plant"
	"github.com/keyquorum/keyquorum/internal/secret"
	"github.com/keyquorum/keyquorum/internal/token"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Verify judges one token. An error says that this node cannot tell: it is retryable, here or elsewhere.
func (s *Service) Verify(ctx context.Context, req *v1.VerifyRequest) (*v1.VerifyResponse, error) {
	verdicts, err := s.verify(ctx, req.GetConsistency(), []string{req.GetToken()}, query{req.GetAudience(), req.GetOmitClaims()})
	if err != nil {
		return nil, err
	}
	return verdicts[0], nil
}

// VerifyBatch judges each token by itself; one that this node cannot judge fails the whole batch.
func (s *Service) VerifyBatch(ctx context.Context, req *v1.VerifyBatchRequest) (*v1.VerifyBatchResponse, error) {
	verdicts, err := s.verify(ctx, req.GetConsistency(), req.GetTokens(), query{req.GetAudience(), req.GetOmitClaims()})
	if err != nil {
		return nil, err
	}
	return &v1.VerifyBatchResponse{Verdicts: verdicts}, nil
}

// query is what is asked of each token.
type query struct {
	audience   string
	omitClaims bool
}

// verify judges each token on the state as it is, and those that are ahead of it once more after a round: a node that is
// merely behind calls nothing invalid, and what no round has brought was never there.
func (s *Service) verify(ctx context.Context, level v1.VerifyRequest_Consistency, tokens []string, q query) ([]*v1.VerifyResponse, error) {
	from, err := s.read(ctx, level)
	if err != nil {
		return nil, err
	}
	verdicts := make([]*v1.VerifyResponse, len(tokens))
	ahead, err := s.judgeAll(ctx, from, tokens, q, verdicts)
	if err != nil || !ahead {
		return verdicts, err
	}
	if err := s.round(ctx, false); err != nil {
		if ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", fault.ErrAhead, err)
		}
		return nil, err
	}
	if from, err = s.again(level); err != nil {
		return nil, err
	}
	_, err = s.judgeAll(ctx, from, tokens, q, verdicts)
	return verdicts, err
}

// judgeAll gives a verdict on each token that has none, and tells whether some are ahead of the state.
func (s *Service) judgeAll(ctx context.Context, from reading, tokens []string, q query, verdicts []*v1.VerifyResponse) (ahead bool, err error) {
	for i, raw := range tokens {
		if verdicts[i] != nil {
			continue
		}
		if err := ctx.Err(); err != nil { // nobody waits for the rest
			return false, err
		}
		verified, reason, err := s.judge(from, raw, q)
		switch {
		case errors.Is(err, errAhead) || err == nil && !from.final && mayBeAhead(reason):
			ahead = true
		case err != nil && len(tokens) > 1:
			return false, fmt.Errorf("tokens[%d]: %w", i, err)
		case err != nil:
			return false, err
		default:
			verdicts[i] = s.answer(from, q, verified, reason)
			if reason != token.None {
				s.refusals.tell(ctx, raw, reason)
			}
		}
	}
	return ahead, nil
}

// mayBeAhead tells whether the verdict can be another one on a later state: the log's time may have come to the token's
// date, and the issuer may have been changed.
func mayBeAhead(reason token.Reason) bool {
	return reason == token.NotYetValid || reason == token.IssuerMismatch
}

// judge gives the verdict on one state, which supplies key, issuer and time. Where the verdict hangs on what the time is to
// more than is known of it, there is none.
func (s *Service) judge(from reading, raw string, q query) (token.Verified, token.Reason, error) {
	now, err := s.now(from.view)
	if err != nil {
		return token.Verified{}, token.None, err
	}
	if plant.On(plant.Leeway) {
		if verified, reason, err := s.judgeAt(now.Add(-time.Second), from, raw, q); reason == token.None && err == nil {
			return verified, reason, nil
		}
	}
	verified, reason, err := s.judgeAt(now, from, raw, q)
	if from.doubt == 0 || err != nil || reason != token.None && reason != token.Expired && reason != token.NotYetValid {
		return verified, reason, err
	}
	earliest := now.Add(-from.doubt)
	if logTime := from.view.Time(); logTime.After(earliest) {
		earliest = logTime // it was that late already, by a majority's clocks
	}
	for _, other := range []time.Time{earliest, now.Add(from.doubt)} {
		_, then, err := s.judgeAt(other, from, raw, q)
		if err == nil && then != reason {
			err = fmt.Errorf("%w to less than %v, and the token's dates are closer: ask again, or another node", fault.ErrTimeUnknown, from.doubt)
		}
		if err != nil {
			return token.Verified{}, token.None, err
		}
	}
	return verified, reason, nil
}

func (s *Service) judgeAt(now time.Time, from reading, raw string, q query) (token.Verified, token.Reason, error) {
	var err error
	var opened *secret.Key
	defer func() { opened.Wipe() }()
	return token.Verify(raw, token.Check{
		Now:      now,
		Issuer:   from.view.Settings().Issuer,
		Audience: q.audience,
		Key: func(subject, kid string) (*secret.Key, error) {
			opened, err = s.key(from, subject, kid)
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
// node has yet to hear of, unless the state has been through a round for it: then there never was such a key.
func (s *Service) key(from reading, subject, kid string) (*secret.Key, error) {
	id, err := fsm.ParseKeyID(kid)
	if err != nil {
		return nil, nil //nolint:nilnil // no such key, and no failure: the callback's contract
	}
	key, ok := from.view.Key(subject, id)
	if !ok {
		revision := from.view.Revision()
		if plant.On(plant.EarlyKey) {
			plant.Dawdle(plant.EarlyKey)
			revision = s.view().Revision()
		}
		if id.Revision > revision && !from.final {
			return nil, errAhead
		}
		return nil, nil //nolint:nilnil // as above
	}
	opened, err := s.cfg.Keyring.Open(subject, id.Random, key.Sealed)
	if errors.Is(err, fault.ErrKeyring) {
		err = fmt.Errorf("%w: %w", fault.ErrMasterKey, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open key %s: %w", id, err)
	}
	return opened, nil
}

// errAhead is of a key id from beyond the state.
var errAhead = errors.New("the key id is ahead of the state")

// answer says of an invalid token nothing but why it is.
func (s *Service) answer(from reading, q query, verified token.Verified, reason token.Reason) *v1.VerifyResponse {
	res := &v1.VerifyResponse{Revision: from.view.Revision(), Node: s.cfg.Node}
	if from.proved {
		res.Staleness = durationpb.New(from.age)
	}
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

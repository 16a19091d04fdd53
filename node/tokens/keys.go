package tokens

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/plant"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Rotate makes the subject a new active key.
func (s *Service) Rotate(ctx context.Context, origin fsm.Origin, req *v1.RotateRequest) (*v1.RotateResponse, error) {
	expected, err := keyID("expectedKeyId", req.GetExpectedKeyId())
	if err != nil {
		return nil, err
	}
	res, err := s.withKey(req.GetSubject(), func(candidate fsm.Candidate) (fsm.Result, error) {
		return s.cfg.Propose(ctx, fsm.Command{Origin: origin, Op: fsm.Rotate{
			Subject: req.GetSubject(), Expected: expected, Candidate: candidate,
		}})
	})
	if err != nil {
		return nil, err
	}
	return &v1.RotateResponse{KeyId: res.Key.ID.String(), Revision: res.Revision}, nil
}

// Revoke deletes all of the subject's keys and makes a new one. It returns once no node accepts one of them.
func (s *Service) Revoke(ctx context.Context, origin fsm.Origin, req *v1.RevokeRequest) (*v1.RevokeResponse, error) {
	expected, err := keyID("expectedKeyId", req.GetExpectedKeyId())
	if err != nil {
		return nil, err
	}
	res, finality, err := s.end(ctx, func() (fsm.Result, error) {
		return s.withKey(req.GetSubject(), func(candidate fsm.Candidate) (fsm.Result, error) {
			return s.cfg.Propose(ctx, fsm.Command{Origin: origin, Op: fsm.Revoke{
				Subject: req.GetSubject(), Expected: expected, Candidate: candidate,
			}})
		})
	})
	if err != nil {
		return nil, err
	}
	return &v1.RevokeResponse{KeyId: res.Key.ID.String(), Revision: res.Revision, Finality: finality}, nil
}

// Delete forgets the subject. It returns as Revoke does.
func (s *Service) Delete(ctx context.Context, origin fsm.Origin, req *v1.DeleteRequest) (*v1.DeleteResponse, error) {
	expected, err := keyID("expectedKeyId", req.GetExpectedKeyId())
	if err != nil {
		return nil, err
	}
	res, finality, err := s.end(ctx, func() (fsm.Result, error) {
		return s.cfg.Propose(ctx, fsm.Command{Origin: origin, Op: fsm.Delete{Subject: req.GetSubject(), Expected: expected}})
	})
	if err != nil {
		return nil, err
	}
	return &v1.DeleteResponse{Revision: res.Revision, Finality: finality}, nil
}

// end puts through the log what ends keys, and waits until that holds on all nodes. A refusal can say that they have
// ended before, by a call that may not have waited to the end: so it is an answer only once the same holds.
func (s *Service) end(ctx context.Context, propose func() (fsm.Result, error)) (fsm.Result, *v1.Finality, error) {
	select {
	case s.ending <- struct{}{}:
		defer func() { <-s.ending }()
	default:
		return fsm.Result{}, nil, fmt.Errorf("%w: %d revocations wait for nodes that do not answer", fault.ErrOverloaded, cap(s.ending))
	}
	begun := time.Now()
	res, refusal := propose()
	if res.Position == 0 { // nothing was applied
		return res, nil, refusal
	}
	if refusal != nil && plant.On(plant.IdleRevoke) {
		return res, nil, refusal
	}
	applied, expired, err := s.cfg.Settle(ctx, res)
	if err != nil {
		return res, nil, err
	}
	return res, &v1.Finality{
		AppliedNodes: uint32(applied), ExpiredNodes: uint32(expired), Took: durationpb.New(time.Since(begun)),
	}, refusal
}

// keyID reads an optional key id.
func keyID(field, text string) (fsm.KeyID, error) {
	if text == "" {
		return fsm.KeyID{}, nil
	}
	id, err := fsm.ParseKeyID(text)
	if err != nil {
		return fsm.KeyID{}, fault.Invalid(field, err.Error())
	}
	return id, nil
}

// Get shows a subject's keys.
func (s *Service) Get(_ context.Context, req *v1.GetRequest) (*v1.GetResponse, error) {
	view := s.view()
	user, ok := view.User(req.GetSubject())
	if !ok {
		return nil, &fsm.Refusal{Code: fsm.CodeUnknownSubject, Field: "subject", Message: "no such subject"}
	}
	return &v1.GetResponse{Keys: keysOf(user), Revision: view.Revision()}, nil
}

const (
	defaultPage = 100
	// maxPageBytes bounds the subjects of a page in protobuf's encoding, the first aside; JSON has up to four times as
	// many. Whole pages of users with a key or two stay below it.
	maxPageBytes = 128 << 10
)

// List shows one page of subjects in byte order. A page's token is the last subject of the page before.
func (s *Service) List(_ context.Context, req *v1.ListRequest) (*v1.ListResponse, error) {
	after, err := readPageToken(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	view := s.view()
	users := view.Users(after, size+1)
	subjects := pageOf(users[:min(size, len(users))])
	res := &v1.ListResponse{Subjects: subjects, Revision: view.Revision()}
	if len(users) > len(subjects) {
		res.NextPageToken = pageToken(subjects[len(subjects)-1].GetSubject())
	}
	return res, nil
}

// pageOf shows as many of the users, from the first on, as have room on one page.
func pageOf(users []*fsm.User) []*v1.SubjectKeys {
	var page []*v1.SubjectKeys
	room := maxPageBytes
	for _, user := range users {
		shown := &v1.SubjectKeys{Subject: user.Subject, Keys: keysOf(user)}
		if room -= proto.Size(shown); room < 0 && len(page) > 0 {
			break
		}
		page = append(page, shown)
	}
	return page
}

func pageToken(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }

// readPageToken gives the subject that a page comes after. A token is read in the spelling that List gave it, and in
// no other that means the same to base64.
func readPageToken(text string) (after string, err error) {
	last, err := base64.RawURLEncoding.DecodeString(text)
	if after = string(last); err != nil || pageToken(after) != text {
		return "", fault.Invalid("pageToken", "is not one that List gave")
	}
	return after, nil
}

// keysOf gives the active key first, then the retiring ones, newest first.
func keysOf(user *fsm.User) []*v1.Key {
	keys := []*v1.Key{keyOf(user.Active, v1.Key_ACTIVE)}
	for _, key := range slices.Backward(user.Retiring) {
		keys = append(keys, keyOf(key, v1.Key_RETIRING))
	}
	return keys
}

func keyOf(key fsm.Key, state v1.Key_State) *v1.Key {
	return &v1.Key{
		KeyId:          key.ID.String(),
		State:          state,
		CreatedAt:      timestamppb.New(time.UnixMilli(key.Created)),
		EarliestExpiry: expiry(key.Earliest),
		LatestExpiry:   expiry(key.Latest),
	}
}

func expiry(seconds int64) *timestamppb.Timestamp {
	if seconds == 0 {
		return nil
	}
	return timestamppb.New(time.Unix(seconds, 0))
}

package tokens_test

import (
	"context"
	"errors"
	"testing"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node/tokens"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// sealer seals under the master key that the state says, as a node does.
type sealer struct {
	*seal.Keyring
	rig *rig
}

func (s *sealer) NewKey(subject string) (uint64, []byte, error) {
	return s.NewKeyUnder(s.rig.fsm.View().PrimaryMasterKey(), subject)
}

// rotate uses another master key, has all keys sealed anew, and retires the one before.
func (s *sealer) rotate(t *testing.T) {
	t.Helper()
	next, err := s.WithNewKey()
	if err != nil {
		t.Fatal(err)
	}
	s.Take(next)
	before := s.rig.fsm.View().PrimaryMasterKey()
	added := s.IDs()[len(s.IDs())-1]
	check, err := s.ProveUnder(added, "cluster", "c")
	if err != nil {
		t.Fatal(err)
	}
	ops := []fsm.Op{fsm.UseMasterKey{ID: added, KeyringCheck: check}, s.rewrap(t, added)}
	if before != 0 {
		ops = append(ops, fsm.RetireMasterKey{ID: before})
	}
	for _, op := range ops {
		if _, err := s.rig.propose(t.Context(), fsm.Command{Op: op}); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *sealer) rewrap(t *testing.T, to uint32) fsm.Rewrap {
	t.Helper()
	var op fsm.Rewrap
	for _, u := range s.rig.fsm.View().Users("", 100) {
		for _, k := range append([]fsm.Key{u.Active}, u.Retiring...) {
			sealed, err := s.Reseal(to, u.Subject, k.ID.Random, k.Sealed)
			if err != nil {
				t.Fatal(err)
			}
			op.Items = append(op.Items, fsm.RewrapItem{Subject: u.Subject, Key: k.ID, Sealed: sealed})
		}
	}
	return op
}

// Where the master key under which a new key was sealed is retired before the entry is applied, the caller does not
// notice: the service seals another.
func TestMasterKeyIsRetiredWhileAKeyIsOnItsWay(t *testing.T) {
	keyring, err := seal.NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	s := &sealer{Keyring: keyring}
	s.rig = newRig(t, func(cfg *tokens.Config) { cfg.Keyring = s })
	s.rotate(t)
	for name, call := range map[string]func(context.Context) error{
		"issue": func(ctx context.Context) error {
			res, err := s.rig.Issue(ctx, fsm.Origin{}, &v1.IssueRequest{Subject: "new"})
			if err != nil {
				return err
			}
			verdict, err := s.rig.Verify(ctx, &v1.VerifyRequest{Token: res.GetToken()})
			if err == nil && !verdict.GetValid() {
				t.Errorf("the token is %s", verdict.GetReason())
			}
			return err
		},
		"rotate": func(ctx context.Context) error {
			_, err := s.rig.Rotate(ctx, fsm.Origin{}, &v1.RotateRequest{Subject: "ada"})
			return err
		},
		"revoke": func(ctx context.Context) error {
			_, err := s.rig.Revoke(ctx, fsm.Origin{}, &v1.RevokeRequest{Subject: "ada"})
			return err
		},
	} {
		if _, err := s.rig.Issue(t.Context(), fsm.Origin{}, &v1.IssueRequest{Subject: "ada"}); err != nil {
			t.Fatal(err)
		}
		first := s.rig.fsm.View().PrimaryMasterKey()
		s.rig.before = func() { s.rotate(t) }
		s.rig.settled = nil
		if err := call(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s.rig.before != nil || s.rig.fsm.View().PrimaryMasterKey() == first {
			t.Fatalf("%s: the master key was not rotated", name)
		}
		if s.rig.fsm.View().SealedElsewhere() != 0 {
			t.Errorf("%s: a key is sealed under a retired master key", name)
		}
		if name == "revoke" && len(s.rig.settled) != 1 {
			t.Errorf("a revocation waited %d times", len(s.rig.settled))
		}
	}
	// One that is retired again and again is given up, as what can be tried again.
	s.rig.before = nil
	var again func()
	again = func() { s.rotate(t); s.rig.before = again }
	s.rig.before = again
	_, err = s.rig.Rotate(t.Context(), fsm.Origin{}, &v1.RotateRequest{Subject: "ada"})
	if err == nil || errors.Is(err, &fsm.Refusal{Code: fsm.CodeMasterKeyRetired}) {
		t.Errorf("%v, want an error that callers know", err)
	}
}

// A node that lacks the master key of a token's key says that others can tell, and never that the token is invalid.
func TestVerifyWithoutTheMasterKey(t *testing.T) {
	keyring, err := seal.NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	s := &sealer{Keyring: keyring}
	s.rig = newRig(t, func(cfg *tokens.Config) { cfg.Keyring = s })
	s.rotate(t)
	res, err := s.rig.Issue(t.Context(), fsm.Origin{}, &v1.IssueRequest{Subject: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	s.Take(s.WithoutKey(s.rig.fsm.View().PrimaryMasterKey()))
	if verdict, err := s.rig.Verify(t.Context(), &v1.VerifyRequest{Token: res.GetToken()}); !errors.Is(err, fault.ErrMasterKey) {
		t.Errorf("%v, %v; want ErrMasterKey", verdict, err)
	}
}

package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node/tokens"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

const (
	bounded      = v1.VerifyRequest_BOUNDED
	linearizable = v1.VerifyRequest_LINEARIZABLE
	staleOK      = v1.VerifyRequest_STALE_OK
)

// at verifies a token at a level.
func (r *rig) at(level v1.VerifyRequest_Consistency, token string) (*v1.VerifyResponse, error) {
	return r.Verify(context.Background(), &v1.VerifyRequest{Token: token, Consistency: level})
}

// pair is two rigs with one keyring, the second of which has applied all but the last entries of the first.
func pair(t *testing.T, change func(*tokens.Config)) (ahead, behind *rig, catchUp func()) {
	t.Helper()
	var keyring tokens.Keyring
	ahead = newRig(t, func(c *tokens.Config) { keyring = c.Keyring })
	state := fsm.New(fsm.Config{OnHalt: func(err error) { t.Error(err) }})
	behind = newRig(t, func(c *tokens.Config) {
		c.Keyring, c.State = keyring, state.State
		if change != nil {
			change(c)
		}
	})
	behind.fsm, behind.index = state, 0
	catchUp = func() {
		for _, entry := range ahead.entries[behind.index:] {
			behind.apply(entry)
		}
	}
	catchUp()
	return ahead, behind, catchUp
}

func TestWhatAStateIsGoodForDependsOnItsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		token := r.issue(t, &v1.IssueRequest{Subject: "ada"}).GetToken()
		bound := fsm.DefaultSettings().MaxStaleness
		for _, c := range []struct {
			age      time.Duration
			unproved bool
			level    v1.VerifyRequest_Consistency
			refused  bool
		}{
			{age: bound, level: bounded},
			{age: bound, level: 0}, // what is meant by nothing
			{age: bound, level: linearizable},
			{age: bound + 1, level: bounded, refused: true},
			{age: bound + 1, level: 0, refused: true},
			{age: bound + 1, level: linearizable, refused: true},
			{age: time.Hour, level: staleOK},
			{unproved: true, level: bounded, refused: true},
			{unproved: true, level: linearizable, refused: true},
			{unproved: true, level: staleOK},
		} {
			r.age, r.unproved = c.age, c.unproved
			res, err := r.at(c.level, token)
			if c.refused {
				if !errors.Is(err, fault.ErrStale) {
					t.Errorf("%+v: %v, %v", c, res, err)
				}
				continue
			}
			if err != nil || !res.GetValid() || res.GetStaleness().AsDuration() != c.age || (res.GetStaleness() == nil) != c.unproved {
				t.Errorf("%+v: %v, %v", c, res, err)
			}
		}
		if want := []bool{true, true, true}; !slices.Equal(r.rounds, want) {
			t.Errorf("rounds %v, want %v: one for each that was linearizable", r.rounds, want)
		}
	})
}

func TestALinearizableVerificationSeesWhatItsRoundBrought(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead, r, catchUp := pair(t, nil)
		token := ahead.issue(t, &v1.IssueRequest{Subject: "ada"}).GetToken()
		catchUp()
		if _, err := ahead.Revoke(t.Context(), fsm.Origin{}, &v1.RevokeRequest{Subject: "ada"}); err != nil {
			t.Fatal(err)
		}
		if res, err := r.at(bounded, token); err != nil || !res.GetValid() {
			t.Errorf("from the state as it was: %v, %v", res, err)
		}
		r.round = func(context.Context) error { catchUp(); return nil }
		if res, err := r.at(linearizable, token); err != nil || res.GetReason() != v1.VerifyResponse_KEY_NOT_FOUND {
			t.Errorf("%v, %v", res, err)
		}
	})
}

// A token from the future is one whose key, date or issuer the state has not come to.
func TestATokenFromTheFutureIsJudgedAfterARound(t *testing.T) {
	for name, c := range map[string]struct {
		reason  v1.VerifyResponse_Reason
		prepare func(t *testing.T, ahead *rig) (slow time.Time)
	}{
		"key": {reason: v1.VerifyResponse_KEY_NOT_FOUND, prepare: func(*testing.T, *rig) time.Time { return time.Now() }},
		"date": {reason: v1.VerifyResponse_NOT_YET_VALID, prepare: func(t *testing.T, ahead *rig) time.Time {
			ahead.issue(t, &v1.IssueRequest{Subject: "ada"})
			slow := time.Now()
			time.Sleep(10 * time.Second)
			return slow
		}},
		"issuer": {reason: v1.VerifyResponse_ISSUER_MISMATCH, prepare: func(t *testing.T, ahead *rig) time.Time {
			ahead.issue(t, &v1.IssueRequest{Subject: "ada"})
			return time.Now()
		}},
	} {
		for _, level := range []v1.VerifyRequest_Consistency{bounded, staleOK} {
			t.Run(fmt.Sprint(name, "/", level), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var slow time.Time
					ahead, r, catchUp := pair(t, func(c *tokens.Config) {
						c.Last = func() (time.Time, bool) { return slow, true }
					})
					slow = c.prepare(t, ahead)
					catchUp()
					if name == "issuer" {
						if _, err := ahead.propose(t.Context(), fsm.Command{Op: fsm.UpdateSettings{Issuer: new("another")}}); err != nil {
							t.Fatal(err)
						}
					}
					token := ahead.issue(t, &v1.IssueRequest{Subject: "ada"}).GetToken()

					r.round = func(context.Context) error { return fault.ErrNoLeader }
					if res, err := r.at(level, token); !errors.Is(err, fault.ErrNoLeader) {
						t.Errorf("without a leader: %v, %v", res, err)
					}
					r.round = func(context.Context) error { catchUp(); return nil }
					if res, err := r.at(level, token); err != nil || !res.GetValid() {
						t.Errorf("once it has caught up: %v, %v", res, err)
					}
					_, r, _ = pair(t, func(c *tokens.Config) { // one whose round brings nothing
						c.Last = func() (time.Time, bool) { return slow, true }
					})
					if name == "key" {
						if res, err := r.at(level, token); err != nil || res.GetReason() != c.reason || len(r.rounds) != 1 {
							t.Errorf("if a round brings nothing: %v, %v, %d rounds", res, err, len(r.rounds))
						}
					}
				})
			})
		}
	}
}

func TestARoundIsGoodForTheStateThatItWasOfOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead, r, _ := pair(t, nil)
		token := ahead.issue(t, &v1.IssueRequest{Subject: "ada"}).GetToken()
		r.round = func(context.Context) error { r.unproved = true; return nil } // and then the state is put back
		for _, level := range []v1.VerifyRequest_Consistency{bounded, staleOK, linearizable} {
			r.unproved = false
			if res, err := r.at(level, token); !errors.Is(err, fault.ErrBehind) && !errors.Is(err, fault.ErrStale) {
				t.Errorf("%v: %v, %v", level, res, err)
			}
		}
	})
}

func TestABatchTakesOneRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead, r, catchUp := pair(t, nil)
		old := ahead.issue(t, &v1.IssueRequest{Subject: "old"}).GetToken()
		catchUp()
		var raw []string
		for i := range 20 {
			raw = append(raw, ahead.issue(t, &v1.IssueRequest{Subject: fmt.Sprint("user-", i)}).GetToken(), old)
		}
		r.round = func(context.Context) error { catchUp(); return nil }
		res, err := r.VerifyBatch(t.Context(), &v1.VerifyBatchRequest{Tokens: raw})
		if err != nil || len(res.GetVerdicts()) != len(raw) || len(r.rounds) != 1 {
			t.Fatalf("%v, %v, %d rounds", res, err, len(r.rounds))
		}
		for i, verdict := range res.GetVerdicts() {
			if !verdict.GetValid() {
				t.Errorf("tokens[%d]: %v", i, verdict)
			}
		}
	})
}

func TestThoseWhoWaitForARoundAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead, r, _ := pair(t, func(c *tokens.Config) { c.MaxWaiters = 2 })
		token := ahead.issue(t, &v1.IssueRequest{Subject: "ada"}).GetToken()
		enough := make(chan struct{})
		r.round = func(context.Context) error { <-enough; return fault.ErrNoLeader }
		answers := make(chan error, 4)
		wait := func(levels ...v1.VerifyRequest_Consistency) {
			for _, level := range levels {
				go func() {
					_, err := r.at(level, token)
					answers <- err
				}()
			}
			synctest.Wait()
		}
		wait(bounded, staleOK)
		if _, err := r.at(bounded, token); !errors.Is(err, fault.ErrBehind) {
			t.Errorf("the third with a token from the future: %v", err)
		}
		wait(linearizable, linearizable) // they have a room of their own
		if _, err := r.at(linearizable, token); !errors.Is(err, fault.ErrBehind) {
			t.Errorf("the third that asks for a round: %v", err)
		}
		close(enough)
		for range 4 {
			if err := <-answers; !errors.Is(err, fault.ErrNoLeader) {
				t.Errorf("one that waited: %v", err)
			}
		}
	})
}

// What a revocation found done already may have been done by one that did not wait to the end.
func TestARevocationReturnsOnceItHoldsEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.issue(t, &v1.IssueRequest{Subject: "ada"})
		revoke := func(subject string) error {
			res, err := r.Revoke(t.Context(), fsm.Origin{}, &v1.RevokeRequest{Subject: subject})
			if f := res.GetFinality(); err == nil && (f.GetAppliedNodes() != 3 || f.GetExpiredNodes() != 1 || f.GetTook().AsDuration() != time.Second) {
				t.Errorf("finality %v", f)
			}
			return err
		}
		forget := func(subject string) error {
			_, err := r.Delete(t.Context(), fsm.Origin{}, &v1.DeleteRequest{Subject: subject})
			return err
		}
		r.settle = func(context.Context) error { time.Sleep(time.Second); return nil }
		unknown := &fsm.Refusal{Code: fsm.CodeUnknownSubject}
		for i, c := range []struct {
			do   func(string) error
			want error
		}{{revoke, nil}, {forget, nil}, {forget, unknown}, {revoke, unknown}} {
			start := time.Now()
			if err := c.do("ada"); !errors.Is(err, c.want) || time.Since(start) != time.Second || len(r.settled) != i+1 || r.settled[i] != r.index {
				t.Errorf("%d: %v after %v, waited for %v at %d", i, err, time.Since(start), r.settled, r.index)
			}
		}
		r.settle = func(context.Context) error { return fault.ErrOutcomeUnknown }
		if err := forget("ada"); !errors.Is(err, fault.ErrOutcomeUnknown) {
			t.Errorf("a wait that was cut short: %v", err)
		}
	})
}

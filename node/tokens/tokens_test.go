package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/node/tokens"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/jsoncodec"
)

// rig is a service over a state machine whose log is a function call, and whose time is the bubble's.
type rig struct {
	*tokens.Service
	fsm *fsm.FSM

	mu       sync.Mutex
	index    uint64
	commands []fsm.Command
	entries  [][]byte
	// before runs ahead of each command, as what somebody else put into the log first.
	before func()
	never  bool // the node has never known the time
	age    time.Duration
	// unproved is set while nothing is known of the state's age.
	unproved bool
	rounds   []bool // those that were waited for: whether they were urgent
	// round is what one comes to; nil for that it brings nothing.
	round func(ctx context.Context) error
	// settled are the positions that were waited for; settle is what that comes to.
	settled []uint64
	settle  func(ctx context.Context) error
}

func (r *rig) Age(*fsm.State) (time.Duration, bool) { return r.age, !r.unproved }

func (r *rig) Round(ctx context.Context, urgent bool) error {
	r.mu.Lock()
	r.rounds = append(r.rounds, urgent)
	r.mu.Unlock()
	if r.round == nil {
		return nil
	}
	return r.round(ctx)
}

func (r *rig) wait(ctx context.Context, res fsm.Result) (applied, expired int, err error) {
	r.settled = append(r.settled, res.Position)
	if r.settle != nil {
		err = r.settle(ctx)
	}
	return 3, 1, err
}

func newRig(t testing.TB, change func(*tokens.Config)) *rig {
	keyring, err := seal.NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{fsm: fsm.New(fsm.Config{OnHalt: func(err error) { t.Error(err) }})}
	now := func() (time.Time, bool) { return time.Now(), !r.never }
	cfg := tokens.Config{
		Node: "n1", State: r.fsm.State, Freshness: r, Settle: r.wait, Keyring: keyring, Propose: r.propose,
		Now: now, Last: now,
	}
	if change != nil {
		change(&cfg)
	}
	r.Service = tokens.New(cfg)
	if _, err := r.propose(t.Context(), fsm.Command{Op: fsm.Found{ClusterID: "c", Settings: fsm.DefaultSettings(), KeyringCheck: []byte("check")}}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) propose(_ context.Context, cmd fsm.Command) (fsm.Result, error) {
	if before := r.before; before != nil {
		r.before = nil
		before()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	data, err := fsm.EncodeEntry(fsm.Entry{Time: time.Now(), Commands: []fsm.Command{cmd}})
	if err != nil {
		return fsm.Result{}, err
	}
	r.commands, r.entries = append(r.commands, cmd), append(r.entries, data)
	res := r.apply(data)
	return res, res.Err
}

// apply is what the log does with an entry, whoever proposed it.
func (r *rig) apply(data []byte) fsm.Result {
	r.index++
	return r.fsm.Apply(&raft.Log{Index: r.index, Type: raft.LogCommand, Data: data}).([]fsm.Result)[0]
}

func (r *rig) issue(t testing.TB, req *v1.IssueRequest) *v1.IssueResponse {
	t.Helper()
	res, err := r.Issue(t.Context(), fsm.Origin{}, req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func (r *rig) verify(t testing.TB, token string) *v1.VerifyResponse {
	t.Helper()
	res, err := r.Verify(t.Context(), &v1.VerifyRequest{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestATokenSaysWhatWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		claims, _ := structpb.NewStruct(map[string]any{"role": "admin", "n": float64(1<<53 - 1)})
		issued := r.issue(t, &v1.IssueRequest{Subject: "ada", Ttl: durationpb.New(90 * time.Second), Audience: []string{"web", "app"}, Claims: claims})
		res, err := r.Verify(t.Context(), &v1.VerifyRequest{Token: issued.GetToken(), Audience: "app"})
		if err != nil || !res.GetValid() || res.GetSubject() != "ada" || res.GetKeyId() != issued.GetKeyId() || res.GetNode() != "n1" {
			t.Fatalf("%v, %v", res, err)
		}
		if got := res.GetExpiresAt().AsTime().Sub(res.GetIssuedAt().AsTime()); got != 90*time.Second {
			t.Errorf("it lives for %v", got)
		}
		all := res.GetClaims().AsMap()
		for _, name := range []string{"iss", "sub", "aud", "iat", "nbf", "exp", "jti"} {
			if all[name] == nil {
				t.Errorf("no claim %q", name)
			}
		}
		if all["role"] != "admin" || all["n"] != float64(1<<53-1) {
			t.Errorf("own claims came back as %v", all)
		}
		if res, _ := r.Verify(t.Context(), &v1.VerifyRequest{Token: issued.GetToken(), Audience: "app", OmitClaims: true}); res.GetClaims() != nil || !res.GetValid() {
			t.Errorf("without claims: %v", res)
		}
	})
}

func TestAnInvalidTokensClaimsAreNeverTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		issued := r.issue(t, &v1.IssueRequest{Subject: "ada", Audience: []string{"web"}})
		res := r.verify(t, issued.GetToken())
		if res.GetReason() != v1.VerifyResponse_AUDIENCE_MISMATCH || res.GetSubject() != "" || res.GetClaims() != nil || res.GetKeyId() != "" || res.GetExpiresAt() != nil {
			t.Errorf("%v", res)
		}
	})
}

func TestAKeyThatVanishesOnTheWayIsMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.issue(t, &v1.IssueRequest{Subject: "ada"})
		r.before = func() {
			if _, err := r.propose(t.Context(), fsm.Command{Op: fsm.Delete{Subject: "ada"}}); err != nil {
				t.Error(err)
			}
		}
		issued := r.issue(t, &v1.IssueRequest{Subject: "ada"}) // goes out without a key: there is one yet
		if res := r.verify(t, issued.GetToken()); !res.GetValid() {
			t.Errorf("%v", res)
		}
	})
}

func TestATokenThatWouldBeTooLongIsRefusedBeforeItIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		long := make([]string, 16)
		for i := range long {
			long[i] = fmt.Sprintf("%02d", i) + strings.Repeat("\"", 254) // doubled by escaping
		}
		before := len(r.commands)
		_, err := r.Issue(t.Context(), fsm.Origin{}, &v1.IssueRequest{Subject: "ada", Audience: long})
		var invalid *fault.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != "audience" {
			t.Errorf("got %v", err)
		}
		if len(r.commands) != before {
			t.Error("it went into the log")
		}
	})
}

// A node that has not measured the time for a while gives no verdict that hangs on it, unless the caller does not mind.
func TestAVerdictThatHangsOnTheTimeTakesAMeasurement(t *testing.T) {
	var doubt time.Duration
	r := newRig(t, func(c *tokens.Config) { c.Doubt = func() time.Duration { return doubt } })
	issued, err := r.Issue(t.Context(), fsm.Origin{}, &v1.IssueRequest{Subject: "ada", Ttl: durationpb.New(10 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	verify := func(level v1.VerifyRequest_Consistency) (*v1.VerifyResponse, error) {
		return r.Verify(t.Context(), &v1.VerifyRequest{Token: issued.GetToken(), Consistency: level})
	}
	doubt = 20 * time.Second
	for _, level := range []v1.VerifyRequest_Consistency{v1.VerifyRequest_BOUNDED, v1.VerifyRequest_LINEARIZABLE} {
		if res, err := verify(level); !errors.Is(err, fault.ErrTimeUnknown) {
			t.Errorf("%v: %v, %v", level, res, err)
		}
	}
	if res, err := verify(v1.VerifyRequest_STALE_OK); err != nil || !res.GetValid() {
		t.Errorf("STALE_OK: %v, %v", res, err)
	}
	doubt = 0
	if res, err := verify(v1.VerifyRequest_BOUNDED); err != nil || !res.GetValid() {
		t.Errorf("without doubt: %v, %v", res, err)
	}
}

func TestANodeThatNeverKnewTheTimeJudgesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		token := r.issue(t, &v1.IssueRequest{Subject: "ada"}).GetToken()
		r.never = true
		if res, err := r.Verify(t.Context(), &v1.VerifyRequest{Token: token}); !errors.Is(err, fault.ErrTimeUnknown) {
			t.Errorf("%v, %v", res, err)
		}
	})
}

func TestListGivesEverySubjectOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		const users = 25
		for i := range users {
			r.issue(t, &v1.IssueRequest{Subject: fmt.Sprintf("user-%02d", i)})
		}
		seen := r.list(t, 10, nil)
		if len(seen) != users || seen[0] != "user-00" || seen[users-1] != "user-24" {
			t.Errorf("%d subjects: %v", len(seen), seen)
		}
		if _, err := r.List(t.Context(), &v1.ListRequest{PageToken: "!"}); err == nil {
			t.Error("a page token that is none was taken")
		}
	})
}

// list gives the subjects of all pages, each of which look gets to see.
func (r *rig) list(t *testing.T, size int32, look func(*v1.ListResponse)) (seen []string) {
	t.Helper()
	for page := ""; ; {
		res, err := r.List(t.Context(), &v1.ListRequest{PageSize: size, PageToken: page})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range res.GetSubjects() {
			seen = append(seen, s.GetSubject())
		}
		if look != nil {
			look(res)
		}
		if page = res.GetNextPageToken(); page == "" {
			return seen
		}
	}
}

// However many keys the users of a page have, its size is bounded, and no user is left out.
func TestAPageIsOfBoundedSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		const users = 100
		for i := range users {
			name := fmt.Sprintf("user-%03d", i)
			for range 40 {
				r.issue(t, &v1.IssueRequest{Subject: name})
				if _, err := r.Rotate(t.Context(), fsm.Origin{}, &v1.RotateRequest{Subject: name}); err != nil {
					t.Fatal(err)
				}
			}
		}
		pages := 0
		seen := r.list(t, 1000, func(page *v1.ListResponse) {
			pages++
			binary, text := proto.Size(page), must(jsoncodec.Append(nil, page))
			if binary > 129<<10 || len(text) > 512<<10 {
				t.Errorf("%d subjects on a page of %d bytes, or %d in JSON", len(page.GetSubjects()), binary, len(text))
			}
		})
		if len(seen) != users || pages < 2 || seen[0] != "user-000" || seen[users-1] != "user-099" {
			t.Errorf("%d subjects on %d pages: %v", len(seen), pages, seen)
		}
	})
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func TestAPageTokenHasOneSpelling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		for _, name := range []string{"ab", "ac", "ad"} {
			r.issue(t, &v1.IssueRequest{Subject: name})
		}
		res, err := r.List(t.Context(), &v1.ListRequest{PageSize: 1})
		if err != nil || res.GetNextPageToken() != "YWI" {
			t.Fatalf("got %v, %v", res, err)
		}
		if _, err := r.List(t.Context(), &v1.ListRequest{PageToken: "YWI"}); err != nil {
			t.Error(err)
		}
		for _, other := range []string{"YWJ", "YW\nI", "YWI\r\n", "YWI=", "\n"} {
			_, err := r.List(t.Context(), &v1.ListRequest{PageToken: other})
			if invalid, ok := errors.AsType[*fault.InvalidError](err); !ok || invalid.Field != "pageToken" {
				t.Errorf("%q: got %v", other, err)
			}
		}
	})
}

func TestABatchThatNobodyWaitsForEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		token := r.issue(t, &v1.IssueRequest{Subject: "ada"}).GetToken()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.VerifyBatch(ctx, &v1.VerifyBatchRequest{Tokens: []string{token}}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// A leader whose directory was emptied is another node, and for a moment the others pass on to it what is for the leader.
func TestANodeInNoClusterIssuesNothingAndSaysSo(t *testing.T) {
	r := newRig(t, func(cfg *tokens.Config) { cfg.State = fsm.New(fsm.Config{}).State })
	if _, err := r.Issue(t.Context(), fsm.Origin{}, &v1.IssueRequest{Subject: "ada"}); !errors.Is(err, fault.ErrNotFounded) {
		t.Errorf("got %v, want %v", err, fault.ErrNotFounded)
	}
}

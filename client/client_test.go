package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// methods is every call of the client, each telling which node answered, where the answer tells.
var methods = map[string]func(context.Context, *client.Client, string) error{
	"Issue": func(ctx context.Context, c *client.Client, _ string) error {
		_, err := c.Issue(ctx, &v1.IssueRequest{Subject: "alice"})
		return err
	},
	"Verify": func(ctx context.Context, c *client.Client, _ string) error {
		_, err := c.Verify(ctx, &v1.VerifyRequest{Token: "good"})
		return err
	},
	"VerifyBatch": func(ctx context.Context, c *client.Client, _ string) error {
		_, err := c.VerifyBatch(ctx, &v1.VerifyBatchRequest{Tokens: []string{"good", "bad"}})
		return err
	},
	"Rotate": func(ctx context.Context, c *client.Client, expected string) error {
		_, err := c.Rotate(ctx, &v1.RotateRequest{Subject: "alice", ExpectedKeyId: expected})
		return err
	},
	"Revoke": func(ctx context.Context, c *client.Client, expected string) error {
		_, err := c.Revoke(ctx, &v1.RevokeRequest{Subject: "alice", ExpectedKeyId: expected})
		return err
	},
	"Delete": func(ctx context.Context, c *client.Client, expected string) error {
		_, err := c.Delete(ctx, &v1.DeleteRequest{Subject: "alice", ExpectedKeyId: expected})
		return err
	},
	"Get": func(ctx context.Context, c *client.Client, _ string) error {
		_, err := c.Get(ctx, &v1.GetRequest{Subject: "alice"})
		return err
	},
	"List": func(ctx context.Context, c *client.Client, _ string) error {
		_, err := c.List(ctx, &v1.ListRequest{})
		return err
	},
	"Status": func(ctx context.Context, c *client.Client, _ string) error {
		_, err := c.Status(ctx)
		return err
	},
	"Members": func(ctx context.Context, c *client.Client, _ string) error {
		_, err := c.Members(ctx)
		return err
	},
}

// once tells the methods that are not sent twice.
func once(name string) bool { return name == "Rotate" || name == "Revoke" || name == "Delete" }

func TestCallsGoToTheNextNodeWhenNobodyListens(t *testing.T) {
	for name, call := range methods {
		live := &fake{name: "live"}
		c := newClient(t, nobody(t), live.serve(t))
		if err := call(t.Context(), c, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if live.calls.Load() != 1 {
			t.Errorf("%s: the live node was asked %d times", name, live.calls.Load())
		}
	}
}

func TestUnavailableNodesAreLeftOnlyWhereThatIsSafe(t *testing.T) {
	for name, call := range methods {
		for _, expected := range []string{"", "key-1"} {
			busy := &fake{err: refusal(t, connect.CodeUnavailable, "the cluster has no leader")}
			live := &fake{}
			err := call(t.Context(), newClient(t, busy.serve(t), live.serve(t)), expected)
			if stays := once(name) && expected == ""; stays {
				if !errors.Is(err, client.ErrUnavailable) || live.calls.Load() != 0 {
					t.Errorf("%s without an expected key: %v; sent again %d times", name, err, live.calls.Load())
				}
			} else if err != nil || live.calls.Load() != 1 {
				t.Errorf("%s expecting %q: %v; the second node was asked %d times", name, expected, err, live.calls.Load())
			}
		}
	}
}

func TestADefiniteRefusalIsNotTakenElsewhere(t *testing.T) {
	for name, call := range methods {
		no := &fake{err: refusal(t, connect.CodePermissionDenied, "not yours")}
		other := &fake{}
		err := call(t.Context(), newClient(t, no.serve(t), other.serve(t)), "key-1")
		if !errors.Is(err, client.ErrPermissionDenied) || other.calls.Load() != 0 {
			t.Errorf("%s: %v; sent again %d times", name, err, other.calls.Load())
		}
	}
}

// Who names the nodes in their order waits for none.
func TestALimitIsNotTakenElsewhereInOrder(t *testing.T) {
	no := &fake{err: refusal(t, connect.CodeResourceExhausted, "too many", &v1.RetryAt{Time: timestamp(time.Now().Add(time.Second))})}
	other := &fake{}
	err := methods["Verify"](t.Context(), newClient(t, no.serve(t), other.serve(t)), "")
	if !errors.Is(err, client.ErrResourceExhausted) || other.calls.Load() != 0 {
		t.Errorf("%v; sent again %d times", err, other.calls.Load())
	}
}

func TestALostAnswerToAWriteIsAnUnknownOutcome(t *testing.T) {
	for name, call := range methods {
		other := &fake{}
		err := call(t.Context(), newClient(t, hangingUp(t), other.serve(t)), "")
		if !once(name) {
			if err != nil {
				t.Errorf("%s is safe to send again and was not: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, client.ErrOutcomeUnknown) || other.calls.Load() != 0 {
			t.Errorf("%s: %v; sent again %d times", name, err, other.calls.Load())
		}
	}
}

// changes are calls that say what shall be, so that they may be sent again.
var changes = map[string]func(context.Context, *client.Client) error{
	"UpdateSettings": func(ctx context.Context, c *client.Client) error {
		_, err := c.UpdateSettings(ctx, &v1.UpdateSettingsRequest{})
		return err
	},
	"RetireMasterKey": func(ctx context.Context, c *client.Client) error {
		_, err := c.RetireMasterKey(ctx, &v1.RetireMasterKeyRequest{})
		return err
	},
}

func TestAChangeThatIsSentAgainIsOpenUntilAnAttemptSucceeds(t *testing.T) {
	for name, change := range changes {
		live := &fake{}
		if err := change(t.Context(), newClient(t, hangingUp(t), live.serve(t))); err != nil || live.calls.Load() != 1 {
			t.Errorf("%s is safe to send again: %v; the second node was asked %d times", name, err, live.calls.Load())
		}
		if err := change(t.Context(), newClient(t, hangingUp(t))); !errors.Is(err, client.ErrOutcomeUnknown) {
			t.Errorf("%s, whose answer was lost: %v", name, err)
		}
		for _, code := range []connect.Code{connect.CodeUnavailable, connect.CodeFailedPrecondition, connect.CodeInvalidArgument} {
			no := &fake{err: refusal(t, code, "no")}
			if err := change(t.Context(), newClient(t, hangingUp(t), no.serve(t))); !errors.Is(err, client.ErrOutcomeUnknown) {
				t.Errorf("%s, whose answer was lost and which then met %s: %v", name, code, err)
			}
		}
		no := &fake{err: refusal(t, connect.CodeUnavailable, "the cluster has no leader")}
		if err := change(t.Context(), newClient(t, nobody(t), no.serve(t))); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("%s, which nobody took: %v", name, err)
		}
	}
}

func TestAChangeWithoutAnAnswerInTimeIsOpen(t *testing.T) {
	for name, change := range changes {
		synctest.Test(t, func(t *testing.T) {
			c, err := client.New([]string{"hangs:1"}, client.InOrder(), client.WithTimeout(2*time.Second),
				client.WithHTTPClient(&http.Client{Transport: inProcess{}}))
			if err != nil {
				t.Fatal(err)
			}
			if err := change(t.Context(), c); !errors.Is(err, client.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s out of time: %v", name, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			if err := change(ctx, c); !errors.Is(err, client.ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
				t.Errorf("%s given up: %v", name, err)
			}
		})
	}
}

// A gateway's 503 says nothing about what became of the request behind it.
func TestAGatewaysErrorLeavesAWriteOpen(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(s.Close)
	err := methods["Rotate"](t.Context(), newClient(t, s.URL), "")
	if !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Error(err)
	}
}

// What answers in another language, cut short, at too great length or not at all has not refused anything.
func TestAnAnswerThatCannotBeReadIsNoRefusal(t *testing.T) {
	for name, body := range map[string][]byte{
		"no message":           []byte("\x0a\xff\xff\xff\xff\x0f"),
		"text that is no text": []byte("\x0a\x02\xff\xfe\x12\x02\xff\xfe"),
		"too long":             make([]byte, 16<<20+1),
		"empty":                nil,
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/proto")
			_, _ = w.Write(body)
		}))
		t.Cleanup(s.Close)
		for method, want := range map[string]error{
			"Issue": client.ErrInternal, "Verify": client.ErrInternal, "VerifyBatch": client.ErrInternal, "Rotate": client.ErrOutcomeUnknown, "Revoke": client.ErrOutcomeUnknown,
		} {
			if err := methods[method](t.Context(), newClient(t, s.URL), ""); !errors.Is(err, want) {
				t.Errorf("%s, %s: %v, want %v", name, method, err, want)
			}
		}
	}
}

func TestANodeThatRanOutOfTimeLeavesAWriteOpen(t *testing.T) {
	late := &fake{err: refusal(t, connect.CodeDeadlineExceeded, "the request's time has run out")}
	err := methods["Rotate"](t.Context(), newClient(t, late.serve(t)), "")
	if !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Error(err)
	}
}

// The first attempt may be what changed the key that the second one misses.
func TestAConflictAfterALostAnswerIsAnUnknownOutcome(t *testing.T) {
	for _, code := range []connect.Code{connect.CodeAborted, connect.CodeNotFound, connect.CodeUnavailable} {
		moved := &fake{err: refusal(t, code, "no longer so")}
		err := methods["Delete"](t.Context(), newClient(t, hangingUp(t), moved.serve(t)), "key-1")
		if !errors.Is(err, client.ErrOutcomeUnknown) || errors.Is(err, client.ErrConflict) {
			t.Errorf("%s: %v", code, err)
		}
		if moved.calls.Load() != 1 {
			t.Errorf("%s: the second node was asked %d times", code, moved.calls.Load())
		}
	}
}

func TestOutcomeUnknownFromANode(t *testing.T) {
	open := refusal(t, connect.CodeUnknown, "leadership was lost", &v1.OutcomeUnknown{})
	for name, call := range methods {
		lost, other := &fake{err: open}, &fake{}
		err := call(t.Context(), newClient(t, lost.serve(t), other.serve(t)), "")
		if once(name) != errors.Is(err, client.ErrOutcomeUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryWireCodeHasItsError(t *testing.T) {
	want := map[connect.Code]error{
		connect.CodeCanceled:           client.ErrCanceled,
		connect.CodeUnknown:            client.ErrInternal,
		connect.CodeInvalidArgument:    client.ErrInvalidArgument,
		connect.CodeDeadlineExceeded:   client.ErrDeadlineExceeded,
		connect.CodeNotFound:           client.ErrNotFound,
		connect.CodeAlreadyExists:      client.ErrInternal,
		connect.CodePermissionDenied:   client.ErrPermissionDenied,
		connect.CodeResourceExhausted:  client.ErrResourceExhausted,
		connect.CodeFailedPrecondition: client.ErrFailedPrecondition,
		connect.CodeAborted:            client.ErrConflict,
		connect.CodeOutOfRange:         client.ErrInvalidArgument,
		connect.CodeUnimplemented:      client.ErrUnimplemented,
		connect.CodeInternal:           client.ErrInternal,
		connect.CodeUnavailable:        client.ErrUnavailable,
		connect.CodeDataLoss:           client.ErrInternal,
		connect.CodeUnauthenticated:    client.ErrUnauthenticated,
	}
	if len(want) != 16 {
		t.Fatalf("%d codes", len(want))
	}
	for code, sentinel := range want {
		f := &fake{err: refusal(t, code, "because")}
		err := methods["Get"](t.Context(), newClient(t, f.serve(t)), "")
		for _, other := range want {
			if errors.Is(err, other) != (other == sentinel) {
				t.Errorf("%s: errors.Is(%v, %v) is %t", code, err, other, errors.Is(err, other))
			}
		}
	}
}

func TestAnErrorTellsWhatWhereAndWhy(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	f := &fake{err: refusal(t, connect.CodeInvalidArgument, "subject: must not be empty",
		&v1.FieldViolation{Field: "subject"}, &v1.RetryAt{Time: timestamp(at)})}
	address := f.serve(t)
	err := methods["Issue"](t.Context(), newClient(t, address), "")
	var e *client.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T", err)
	}
	if e.Field != "subject" || e.RequestID != "req-1" || e.Node != address || !e.RetryAt.Equal(at) || e.Op != "Issue" {
		t.Errorf("%+v", e)
	}
	for _, part := range []string{"Issue", "subject: must not be empty", address, "req-1"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not tell %q", err, part)
		}
	}
}

func TestAllAttemptsAreTold(t *testing.T) {
	dead := nobody(t)
	busy := &fake{err: refusal(t, connect.CodeUnavailable, "this node is behind")}
	address := busy.serve(t)
	err := methods["Verify"](t.Context(), newClient(t, dead, address), "")
	for _, part := range []string{dead, "connection refused", address, "this node is behind"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not tell %q", err, part)
		}
	}
}

func TestAHangingNodeLeavesTimeForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live := &fake{name: "live"}
		c, err := client.New([]string{"hangs:1", "live:1"}, client.InOrder(),
			client.WithHTTPClient(&http.Client{Transport: inProcess{"live:1": live.handler()}}), client.WithTimeout(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		got, err := c.Verify(t.Context(), &v1.VerifyRequest{Token: "good"})
		if err != nil || got.GetNode() != "live" {
			t.Fatal(got, err)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("the hanging node had %v of 10s for two", took)
		}
	})
}

func TestAWriteWithoutAnAnswerInTimeIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live := &fake{}
		c, err := client.New([]string{"hangs:1", "live:1"}, client.InOrder(),
			client.WithHTTPClient(&http.Client{Transport: inProcess{"live:1": live.handler()}}), client.WithTimeout(2*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Revoke(t.Context(), &v1.RevokeRequest{Subject: "alice"})
		if !errors.Is(err, client.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if live.calls.Load() != 0 {
			t.Error("it was sent again")
		}
	})
}

func TestTheCallersDeadlineCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := client.New([]string{"hangs:1"}, client.InOrder(), client.WithHTTPClient(&http.Client{Transport: inProcess{}}))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err = c.Verify(ctx, &v1.VerifyRequest{})
		if !errors.Is(err, client.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Error(err, time.Since(start))
		}
	})
}

func TestACanceledWriteThatNeverLeftChangedNothing(t *testing.T) {
	f := &fake{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := methods["Rotate"](ctx, newClient(t, f.serve(t)), "")
	if !errors.Is(err, client.ErrCanceled) || f.calls.Load() != 0 {
		t.Error(err)
	}
}

func TestATokenIsNotSentOnToARedirect(t *testing.T) {
	other := &fake{}
	to := other.serve(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(s.Close)
	err := methods["Verify"](t.Context(), newClient(t, s.URL), "")
	if err == nil || other.calls.Load() != 0 {
		t.Errorf("%v; the other host was asked %d times", err, other.calls.Load())
	}
}

func TestTextThatNoMessageCanCarryIsNamed(t *testing.T) {
	f := &fake{}
	c := newClient(t, f.serve(t))
	_, err := c.Issue(t.Context(), &v1.IssueRequest{Subject: "alice", Audience: []string{"a", "b\xff"}})
	var e *client.Error
	if !errors.As(err, &e) || !errors.Is(err, client.ErrInvalidArgument) || e.Field != "audience[1]" {
		t.Error(err)
	}
	if _, err := c.Rotate(t.Context(), &v1.RotateRequest{Subject: "\xff"}); !errors.Is(err, client.ErrInvalidArgument) {
		t.Error(err)
	}
}

func TestManyCallersAtOnce(t *testing.T) {
	c := newClient(t, nobody(t), (&fake{name: "a"}).serve(t), (&fake{name: "b"}).serve(t))
	var all sync.WaitGroup
	for range 8 {
		for name, call := range methods {
			all.Go(func() {
				if err := call(t.Context(), c, ""); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
	}
	all.Wait()
}

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/cluster"
)

// load verifies through a client of the application's, which no failure may reach, and at each node, and issues, rotates and
// revokes at some, until it is stopped. A node by itself may not be able to tell, as one that starts; the client then has to
// have asked another.
type load struct {
	t      *testing.T
	c      *cluster.Cluster
	app    *client.Client
	mu     sync.Mutex
	tokens []string
	// turn counts what was begun; verified the answers that the client got, all of them right.
	turn, verified atomic.Int64
	stop           context.CancelFunc
	done           sync.WaitGroup
}

func startLoad(t *testing.T, c *cluster.Cluster, users int) *load {
	ctx, stop := context.WithCancel(t.Context())
	l := &load{t: t, c: c, app: application(t, c), stop: stop}
	for i := range users {
		l.tokens = append(l.tokens, c.Leader().MustIssue(t, fmt.Sprint("user ", i), time.Hour))
	}
	for range 4 {
		l.done.Go(func() { l.each(ctx, 5*time.Millisecond, func(context.Context) { l.verify() }) })
	}
	for i := range 3 {
		l.done.Go(func() { l.each(ctx, 30*time.Millisecond, func(ctx context.Context) { l.write(ctx, i) }) })
	}
	return l
}

func (l *load) each(ctx context.Context, pause time.Duration, do func(context.Context)) {
	for ctx.Err() == nil {
		do(ctx)
		time.Sleep(pause) // virtual
	}
}

// verify goes on to its end when the load is stopped: what is cut off then is no failure.
func (l *load) verify() {
	l.mu.Lock()
	token := l.tokens[int(l.turn.Add(1))%len(l.tokens)]
	l.mu.Unlock()
	switch res, err := l.app.Verify(l.t.Context(), &v1.VerifyRequest{Token: token}); {
	case err != nil:
		l.t.Errorf("a caller noticed: %v", err)
	case !res.GetValid():
		l.t.Errorf("%s tells a caller that a good token is %s", res.GetNode(), res.GetReason())
	default:
		l.verified.Add(1)
	}
	for _, m := range l.c.Running() {
		l.verifyAt(m, token)
	}
}

// verifyAt passes over a node that says that it cannot tell now, and that another can.
func (l *load) verifyAt(m *cluster.Member, token string) {
	ctx, cancel := context.WithTimeout(l.t.Context(), 5*time.Second)
	defer cancel()
	switch res, err := m.Verify(ctx, token); {
	case err != nil && !cannotTell(err):
		l.t.Errorf("verify at %s: %v", m.Host, err)
	case err == nil && !res.GetValid():
		l.t.Errorf("%s calls a good token %s", m.Host, res.GetReason())
	}
}

func cannotTell(err error) bool {
	return slices.ContainsFunc([]error{
		fault.ErrStale, fault.ErrBehind, fault.ErrAhead, fault.ErrNoLeader, fault.ErrTimeUnknown, fault.ErrNotFounded, fault.ErrShuttingDown,
	}, func(reason error) bool { return errors.Is(err, reason) })
}

func (l *load) write(ctx context.Context, i int) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	running := l.c.Running()
	turn := l.turn.Load()
	m := running[(i+int(turn))%len(running)]
	subject := fmt.Sprint("user of writer ", i, " number ", turn%17)
	res, err := m.Issue(ctx, subject, time.Hour)
	if err == nil {
		l.mu.Lock()
		l.tokens = append(l.tokens, res.GetToken())
		l.mu.Unlock()
	}
	other := fmt.Sprint("to be revoked ", i)
	_, err2 := m.Issue(ctx, other, time.Hour)
	_, err3 := m.Rotate(ctx, subject)
	_, err4 := m.Revoke(ctx, other)
	for _, err := range []error{err, err2, err3, err4} {
		if refusal, ok := errors.AsType[*fsm.Refusal](err); ok && refusal.Code != fsm.CodeTooManyRetiring && refusal.Code != fsm.CodeUnknownSubject || errors.Is(err, fault.ErrKeyring) {
			l.t.Errorf("a write at %s was refused: %v", m.Host, err)
		}
	}
}

func (l *load) end() []string {
	l.stop()
	l.done.Wait()
	return l.tokens
}

func verifyAll(t *testing.T, c *cluster.Cluster, tokens []string) {
	t.Helper()
	for _, m := range c.Running() {
		for _, token := range tokens {
			if reason := m.MustVerify(t, token); reason != valid {
				t.Fatalf("%s calls a good token %s", m.Host, reason)
			}
		}
	}
}

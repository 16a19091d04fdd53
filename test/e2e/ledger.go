//go:build unix

package e2e

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// clockBound is how far a node's time may be off, as the cluster promises it.
const clockBound = 500 * time.Millisecond

// Ledger is what a cluster has acknowledged, to be held against it. It is safe for concurrent use, with one write at a
// time for each subject.
type Ledger struct {
	mu       sync.Mutex
	entries  map[string][]*entry
	revision uint64 // the highest that was acknowledged
}

// entry is a token that was handed out, and what has become of it.
type entry struct {
	token   string
	expires time.Time
	fate    fate
}

type fate int

const (
	live fate = iota
	// open: a revocation of it was asked for, and nobody knows whether it took place.
	open
	revoked
)

// NewLedger gives an empty one.
func NewLedger() *Ledger { return &Ledger{entries: make(map[string][]*entry)} }

// Issue issues a token through api and notes it.
func (l *Ledger) Issue(ctx context.Context, api *client.Client, subject string, ttl time.Duration) error {
	res, err := api.Issue(ctx, &v1.IssueRequest{Subject: subject, Ttl: durationpb.New(ttl)})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[subject] = append(l.entries[subject], &entry{token: res.GetToken(), expires: res.GetExpiresAt().AsTime()})
	return nil
}

// Revoke revokes a subject's tokens through api and notes that, or that its outcome is open.
func (l *Ledger) Revoke(ctx context.Context, api *client.Client, subject string) error {
	res, err := api.Revoke(ctx, &v1.RevokeRequest{Subject: subject})
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.doom(subject, revoked)
		l.revision = max(l.revision, res.GetRevision())
	case errors.Is(err, client.ErrOutcomeUnknown):
		l.doom(subject, open)
	}
	return err
}

// doom notes what has become of a subject's tokens. What is revoked stays revoked.
func (l *Ledger) doom(subject string, to fate) {
	for _, e := range l.entries[subject] {
		e.fate = max(e.fate, to)
	}
}

// Tokens are those that are valid at least that long, of all subjects.
func (l *Ledger) Tokens(atLeast time.Duration) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var tokens []string
	for _, entries := range l.entries {
		for _, e := range entries {
			if e.fate == live && time.Until(e.expires) > atLeast {
				tokens = append(tokens, e.token)
			}
		}
	}
	return tokens
}

// Check has each of the nodes judge every token, once it has come as far as what was acknowledged: each issue is to be
// valid until it expires, and each revocation to hold. Nothing is written meanwhile.
func (l *Ledger) Check(t testing.TB, nodes ...*Node) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*entry
	for _, entries := range l.entries {
		all = append(all, entries...)
	}
	for _, n := range nodes {
		n.AwaitRevision(l.revision)
		for batch := range slices.Chunk(all, 256) {
			checkBatch(t, n, batch)
		}
	}
}

func checkBatch(t testing.TB, n *Node, batch []*entry) {
	t.Helper()
	req := &v1.VerifyBatchRequest{OmitClaims: true}
	for _, e := range batch {
		req.Tokens = append(req.Tokens, e.token)
	}
	var res *v1.VerifyBatchResponse
	Await(t, n.Name+" to judge tokens", func() bool {
		var err error
		res, err = n.API().VerifyBatch(context.WithoutCancel(t.Context()), req)
		return err == nil
	})
	judged := time.Now()
	for i, verdict := range res.GetVerdicts() {
		e := batch[i]
		switch {
		case e.fate == revoked && verdict.GetValid():
			t.Errorf("%s calls a token valid that was revoked", n.Name)
		case e.fate == live && !verdict.GetValid() && judged.Before(e.expires.Add(-clockBound)):
			t.Errorf("%s calls a token invalid that was acknowledged: %s, %s before it expires",
				n.Name, verdict.GetReason(), e.expires.Sub(judged).Round(time.Second))
		}
	}
}

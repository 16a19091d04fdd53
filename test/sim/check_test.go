package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/fault"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// script writes a history by hand: each operation begins when the one before has returned, a second later.
type script struct {
	ops []*Op
	now time.Time
	seq int64
}

func newScript() *script { return &script{now: time.Unix(1_000_000, 0)} }

func (s *script) add(o Op) *Op {
	s.seq++
	o.User, o.Invoked, o.Began = "ada", s.seq, s.now
	s.seq++
	s.now = s.now.Add(time.Second)
	o.Returned, o.Ended = s.seq, s.now
	if o.Outcome == "" {
		o.Outcome = OK
	}
	if o.Level == "" && o.Kind == Verify {
		o.Level = Bounded
	}
	s.ops = append(s.ops, &o)
	return &o
}

func key(revision uint64) fsm.KeyID { return fsm.KeyID{Revision: revision, Random: 7} }

func (s *script) issue(rev uint64, ttl time.Duration) {
	s.add(Op{Kind: Issue, Key: key(rev), TTL: ttl, Expires: s.now.Add(ttl)})
}

func (s *script) verify(rev uint64, level Level, reason v1.VerifyResponse_Reason, seen uint64) {
	s.add(Op{Kind: Verify, Key: key(rev), Level: level, Reason: reason, Revision: seen, Expires: s.now.Add(time.Hour), Process: "n1#1", Direct: true})
}

// change adds a change whose revision is that of the new key.
func (s *script) change(kind Kind, rev uint64) {
	o := Op{Kind: kind, Revision: rev}
	if kind != Delete {
		o.Key = key(rev)
	}
	s.add(o)
}

const (
	valid  = v1.VerifyResponse_NONE
	absent = v1.VerifyResponse_KEY_NOT_FOUND
)

func TestWhatHistoriesTheChecksPass(t *testing.T) {
	overlap, strict := Plan{Mode: v1.Settings_OVERLAP}, Plan{Mode: v1.Settings_STRICT}
	forgetful := Plan{Mode: v1.Settings_OVERLAP, ForgetAfter: 9 * time.Second}
	cases := map[string]struct {
		plan Plan
		want string // how the one violation begins; empty for none
		ops  func(*script)
	}{
		"a life": {overlap, "", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Rotate, 2)
			s.verify(1, Linearizable, valid, 2)
			s.issue(2, time.Hour)
			s.change(Revoke, 3)
			s.verify(2, Bounded, absent, 3)
			s.change(Delete, 4)
			s.add(Op{Kind: Rotate, Outcome: NotFound})
			s.issue(5, time.Hour)
		}},
		"an expiry rotates": {overlap, "", func(s *script) {
			s.issue(1, 3*time.Second)
			s.now = s.now.Add(10 * time.Second)
			s.issue(2, time.Hour)
		}},
		"no expiry, and yet another key": {overlap, "P1", func(s *script) {
			s.issue(1, time.Hour)
			s.issue(2, time.Hour)
		}},
		"a key that should have been rotated goes on": {overlap, "P1", func(s *script) {
			s.issue(1, 3*time.Second)
			s.now = s.now.Add(10 * time.Second)
			s.issue(1, time.Hour)
		}},
		"an acknowledged rotation is lost": {overlap, "P1", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Rotate, 2)
			s.issue(1, time.Hour)
		}},
		"an acknowledged delete is lost": {overlap, "P1", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Delete, 2)
			s.change(Rotate, 3)
		}},
		"an open revocation that happened": {overlap, "", func(s *script) {
			s.issue(1, time.Hour)
			s.add(Op{Kind: Revoke, Outcome: Open})
			s.issue(2, time.Hour)
		}},
		"an open revocation that did not": {overlap, "", func(s *script) {
			s.issue(1, time.Hour)
			s.add(Op{Kind: Revoke, Outcome: Open})
			s.issue(1, time.Hour)
		}},
		"a failed revocation that happened": {overlap, "P1", func(s *script) {
			s.issue(1, time.Hour)
			s.add(Op{Kind: Revoke, Outcome: Failed})
			s.issue(2, time.Hour)
		}},
		"a conflict with the very key": {overlap, "P1", func(s *script) {
			s.issue(1, time.Hour)
			s.add(Op{Kind: Rotate, Outcome: Conflict, Expected: key(1)})
		}},
		"revisions go back": {overlap, "P1: a later change", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Delete, 9)
			s.issue(10, time.Hour)
			s.change(Delete, 8)
		}},
		"forgotten though revoked a moment ago": {forgetful, "", func(s *script) {
			s.issue(1, 2*time.Second)
			s.change(Revoke, 2)
			s.now = s.now.Add(4 * time.Second)
			s.change(Revoke, 3)
			s.now = s.now.Add(4 * time.Second)
			s.add(Op{Kind: Delete, Outcome: NotFound})
		}},
		"forgotten while a token lives": {forgetful, "P1", func(s *script) {
			s.issue(1, time.Hour)
			s.now = s.now.Add(4 * time.Second)
			s.issue(1, time.Hour)
			s.add(Op{Kind: Delete, Outcome: NotFound})
		}},
		"accepted after a revocation": {overlap, "P2", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Revoke, 2)
			s.verify(1, Bounded, valid, 1)
		}},
		"accepted after a delete that found nothing": {overlap, "P2", func(s *script) {
			s.issue(1, time.Hour)
			s.add(Op{Kind: Delete, Outcome: Open})
			s.add(Op{Kind: Delete, Outcome: NotFound})
			s.verify(1, Bounded, valid, 1)
		}},
		"accepted after a revocation by who said that stale is fine": {overlap, "", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Revoke, 2)
			s.verify(1, StaleOK, valid, 1)
		}},
		"accepted by a state that has the revocation": {overlap, "a state accepts", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Revoke, 2)
			s.verify(1, StaleOK, valid, 2)
		}},
		"a good token is called unknown": {overlap, "P3", func(s *script) {
			s.issue(1, time.Hour)
			s.verify(1, Bounded, absent, 0)
		}},
		"a rotation ends no token in overlap mode": {overlap, "P3", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Rotate, 2)
			s.verify(1, Bounded, absent, 2)
		}},
		"a rotation ends all tokens in strict mode": {strict, "", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Rotate, 2)
			s.verify(1, Bounded, absent, 2)
		}},
		"an earlier token takes a later one along in strict mode": {strict, "", func(s *script) {
			s.issue(1, time.Hour)
			s.issue(1, 2*time.Second)
			s.now = s.now.Add(5 * time.Second)
			s.verify(1, Bounded, absent, 2)
		}},
		"a revocation before the token was issued ends nothing": {overlap, "P3", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Revoke, 2)
			s.issue(2, time.Hour)
			s.verify(2, Bounded, absent, 2)
		}},
		"an answer that is too old": {overlap, "P4", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Rotate, 2)
			s.now = s.now.Add(6 * time.Second)
			s.verify(1, Bounded, valid, 1)
		}},
		"an answer that is not too old yet": {overlap, "", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Rotate, 2)
			s.verify(1, Bounded, valid, 1)
		}},
		"an old answer to a linearizable question": {overlap, "P4", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Rotate, 2)
			s.verify(1, Linearizable, valid, 1)
		}},
		"an expired token is accepted": {overlap, "P5", func(s *script) {
			s.issue(1, time.Second)
			s.now = s.now.Add(5 * time.Second)
			s.add(Op{Kind: Verify, Key: key(1), Reason: valid, Revision: 1, Expires: s.now.Add(-4 * time.Second)})
		}},
		"an expired token is accepted for longer than clocks may differ": {overlap, "P5", func(s *script) {
			s.issue(1, time.Hour)
			s.add(Op{Kind: Verify, Key: key(1), Reason: valid, Revision: 1, Expires: s.now.Add(-clockBound - 1)})
		}},
		"also by who asks for no fresh state": {overlap, "P5", func(s *script) {
			s.issue(1, time.Hour)
			s.add(Op{Kind: Verify, Level: StaleOK, Key: key(1), Reason: valid, Revision: 1, Expires: s.now.Add(-clockBound - 1)})
		}},
		"one is accepted while clocks may differ": {overlap, "", func(s *script) {
			s.issue(1, time.Hour)
			s.add(Op{Kind: Verify, Key: key(1), Reason: valid, Revision: 1, Expires: s.now.Add(-clockBound)})
		}},
		"or while that node's did": {overlap, "", func(s *script) {
			s.issue(1, time.Hour)
			s.add(Op{Kind: Verify, Key: key(1), Reason: valid, Revision: 1, Expires: s.now.Add(-time.Second), Late: time.Second})
		}},
		"a token is called expired too early": {overlap, "P3", func(s *script) {
			s.issue(1, time.Hour)
			s.add(Op{Kind: Verify, Key: key(1), Reason: v1.VerifyResponse_EXPIRED, Revision: 1, Expires: s.now.Add(time.Second + clockBound)})
		}},
		"one is called expired while clocks may differ": {overlap, "", func(s *script) {
			s.issue(1, time.Hour)
			s.add(Op{Kind: Verify, Key: key(1), Reason: v1.VerifyResponse_EXPIRED, Revision: 1, Expires: s.now.Add(time.Second + clockBound - 1)})
		}},
		"a key that an issue of open outcome made is rotated when its token expires": {overlap, "", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Delete, 2)
			s.add(Op{Kind: Issue, TTL: 5 * time.Second, Outcome: Open})
			s.issue(3, time.Hour)
			s.now = s.now.Add(5 * time.Second)
			s.issue(4, time.Hour)
		}},
		"and not before": {overlap, "P1", func(s *script) {
			s.issue(1, time.Hour)
			s.change(Delete, 2)
			s.add(Op{Kind: Issue, TTL: 20 * time.Second, Outcome: Open})
			s.issue(3, time.Hour)
			s.now = s.now.Add(5 * time.Second)
			s.issue(4, time.Hour)
		}},
		"a process goes back": {overlap, "the state of a process went back", func(s *script) {
			s.issue(1, time.Hour)
			s.verify(1, StaleOK, valid, 5)
			s.verify(1, StaleOK, valid, 4)
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := newScript()
			c.ops(s)
			got := check(c.plan, s.ops)
			switch {
			case c.want == "" && len(got) > 0, c.want != "" && len(got) == 0:
				t.Errorf("found %q, want one that begins with %q", got, c.want)
			case c.want != "" && !strings.HasPrefix(got[0], c.want):
				t.Errorf("found %q, want one that begins with %q", got, c.want)
			}
		})
	}
}

// chained makes a chain of records about the subjects.
func chained(subjects ...string) (all []audit.Entry) {
	var head audit.Head
	for i, subject := range subjects {
		e := audit.Entry{Record: audit.Record{Sequence: uint64(i + 1), Kind: audit.KeyMade, Subject: subject}}
		head, _ = head.Next(&e.Record, nil)
		e.Hash = head.Hash
		all = append(all, e)
	}
	return all
}

func TestWhatAuditRecordsTheCheckPasses(t *testing.T) {
	forged := chained("ada", "mallory", "eve", "zoe")
	for name, c := range map[string]struct {
		want  string // what the one violation has; empty for none
		spoil func(*evidence)
	}{
		"all alike":                  {"", func(*evidence) {}},
		"the last is missing":        {"of n2 end at 3", func(e *evidence) { e.records = e.records[:3] }},
		"one is missing":             {"of n2 end at 1 (audit record 2 is missing)", func(e *evidence) { e.records = slices.Delete(e.records, 1, 2) }},
		"all are missing":            {"of n2 end at 0", func(e *evidence) { e.records = nil }},
		"one is changed":             {"of n2 end at 1 (audit record 2 is changed)", func(e *evidence) { e.records[1].Subject = "mallory" }},
		"one has another hash":       {"of n2 end at 3 (audit record 4 is changed)", func(e *evidence) { e.records[3].Hash[0]++ }},
		"two are swapped":            {"of n2 end at 1 (audit record 2 is missing)", func(e *evidence) { e.records[1], e.records[2] = e.records[2], e.records[1] }},
		"the hashes were made anew":  {"of n2 end at 4 (<nil>), the state's chain at 4", func(e *evidence) { e.records = forged }},
		"the state has another head": {"of n2 end at 4 (<nil>), the state's chain at 4", func(e *evidence) { e.head.Hash[0]++ }},
		"the state is further on":    {"of n2 end at 4 (<nil>), the state's chain at 5", func(e *evidence) { e.head.Sequence++ }},
		"a member has another chain": {"of n1 and n2 differ", func(e *evidence) { e.records, e.head = forged, forged[3].Head() }},
	} {
		t.Run(name, func(t *testing.T) {
			var all []evidence
			for _, host := range []string{"n1", "n2", "n3"} {
				records := chained("ada", "bob", "eve", "zoe")
				all = append(all, evidence{host, records, records[3].Head()})
			}
			c.spoil(&all[1])
			var found []string
			checkAudit(all, func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) })
			switch text := strings.Join(found, "\n"); {
			case c.want == "" && text != "":
				t.Errorf("found %q", text)
			case c.want != "" && (!strings.HasPrefix(text, "P8: ") || !strings.Contains(text, c.want) || strings.Contains(text, "n3")):
				t.Errorf("found %q, want %q", text, c.want)
			}
		})
	}
}

// A node that is being removed asks for a tick and is told that there is no such member: to a caller, it is behind.
func TestAnErrorIsReadAsTheProductMapsIt(t *testing.T) {
	told := connect.NewError(connect.CodeNotFound, fault.ErrNoSuchMember)
	if got := outcomeOf(fmt.Errorf("%w (%w)", fault.ErrBehind, told)); got != Failed {
		t.Errorf("behind: %s, want %s", got, Failed)
	}
	if got := outcomeOf(told); got != NotFound {
		t.Errorf("not found: %s", got)
	}
}

package sim

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// checkTimeout bounds porcupine's search for one user, in true time. Running out of it counts as a violation.
const checkTimeout = 20 * time.Second

// check judges a history, and gives what breaks a promise.
func check(p Plan, ops []*Op) (violations []string) {
	add := func(format string, args ...any) { violations = append(violations, fmt.Sprintf(format, args...)) }
	users := make(map[string][]*Op)
	for _, o := range ops {
		if o.User != "" {
			users[o.User] = append(users[o.User], o)
		}
	}
	checkRevisions(ops, add)
	checkStaleness(ops, add)
	checkProcesses(ops, add)
	for _, user := range slices.Sorted(keysOf(users)) {
		mine := users[user]
		checkRevoked(mine, add)
		checkValid(p, mine, add)
		checkExpiry(mine, add)
		checkLinearizable(p, user, mine, add)
	}
	return violations
}

func keysOf(m map[string][]*Op) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

type adder = func(string, ...any)

// moment is the begin or the end of an operation.
type moment struct {
	at    int64
	begin bool
	op    *Op
}

// sweep calls begin and end for each operation that was carried out, in the order in which that happened.
func sweep(ops []*Op, begin, end func(*Op)) {
	var all []moment
	for _, o := range ops {
		if o.Outcome == OK {
			all = append(all, moment{o.Invoked, true, o}, moment{o.Returned, false, o})
		}
	}
	slices.SortStableFunc(all, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	for _, m := range all {
		if m.begin {
			begin(m.op)
		} else {
			end(m.op)
		}
	}
}

func isChange(o *Op) bool { return o.Kind == Rotate || o.Kind == Revoke || o.Kind == Delete }

// checkRevisions is P1 across users: a change that began after another had returned has the higher revision.
func checkRevisions(ops []*Op, add adder) {
	var newest *Op
	before := make(map[*Op]*Op)
	sweep(ops, func(o *Op) {
		if isChange(o) {
			before[o] = newest
		}
	}, func(o *Op) {
		if !isChange(o) {
			return
		}
		if earlier := before[o]; earlier != nil && o.Revision <= earlier.Revision {
			add("P1: a later change has no higher revision:\n  %v\n  %v", earlier, o)
		}
		if newest == nil || o.Revision > newest.Revision {
			newest = o
		}
	})
}

const (
	// maxStaleness is the clusters' S.
	maxStaleness = 5 * time.Second
	// oldestAnswer is S by a clock that runs a tenth slow.
	oldestAnswer = maxStaleness * 10 / 9
)

// checkStaleness is P4: a verdict comes from a state that has all that was acknowledged longer than S ago, by the
// slowest clock there may be; or, where that was asked for, all that was acknowledged before.
func checkStaleness(ops []*Op, add adder) {
	var done []*Op // changes in the order in which they returned; their highest revision so far
	var highest []uint64
	sweep(ops, func(o *Op) {
		if o.Kind != Verify || o.Level == StaleOK {
			return
		}
		n := len(done)
		if o.Level == Bounded {
			if o.Staleness > maxStaleness {
				add("P4: an answer from a state that it calls too old:\n  %v", o)
			}
			oldest := o.Began.Add(-oldestAnswer)
			n, _ = slices.BinarySearchFunc(done, oldest, func(c *Op, at time.Time) int { return c.Ended.Compare(at) })
		}
		if n > 0 && highest[n-1] > o.Revision {
			add("P4: an answer from a state that lacks revision %d:\n  %v\n  %v", highest[n-1], done[n-1], o)
		}
	}, func(o *Op) {
		if isChange(o) {
			most := o.Revision
			if len(highest) > 0 {
				most = max(most, highest[len(highest)-1])
			}
			done, highest = append(done, o), append(highest, most)
		}
	})
}

// checkProcesses looks whether the state of a process ever went back.
func checkProcesses(ops []*Op, add adder) {
	newest, before := make(map[string]*Op), make(map[*Op]*Op)
	sweep(ops, func(o *Op) {
		if o.Direct && !isChange(o) && o.Kind != Issue {
			before[o] = newest[o.Process]
		}
	}, func(o *Op) {
		if !o.Direct || isChange(o) || o.Kind == Issue {
			return
		}
		if earlier := before[o]; earlier != nil && o.Revision < earlier.Revision {
			add("the state of a process went back:\n  %v\n  %v", earlier, o)
		}
		if n := newest[o.Process]; n == nil || o.Revision > n.Revision {
			newest[o.Process] = o
		}
	})
}

// checkRevoked is P2: when Revoke or Delete has returned, nobody accepts what was signed before in a verification that
// starts afterwards. And no state accepts what it has itself seen revoked.
func checkRevoked(ops []*Op, add adder) {
	var newest *Op
	var revocations []*Op
	ends := func(o *Op) bool { return o.Kind == Revoke || o.Kind == Delete }
	sweep(ops, func(o *Op) {
		if o.Kind == Verify && o.Reason == v1.VerifyResponse_NONE && o.Level != StaleOK && newest != nil && o.Key.Revision < newest.Revision {
			add("P2: a token was accepted after its key had been revoked:\n  %v\n  %v", newest, o)
		}
	}, func(o *Op) {
		if ends(o) {
			revocations = append(revocations, o)
			if newest == nil || o.Revision > newest.Revision {
				newest = o
			}
		}
	})
	checkSeen(ops, revocations, add)
}

// checkSeen looks for tokens that were accepted by a state that had them ended, or after it was said that there is
// nothing to end.
func checkSeen(ops, revocations []*Op, add adder) {
	for _, o := range ops {
		if o.Kind != Verify || o.Outcome != OK || o.Reason != v1.VerifyResponse_NONE {
			continue
		}
		if absent := foundAbsent(ops, o); absent != nil {
			add("P2: a token was accepted after a revocation had found nothing to revoke:\n  %v\n  %v", absent, o)
		}
		for _, r := range revocations {
			if o.Key.Revision < r.Revision && r.Revision <= o.Revision {
				add("a state accepts what it has seen revoked:\n  %v\n  %v", r, o)
			}
		}
	}
}

// foundAbsent gives a revocation that returned before the verification began, and found no user although the token had
// been issued by then: its key had ended.
func foundAbsent(ops []*Op, verify *Op) *Op {
	issued := slices.IndexFunc(ops, func(o *Op) bool { return o.Kind == Issue && o.Outcome == OK && o.Key == verify.Key })
	if issued < 0 || verify.Level == StaleOK {
		return nil
	}
	for _, o := range ops {
		ends := (o.Kind == Revoke || o.Kind == Delete) && o.Outcome == NotFound
		if ends && o.Returned < verify.Invoked && ops[issued].Returned < o.Invoked {
			return o
		}
	}
	return nil
}

// checkValid is P3: a token that Issue returned is not called invalid for as long as nothing can have ended it.
func checkValid(p Plan, ops []*Op, add adder) {
	for _, o := range ops {
		if o.Kind != Verify || o.Outcome != OK || o.Reason == v1.VerifyResponse_NONE || o.Ended.After(o.Expires.Add(-max(o.Early, clockBound))) {
			continue
		}
		if o.Reason != v1.VerifyResponse_KEY_NOT_FOUND || !slices.ContainsFunc(ops, func(by *Op) bool { return canEnd(p, by, o) }) {
			add("P3: a good token was called invalid:\n  %v", o)
		}
	}
}

// canEnd tells whether an operation can have ended a token by the time that it was verified. An earlier attempt may have,
// whatever was said of the last.
func canEnd(p Plan, by, verify *Op) bool {
	open := by.Outcome == Open || by.Hidden
	if by.Invoked > verify.Returned || by.Outcome != OK && !open {
		return false
	}
	strict := p.Mode == v1.Settings_STRICT
	switch by.Kind {
	case Revoke, Delete:
		return open || by.Revision > verify.Key.Revision
	case Rotate:
		return strict && (open || by.Revision > verify.Key.Revision)
	case Issue: // another token of the same key expires first, and takes it along
		same := open || by.Key == verify.Key
		return strict && same && by.Began.Add(by.TTL-slack).Before(verify.Ended)
	default:
		return false
	}
}

// checkExpiry looks whether tokens are refused from their expiry on, and not before.
func checkExpiry(ops []*Op, add adder) {
	for _, o := range ops {
		if o.Kind != Verify || o.Outcome != OK {
			continue
		}
		if o.Reason == v1.VerifyResponse_NONE && o.Began.After(o.Expires.Add(max(o.Late, clockBound))) {
			add("P5: an expired token was accepted:\n  %v", o)
		}
	}
}

// checkLinearizable is P1: porcupine finds an order of a user's operations that the sequential model allows.
func checkLinearizable(p Plan, user string, ops []*Op, add adder) {
	m := model{overlap: p.Mode == v1.Settings_OVERLAP, forgetAfter: p.ForgetAfter}
	history := operations(ops)
	switch result, _ := porcupine.CheckOperationsVerbose(m.porcupine(), history, checkTimeout); result {
	case porcupine.Ok:
	case porcupine.Unknown:
		add("P1: porcupine could not tell in %v whether the %d operations of %s are linearizable", checkTimeout, len(history), user)
	case porcupine.Illegal:
		var text strings.Builder
		for _, o := range history {
			fmt.Fprintf(&text, "\n  %v", o.Input)
		}
		add("P1: the operations of %s are not linearizable%s", user, text.String())
	}
}

// operations gives what the model knows of. What failed changed nothing; reads of a node's own memory may be old.
func operations(ops []*Op) (history []porcupine.Operation) {
	for _, o := range ops {
		if !modelled(o) {
			continue
		}
		history = append(history, operation(o))
		if o.Hidden && o.Outcome != Open {
			again := *o
			again.Outcome, again.Hidden = Open, false
			history = append(history, operation(&again))
		}
	}
	return history
}

func modelled(o *Op) bool {
	switch o.Outcome {
	case Failed, Exhausted:
		return o.Hidden // an earlier attempt may have taken effect
	default:
	}
	switch o.Kind {
	case Issue, Rotate, Revoke, Delete:
		return true
	case Get, Verify:
		certain := o.Reason == v1.VerifyResponse_NONE || o.Reason == v1.VerifyResponse_KEY_NOT_FOUND && o.Ended.Before(o.Expires.Add(-slack))
		return o.Level == Linearizable && (o.Outcome == OK && certain || o.Outcome == NotFound)
	default:
		return false
	}
}

func operation(o *Op) porcupine.Operation {
	if o.Hidden && (o.Outcome == Failed || o.Outcome == Exhausted) {
		open := *o
		open.Outcome = Open
		o = &open
	}
	op := porcupine.Operation{Input: o, Call: o.Invoked, Return: o.Returned}
	if o.Outcome == Open {
		op.Return = math.MaxInt64
	}
	return op
}

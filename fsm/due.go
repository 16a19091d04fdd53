package fsm

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/keyquorum/keyquorum/fsm/internal/cowtree"
)

// order keeps the users by what happens to them next, so that a new leader finds it without a scan. It follows
// from the users and is no part of a snapshot. Each user is in one of the two trees.
type order struct {
	// events has the users with tokens to expire, by the next time at which a key of theirs is due.
	events eventTree
	// idle has all others, by the time from which no token of theirs lives. It does not depend on the setting
	// that says how long after that a user is forgotten, so changing the setting costs nothing.
	idle eventTree
}

// event is a user's place in a tree.
type event struct {
	at      int64 // milliseconds since the Unix epoch
	subject string
}

type eventTree = cowtree.Tree[event, event]

var byTime = &cowtree.Order[event, event]{
	Key:     func(e event) event { return e },
	Compare: compareEvents,
}

func compareEvents(a, b event) int {
	if c := cmp.Compare(a.at, b.at); c != 0 {
		return c
	}
	return strings.Compare(a.subject, b.subject)
}

func newOrder() order {
	return order{events: cowtree.New(byTime), idle: cowtree.New(byTime)}
}

// never is after any event.
const never = math.MaxInt64

// nextEvent is when the next key of the user is due, in seconds since the Unix epoch; never if no key is waiting
// for the expiry of a token.
func (u *User) nextEvent() int64 {
	next := int64(never)
	if u.Active.Earliest != 0 {
		next = u.Active.Earliest
	}
	for i := range u.Retiring {
		next = min(next, u.Retiring[i].Latest)
	}
	return next
}

// place says in which tree a user belongs, and where.
func (u *User) place() (e event, idle bool) {
	if next := u.nextEvent(); next != never {
		return event{at: next * 1000, subject: u.Subject}, false
	}
	return event{at: u.IdleFrom, subject: u.Subject}, true
}

// due tells whether an active key's earliest token has expired by now, in milliseconds: a key is due in the very
// millisecond in which its token is expired.
func (k *Key) due(now int64) bool { return k.Earliest != 0 && k.Earliest*1000 <= now }

// live tells whether a token that the key signed may still be valid at now, in milliseconds.
func (k *Key) live(now int64) bool { return k.Latest*1000 > now }

// forgetAt is when an idle user is forgotten, in milliseconds; never if the cluster forgets nobody.
func (s *Settings) forgetAt(idleFrom int64) int64 {
	if s.ForgetAfter == 0 {
		return never
	}
	return idleFrom + s.ForgetAfter.Milliseconds()
}

// NextDue is when something is due next, which may be in the past; false if nothing ever is.
func (v *View) NextDue() (time.Time, bool) {
	next := int64(never)
	if e, ok := v.order.events.First(); ok {
		next = e.at
	}
	if e, ok := v.order.idle.First(); ok {
		next = min(next, v.settings.forgetAt(e.at))
	}
	if next == never {
		return time.Time{}, false
	}
	return time.UnixMilli(next), true
}

// Due gives up to limit of the things that are due at now: those due first, in order of time and then of
// subject. An Expire with an item for each does them all if its time is not before now.
func (v *View) Due(now time.Time, limit int) []Due {
	if limit <= 0 {
		return nil
	}
	ms := now.UnixMilli()
	due := v.dueKeys(ms, limit)
	due = append(due, v.dueUsers(ms, limit)...)
	slices.SortStableFunc(due, func(a, b Due) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		return strings.Compare(a.Subject, b.Subject)
	})
	return due[:min(limit, len(due))]
}

// dueKeys gives the keys that are due, of as many users as it takes for limit keys.
func (v *View) dueKeys(now int64, limit int) []Due {
	var due []Due
	for e := range v.order.events.All() {
		if e.at > now || len(due) >= limit {
			break
		}
		u, _ := v.users.Get(e.subject)
		due = u.appendDue(due, now)
	}
	return due
}

func (u *User) appendDue(due []Due, now int64) []Due {
	for i := range u.Retiring {
		if k := &u.Retiring[i]; !k.live(now) {
			due = append(due, Due{At: time.Unix(k.Latest, 0), Subject: u.Subject, Key: k.ID})
		}
	}
	if k := &u.Active; k.due(now) {
		due = append(due, Due{At: time.Unix(k.Earliest, 0), Subject: u.Subject, Key: k.ID, Active: true})
	}
	return due
}

// dueUsers gives the users to be forgotten.
func (v *View) dueUsers(now int64, limit int) []Due {
	var due []Due
	for e := range v.order.idle.All() {
		at := v.settings.forgetAt(e.at)
		if at > now || len(due) == limit {
			break
		}
		due = append(due, Due{At: time.UnixMilli(at), Subject: e.subject})
	}
	return due
}

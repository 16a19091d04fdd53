package fsm

import (
	"fmt"
	"slices"
)

// A user may hold MaxRetiring keys that verify and no longer sign. It is the tokens' expiries that make keys
// retire, and an expiry cannot be refused: so the limit is kept by refusing what would break it later.
//
// Only live keys count: one whose last token has expired is gone but for its deletion.
//
// Let e be when the active key is due, and say that it is left behind if at that time it has a token that lives
// on. What we keep true in overlap mode, for every user whose active key will be left behind, is
//
//	the retiring keys alive at e, and the active one, are at most MaxRetiring.
//
// Then the rotation at e, or any time after, never breaks the limit, and needs no check. It holds for a new key,
// which has no tokens. Keys are only ever added by rotations, after which the active key is new. What is left is
// an Issue that makes e earlier or has the key left behind, which is refused if the sum at the new e is too
// great; and a Rotate before e, which is refused if the sum at that moment is, and only if the active key would
// be left behind.
//
// The sum can be too great from before: when MaxRetiring was lowered, or when the mode was strict, in which
// nothing is left behind and nothing is checked. Such a user is not punished: an Issue is refused only if it
// makes the sum greater than it would be without it, and an Issue that finds the key due rotates it, as an
// expiry would have. The user comes under the limit as its keys die.

// roomToRotate refuses a rotation on demand that would leave one retiring key too many behind.
func (s *Settings) roomToRotate(u *User, now int64) *Refusal {
	if s.Mode != Overlap || u.behind(&u.Active, now) <= s.MaxRetiring {
		return nil
	}
	return s.tooManyRetiring(u, now)
}

// roomToIssue refuses a token, expiring at exp, for which the rotation to come would leave one retiring key too
// many behind.
func (s *Settings) roomToIssue(u *User, exp, now int64) *Refusal {
	if s.Mode != Overlap {
		return nil
	}
	after := u.Active
	after.record(exp)
	sum := u.behind(&after, after.Earliest*1000)
	if sum <= s.MaxRetiring || sum <= u.behind(&u.Active, u.Active.Earliest*1000) {
		return nil
	}
	return s.tooManyRetiring(u, now)
}

// behind is the number of live retiring keys after a rotation at the given time with this active key; 0 if the
// rotation adds none.
func (u *User) behind(active *Key, at int64) int {
	if !active.live(at) {
		return 0
	}
	n := 1
	for i := range u.Retiring {
		if u.Retiring[i].live(at) {
			n++
		}
	}
	return n
}

// tooManyRetiring says when there will be room: when one key fewer than the limit is left. That is when the next
// key goes, or, after the limit was lowered, a later one.
func (s *Settings) tooManyRetiring(u *User, now int64) *Refusal {
	var ends []int64
	for i := range u.Retiring {
		if k := &u.Retiring[i]; k.live(now) {
			ends = append(ends, k.Latest)
		}
	}
	slices.Sort(ends)
	return &Refusal{
		Code:    CodeTooManyRetiring,
		Message: fmt.Sprintf("the subject's older keys still have live tokens: it may have %d such keys", s.MaxRetiring),
		RetryAt: unix(ends[len(ends)-s.MaxRetiring]),
	}
}

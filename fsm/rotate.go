package fsm

import (
	"slices"

	"github.com/keyquorum/keyquorum/internal/audit"
)

// rotate makes the candidate the subject's active key, on demand.
func (d *draft) rotate(op Rotate, r *Result) *Refusal {
	u, refusal := d.user(op.Subject, op.Expected)
	if refusal != nil {
		return refusal
	}
	if refusal := d.settings.roomToRotate(u, d.now); refusal != nil {
		return refusal
	}
	next := d.rotated(u, op.Candidate, audit.OnDemand)
	d.put(u, &next)
	r.Key = next.Active
	return nil
}

// rotated gives u with the candidate for its active key. The old key retires in overlap mode if a token that it
// signed may still live; otherwise it is gone, and in strict mode its tokens with it. Keys that are retiring
// already are left to their time in both modes. The new key has signed nothing, so nothing of it is due.
func (d *draft) rotated(u *User, c Candidate, why audit.Reason) User {
	next := *u
	retires := d.settings.Mode == Overlap && u.Active.live(d.now)
	if retires {
		next.Retiring = slices.Concat(u.Retiring, []Key{u.Active})
	}
	next.Active = d.newKey(c)
	d.settle(&next)
	d.auditRotation(u, &next, why)
	if !retires {
		d.auditDeletion(u, &u.Active, why)
	}
	return next
}

// revoke deletes all keys of the subject and makes the candidate its active one.
func (d *draft) revoke(op Revoke, r *Result) *Refusal {
	u, refusal := d.user(op.Subject, op.Expected)
	if refusal != nil {
		return refusal
	}
	next := User{Subject: u.Subject, Active: d.newKey(op.Candidate), IdleFrom: u.IdleFrom}
	d.auditRotation(u, &next, audit.Revoked)
	d.auditKeysDeleted(u, audit.Revoked)
	d.settle(&next)
	d.put(u, &next)
	r.Key = next.Active
	return nil
}

// delete forgets the subject.
func (d *draft) delete(op Delete) *Refusal {
	u, refusal := d.user(op.Subject, op.Expected)
	if refusal != nil {
		return refusal
	}
	d.forget(u, audit.Deleted)
	d.audit(audit.Record{Kind: audit.UserDeleted, Subject: u.Subject})
	return nil
}

func (d *draft) forget(u *User, why audit.Reason) {
	d.drop(u)
	d.revision++
	d.auditKeysDeleted(u, why)
}

// settle brings IdleFrom back where tokens died with their keys: nothing lives longer than the keys that are left, or than
// now where they have nothing left. In an entry without a time nobody knows when that is: the log's own may be long past.
func (d *draft) settle(u *User) {
	if !d.timed {
		return
	}
	last := max(d.now, u.Active.Latest*1000)
	for i := range u.Retiring {
		last = max(last, u.Retiring[i].Latest*1000)
	}
	u.IdleFrom = min(u.IdleFrom, last)
}

package fsm

import (
	"slices"
	"time"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/plant"
)

// expire does what is due of op's items. The proposer saw it due, but the log may have changed the subject since;
// so each item is judged again, and skipped if nothing is left of it to do.
func (d *draft) expire(op Expire, r *Result) {
	for i := range op.Items {
		item := &op.Items[i]
		u, ok := d.users.Get(item.Subject)
		if !ok || !d.expireItem(u, item, &r.Expired) {
			r.Expired.Skipped++
		}
	}
}

// expireItem tells whether there was something to do.
func (d *draft) expireItem(u *User, item *ExpireItem, done *Expired) bool {
	switch {
	case item.Key.IsZero():
		return d.expireUser(u, done)
	case item.Key == u.Active.ID, plant.On(plant.BlindRotation) && item.Candidate != nil:
		return item.Candidate != nil && d.expireActive(u, *item.Candidate, done)
	default:
		return d.expireRetiring(u, item.Key, done)
	}
}

// expireActive rotates an active key with an expired token. It asks for no room: see limit.go.
func (d *draft) expireActive(u *User, c Candidate, done *Expired) bool {
	if !u.Active.due(d.now) && !plant.On(plant.BlindRotation) {
		return false
	}
	next := d.rotated(u, c, audit.Expiry)
	d.put(u, &next)
	done.Rotated++
	done.Lag = append(done.Lag, time.Duration(d.now-u.Active.Earliest*1000)*time.Millisecond)
	return true
}

// expireRetiring deletes a retiring key whose last token has expired.
func (d *draft) expireRetiring(u *User, id KeyID, done *Expired) bool {
	i := u.retiring(id)
	if i < 0 || u.Retiring[i].live(d.now) {
		return false
	}
	next := *u
	next.Retiring = nil // an empty slice would keep the old one's memory
	if len(u.Retiring) > 1 {
		next.Retiring = slices.Concat(u.Retiring[:i], u.Retiring[i+1:])
	}
	d.revision++
	d.put(u, &next)
	d.auditDeletion(u, &u.Retiring[i], audit.Expiry)
	done.Deleted++
	return true
}

// expireUser forgets a user whose keys wait for no token, and whose last token is long gone.
func (d *draft) expireUser(u *User, done *Expired) bool {
	if _, idle := u.place(); !idle || d.settings.forgetAt(u.IdleFrom) > d.now {
		return false
	}
	d.forget(u, audit.Idle)
	d.audit(audit.Record{Kind: audit.UserForgotten, Subject: u.Subject})
	done.Forgotten++
	return true
}

package fsm

import (
	"fmt"
	"time"

	"github.com/keyquorum/keyquorum/internal/audit"
)

// issue records a token's expiry on the subject's active key, so that it is committed before the token exists.
// A new subject gets its first key; a key that is due is rotated first, for what it signed now would share the
// fate of its expired tokens, in strict mode at once.
func (d *draft) issue(op Issue, r *Result) *Refusal {
	ttl, refusal := d.settings.lifetime(op.TTL)
	if refusal != nil {
		return refusal
	}
	exp := seconds(d.now + ttl.Milliseconds())
	old, known := d.users.Get(op.Subject)
	switch {
	case known && !old.Active.due(d.now):
		if refusal := d.settings.roomToIssue(old, exp, d.now); refusal != nil {
			return refusal
		}
		d.record(old, *old, op.TokenID, exp, r)
	case op.Candidate == nil:
		return &Refusal{Code: CodeNeedCandidate, Message: "the subject needs a new key"}
	case known:
		d.record(old, d.rotated(old, *op.Candidate, audit.Expiry), op.TokenID, exp, r)
	default:
		u := User{Subject: op.Subject, Active: d.newKey(*op.Candidate)}
		d.audit(audit.Record{Kind: audit.KeyMade, Subject: u.Subject, KeyID: u.Active.ID.String()})
		d.record(nil, u, op.TokenID, exp, r)
	}
	return nil
}

// lifetime gives the token's lifetime that ttl asks for.
func (s *Settings) lifetime(ttl time.Duration) (time.Duration, *Refusal) {
	if ttl == 0 {
		return s.DefaultTTL, nil
	}
	if ttl < s.MinTTL || ttl > s.MaxTTL {
		return 0, invalid("ttl", "must be from %s to %s", inSeconds(s.MinTTL), inSeconds(s.MaxTTL))
	}
	return ttl, nil
}

// inSeconds spells a duration as requests do.
func inSeconds(d time.Duration) string {
	if d%time.Second != 0 {
		return fmt.Sprintf("%d.%03ds", d/time.Second, d%time.Second/time.Millisecond)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// record puts u, with a token more, the one with the id, that expires at exp on its active key, in the place of old.
func (d *draft) record(old *User, u User, id string, exp int64, r *Result) {
	u.Active.record(exp)
	u.IdleFrom = max(u.IdleFrom, exp*1000)
	d.put(old, &u)
	r.Key = u.Active
	r.Issuer = d.settings.Issuer
	r.IssuedAt = unix(d.now / 1000)
	r.ExpiresAt = unix(exp)
	if d.settings.AuditIssued {
		d.audit(audit.Record{Kind: audit.TokenIssued, Subject: u.Subject, KeyID: u.Active.ID.String(), TokenID: id, Expires: exp})
	}
}

// record counts a token that expires at exp.
func (k *Key) record(exp int64) {
	if k.Earliest == 0 || exp < k.Earliest {
		k.Earliest = exp
	}
	k.Latest = max(k.Latest, exp)
}

package fsm

import (
	"time"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/plant"
)

// entry applies an entry's commands in order, all at the log's time, which the entry may move forward.
func (d *draft) entry(position uint64, e Entry) []Result {
	d.changed = true
	d.position, d.timed = position, !e.Time.IsZero()
	if d.timed {
		d.now = max(d.now, e.Time.UnixMilli())
	}
	if plant.On(plant.TimeInApply) {
		d.now = max(d.now, plant.Clock().UnixMilli())
	}
	results := make([]Result, len(e.Commands))
	for i := range e.Commands {
		results[i] = d.command(&e.Commands[i])
	}
	return results
}

func (d *draft) command(c *Command) Result {
	var r Result
	d.trail.origin = c.Origin
	refusal := d.admit(c)
	if refusal == nil {
		refusal = d.op(c.Op, c.Origin, &r)
	}
	if refusal != nil {
		r = Result{Err: refusal}
	}
	r.Position, r.Revision = d.position, d.revision
	if binds(c.Op) {
		r.Holders = d.holders()
	}
	return r
}

// binds tells whether what op did, or found to be so, is to hold on all nodes.
func binds(op Op) bool {
	switch op.(type) {
	case Tick, Revoke, Delete:
		return true
	}
	return false
}

// admit refuses what does not depend on any user.
func (d *draft) admit(c *Command) *Refusal {
	_, founding := c.Op.(Found)
	switch {
	case founding && d.founded():
		return &Refusal{Code: CodeFounded, Message: "the cluster has been founded already"}
	case !founding && !d.founded():
		return &Refusal{Code: CodeNotFounded, Message: "the cluster has not been founded yet"}
	case NeedsTime(c.Op) && !d.timed:
		return &Refusal{Code: CodeNeedTime, Message: "the cluster's time is not known"}
	}
	if r := c.check(); r != nil {
		return r
	}
	return d.checkCandidates(c.Op)
}

// op makes the change that op asks for and tells of it in r; or it refuses, and changes nothing.
func (d *draft) op(op Op, by Origin, r *Result) *Refusal {
	switch op := op.(type) {
	case Found:
		d.found(op, by, r)
	case Issue:
		return d.issue(op, r)
	case Rotate:
		return d.rotate(op, r)
	case Revoke:
		return d.revoke(op, r)
	case Delete:
		return d.delete(op)
	case Expire:
		d.expire(op, r)
	case UpdateSettings:
		return d.updateSettings(op, r)
	case PutMember:
		return d.putMember(op.Member)
	case RemoveMember:
		return d.removeMember(op.ID)
	case ForgetMembers:
		d.forgetMembers(op.IDs)
	case PutAPIToken:
		return d.putAPIToken(op.Token, by)
	case RevokeAPIToken:
		return d.revokeAPIToken(op.ID)
	case UseMasterKey:
		return d.useMasterKey(op)
	case Rewrap:
		d.rewrap(op, r)
	case RetireMasterKey:
		return d.retireMasterKey(op.ID)
	case Tick:
	}
	return nil
}

func (d *draft) found(op Found, by Origin, r *Result) {
	d.clusterID = op.ClusterID
	d.keyringCheck = op.KeyringCheck
	d.settings = op.Settings
	r.Settings = op.Settings
	d.audit(audit.Record{Kind: audit.ClusterFounded, Subject: op.ClusterID, Changes: settingsChanges(nil, &op.Settings)})
	if op.Operator != nil {
		_ = d.putAPIToken(*op.Operator, by) // it is the first
	}
}

// user finds the subject, and compares its active key with the expected one unless that is zero.
func (d *draft) user(subject string, expected KeyID) (*User, *Refusal) {
	u, ok := d.users.Get(subject)
	if !ok {
		return nil, &Refusal{Code: CodeUnknownSubject, Message: "the subject has no key"}
	}
	if !expected.IsZero() && u.Active.ID != expected {
		return nil, &Refusal{
			Code:    CodeKeyMismatch,
			Field:   "expectedKeyId",
			Message: "the subject's active key is another one",
		}
	}
	return u, nil
}

// seconds rounds up.
func seconds(ms int64) int64 { return (ms + 999) / 1000 }

func unix(s int64) time.Time { return time.Unix(s, 0) }

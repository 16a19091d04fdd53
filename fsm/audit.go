package fsm

import (
	"strconv"

	"github.com/keyquorum/keyquorum/internal/audit"
)

// Audit gets the audit chain's records as the log is applied. Raft's goroutine calls Append and Restored, which must not
// wait for Raft, nor for long; Flush is called from another.
type Audit interface {
	// Append gets what one ApplyBatch brought, in order, and the head before it. Entries that are applied again at a start
	// bring what they brought before.
	Append(before audit.Head, entries []audit.Entry)
	// Restored says that a snapshot took the place of the log up to the head: what is missing until there has to come from
	// elsewhere, and Append goes on after it.
	Restored(head audit.Head)
	// Flush waits until all that Append got up to the head is kept. Where it fails there is no snapshot.
	Flush(head audit.Head) error
}

// trail is what an ApplyBatch brings for the record.
type trail struct {
	origin  Origin
	keep    bool
	before  audit.Head
	entries []audit.Entry
	buf     []byte
}

// audit puts a change on record: it follows the one before in the chain. The record says what changed; number, time,
// position and origin are those of the command at hand.
func (d *draft) audit(r audit.Record) {
	t := &d.trail
	r.Sequence, r.Time, r.Position = d.audited.Sequence+1, d.now, d.position
	r.Actor, r.Source, r.Node = t.origin.Actor, t.origin.Source, t.origin.Node
	if len(t.entries) == 0 {
		t.before = d.audited
	}
	d.audited, t.buf = d.audited.Next(&r, t.buf)
	if t.keep {
		t.entries = append(t.entries, audit.Entry{Record: r, Hash: d.audited.Hash})
	}
}

// handOver gives the sink what d brought, once readers can see it.
func (f *FSM) handOver(d *draft) {
	if len(d.trail.entries) > 0 {
		f.audit.Append(d.trail.before, d.trail.entries)
	}
}

// Audited tells whether op, if it is not refused, leaves an audit record.
func Audited(op Op) bool {
	switch op.(type) {
	case Tick, ForgetMembers:
		return false
	}
	return true
}

func (d *draft) auditRotation(old, u *User, why audit.Reason) {
	d.audit(audit.Record{
		Kind: audit.KeyRotated, Subject: u.Subject, Reason: why,
		KeyID: u.Active.ID.String(), PreviousKeyID: old.Active.ID.String(),
	})
}

func (d *draft) auditDeletion(u *User, k *Key, why audit.Reason) {
	d.audit(audit.Record{Kind: audit.KeyDeleted, Subject: u.Subject, KeyID: k.ID.String(), Reason: why})
}

// auditKeysDeleted tells that none of the user's keys is left, the oldest first.
func (d *draft) auditKeysDeleted(u *User, why audit.Reason) {
	for i := range u.Retiring {
		d.auditDeletion(u, &u.Retiring[i], why)
	}
	d.auditDeletion(u, &u.Active, why)
}

// auditSettings says nothing where nothing changed.
func (d *draft) auditSettings(old, s Settings) {
	if changes := settingsChanges(&old, &s); len(changes) > 0 {
		d.audit(audit.Record{Kind: audit.SettingsChanged, Changes: changes})
	}
}

// settingsChanges names what differs as the JSON of requests does. Before the founding nothing was set.
func settingsChanges(old, s *Settings) []audit.Change {
	var before []audit.Change
	if old != nil {
		before = old.values()
	}
	return differing(before, s.values())
}

func (s *Settings) values() []audit.Change {
	return []audit.Change{
		{Name: "mode", To: s.Mode.String()},
		{Name: "forgetAfter", To: inSeconds(s.ForgetAfter)},
		{Name: "issuer", To: s.Issuer},
		{Name: "minTtl", To: inSeconds(s.MinTTL)},
		{Name: "defaultTtl", To: inSeconds(s.DefaultTTL)},
		{Name: "maxTtl", To: inSeconds(s.MaxTTL)},
		{Name: "maxRetiringKeys", To: strconv.Itoa(s.MaxRetiring)},
		{Name: "wantedVoters", To: strconv.Itoa(s.WantedVoters)},
		{Name: "leaderRegion", To: s.LeaderRegion},
		{Name: "maxStaleness", To: inSeconds(s.MaxStaleness)},
		{Name: "auditIssued", To: strconv.FormatBool(s.AuditIssued)},
	}
}

// auditMember says nothing where a record is put again as it is.
func (d *draft) auditMember(kind audit.Kind, old, m *Member) {
	if kind == audit.MemberChanged && *old == *m {
		return
	}
	d.audit(audit.Record{Kind: kind, Subject: m.ID, Changes: differing(old.values(), m.values())})
}

func (m *Member) values() []audit.Change {
	format := ""
	if m.Format != 0 {
		format = strconv.Itoa(m.Format)
	}
	return []audit.Change{
		{Name: "name", To: m.Name},
		{Name: "region", To: m.Region},
		{Name: "rpcAddress", To: m.RPCAddress},
		{Name: "raftAddress", To: m.RaftAddress},
		{Name: "version", To: m.Version},
		{Name: "format", To: format},
		{Name: "replica", To: strconv.FormatBool(m.Replica)},
	}
}

// differing gives the values that are others than before. Both lists have the same names in the same order, or there is
// no before.
func differing(before, now []audit.Change) []audit.Change {
	var changed []audit.Change
	for i, c := range now {
		if before != nil {
			c.From = before[i].To
		}
		if c.From != c.To {
			changed = append(changed, c)
		}
	}
	return changed
}

package fsm

import (
	"slices"

	"github.com/keyquorum/keyquorum/internal/audit"
)

// putMember makes or replaces a record, in a new slice: Views share the old one. Who was removed has none again.
func (d *draft) putMember(m Member) *Refusal {
	if _, removed := slices.BinarySearch(d.removed, m.ID); removed {
		return &Refusal{Code: CodeRemovedMember, Field: "id", Message: "the member with this id was removed from the cluster"}
	}
	next := slices.Clone(d.members)
	i, found := findMember(next, m.ID)
	if found {
		d.auditMember(audit.MemberChanged, &next[i], &m)
		next[i] = m
	} else {
		d.auditMember(audit.MemberAdded, &Member{}, &m)
		next = slices.Insert(next, i, m)
	}
	d.members = next
	return nil
}

// removeMember drops a record, if there is one, and remembers the id for ever.
func (d *draft) removeMember(id string) *Refusal {
	at, removed := slices.BinarySearch(d.removed, id)
	if removed {
		return &Refusal{Code: CodeUnknownMember, Field: "id", Message: "the member with this id was removed before"}
	}
	d.removed = slices.Insert(slices.Clone(d.removed), at, id)
	d.audit(audit.Record{Kind: audit.MemberRemoved, Subject: id})
	if i, found := findMember(d.members, id); found {
		d.members = slices.Concat(d.members[:i], d.members[i+1:])
		at, _ := slices.BinarySearch(d.former, id)
		d.former = slices.Insert(slices.Clone(d.former), at, id)
	}
	return nil
}

// forgetMembers ends the counting of those former members.
func (d *draft) forgetMembers(ids []string) {
	d.former = slices.DeleteFunc(slices.Clone(d.former), func(id string) bool { return slices.Contains(ids, id) })
}

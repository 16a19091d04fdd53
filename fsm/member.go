package fsm

import "slices"

// putMember makes or replaces a record, in a new slice: Views share the old one.
func (d *draft) putMember(m Member) {
	next := slices.Clone(d.members)
	i, found := findMember(next, m.ID)
	if found {
		next[i] = m
	} else {
		next = slices.Insert(next, i, m)
	}
	d.members = next
}

func (d *draft) removeMember(id string) *Refusal {
	i, found := findMember(d.members, id)
	if !found {
		return &Refusal{Code: CodeUnknownMember, Field: "id", Message: "there is no member with this id"}
	}
	d.members = slices.Concat(d.members[:i], d.members[i+1:])
	return nil
}

package sim

import (
	"reflect"
	"time"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/node/auditing"
)

// auditDisk is a machine's audit records as one process writes them: what a process does after its death is not written.
type auditDisk struct {
	*auditing.Memory
	life *life
}

// Append implements auditing.Store.
func (a auditDisk) Append(before audit.Head, entries []audit.Entry) error {
	if a.life.dead.Load() {
		return errDied
	}
	return a.Memory.Append(before, entries)
}

// Fill implements auditing.Store.
func (a auditDisk) Fill(before audit.Head, entries []audit.Entry) error {
	if a.life.dead.Load() {
		return errDied
	}
	return a.Memory.Fill(before, entries)
}

// records gives the audit records on the machine, from the first on, up to the first that is missing.
func (m *member) records() (all []audit.Entry) {
	m.mu.Lock()
	store := m.audit
	m.mu.Unlock()
	for next := uint64(1); ; next = all[len(all)-1].Sequence + 1 {
		_, page, err := store.Read(next, 1<<20)
		if err != nil || len(page) == 0 || page[0].Sequence != next {
			return all
		}
		all = append(all, page...)
	}
}

// evidence is the audit records that a member has at the end, and the head of the chain that is in its state.
type evidence struct {
	host    string
	records []audit.Entry
	head    audit.Head
}

// compareAudit gathers the members' records, and has them checked.
func (w *World) compareAudit() {
	var all []evidence
	for _, m := range w.members {
		v := m.view()
		if v == nil {
			return
		}
		e := evidence{host: m.host, head: v.AuditHead()}
		w.await(2*time.Minute, func() bool {
			e.records = m.records()
			return uint64(len(e.records)) >= e.head.Sequence
		})
		e.records = e.records[:min(uint64(len(e.records)), e.head.Sequence)]
		all = append(all, e)
	}
	checkAudit(all, w.violation)
}

// checkAudit is P8: every member has every audit record, of the chain whose head is in the state, and all have the same.
func checkAudit(all []evidence, add adder) {
	for _, e := range all {
		if end, err := (audit.Head{}).Follow(e.records); err != nil || end != e.head {
			add("P8: the audit records of %s end at %d (%v), the state's chain at %d", e.host, end.Sequence, err, e.head.Sequence)
		}
		first := all[0]
		if n := min(len(first.records), len(e.records)); !reflect.DeepEqual(first.records[:n], e.records[:n]) {
			add("P8: the audit records of %s and %s differ", first.host, e.host)
		}
	}
}

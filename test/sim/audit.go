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

// compareAudit looks whether every member has every audit record, of the chain whose head is in the state (P8).
func (w *World) compareAudit() {
	var first []audit.Entry
	for _, m := range w.members {
		v := m.view()
		if v == nil {
			return
		}
		head := v.AuditHead()
		var mine []audit.Entry
		w.await(2*time.Minute, func() bool {
			mine = m.records()
			return uint64(len(mine)) >= head.Sequence
		})
		mine = mine[:min(uint64(len(mine)), head.Sequence)]
		if end, err := (audit.Head{}).Follow(mine); err != nil || end != head {
			w.violation("P8: the audit records of %s end at %d (%v), the state's chain at %d", m.host, end.Sequence, err, head.Sequence)
			return
		}
		if first == nil {
			first = mine
		}
		if n := min(len(first), len(mine)); !reflect.DeepEqual(first[:n], mine[:n]) {
			w.violation("P8: the audit records of %s and %s differ", w.members[0].host, m.host)
		}
	}
}

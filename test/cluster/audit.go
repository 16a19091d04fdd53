package cluster

import (
	"errors"
	"reflect"
	"sync/atomic"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/node/auditing"
)

// Audit is a member's audit records, on a disk that can be full.
type Audit struct {
	auditing.Memory
	Full atomic.Bool
}

var errFull = errors.New("no space left on device")

// Append implements auditing.Store.
func (a *Audit) Append(before audit.Head, entries []audit.Entry) error {
	if a.Full.Load() {
		return errFull
	}
	return a.Memory.Append(before, entries)
}

// Fill implements auditing.Store.
func (a *Audit) Fill(before audit.Head, entries []audit.Entry) error {
	if a.Full.Load() {
		return errFull
	}
	return a.Memory.Fill(before, entries)
}

// Records gives the member's records from the first that it has, up to the first that it lacks.
func (a *Audit) Records() (all []audit.Entry) {
	for next := uint64(1); ; next = all[len(all)-1].Sequence + 1 {
		_, page, err := a.Read(next, 1<<20)
		if err != nil || len(page) == 0 || len(all) > 0 && page[0].Sequence != next {
			return all
		}
		all = append(all, page...)
	}
}

// EmptyAudit loses a stopped member's audit records, and nothing else.
func (c *Cluster) EmptyAudit(m *Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.Audit = new(Audit)
}

// AwaitAudited waits until all running members have all records of the chain, up to its head, and checks that these are
// the same, and chained to each other. It gives them.
func (c *Cluster) AwaitAudited() []audit.Entry {
	c.t.Helper()
	var all []audit.Entry
	c.Await("all members to have all audit records", func() bool {
		if !c.agreed() {
			return false
		}
		for _, m := range c.Running() {
			all = m.Audit.Records()
			if len(all) == 0 || all[0].Sequence != 1 || all[len(all)-1].Head() != m.View().AuditHead() {
				return false
			}
		}
		return true
	})
	if _, err := (audit.Head{}).Follow(all); err != nil {
		c.t.Fatal(err)
	}
	for _, m := range c.Running() {
		if got := m.Audit.Records(); !reflect.DeepEqual(got[:min(len(got), len(all))], all) {
			c.t.Fatalf("%s has other audit records than the rest", m.Host)
		}
	}
	return all
}

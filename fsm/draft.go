package fsm

import "github.com/keyquorum/keyquorum/fsm/internal/cowtree"

// draft is the next View in the making. It is private to one ApplyBatch until it is finished.
type draft struct {
	head
	keys    int
	sealed  tally
	users   *cowtree.Edit[string, *User]
	events  *cowtree.Edit[event, event]
	idle    *cowtree.Edit[event, event]
	changed bool
	// trail has the audit records of what was changed, for the sink.
	trail trail
	// timed says that the entry at hand carries a time.
	timed bool
}

func edit(v *View, keepTrail bool) *draft {
	return &draft{
		trail:  trail{keep: keepTrail},
		head:   v.head,
		keys:   v.keys,
		sealed: v.sealed.edit(),
		users:  v.users.Edit(),
		events: v.order.events.Edit(),
		idle:   v.order.idle.Edit(),
	}
}

// finish gives the View. The draft is of no use afterwards.
func (d *draft) finish() *View {
	return &View{
		head:   d.head,
		keys:   d.keys,
		sealed: d.sealed,
		users:  d.users.Tree(),
		order:  order{events: d.events.Tree(), idle: d.idle.Tree()},
	}
}

// put puts u in the place of old, which is nil for a new user. A token more on the same key mostly leaves the
// orders alone.
func (d *draft) put(old, u *User) {
	d.users.Put(u)
	d.keys += 1 + len(u.Retiring)
	d.sealed.user(u, 1)
	at, idle := u.place()
	if old != nil {
		d.keys -= 1 + len(old.Retiring)
		d.sealed.user(old, -1)
		if was, wasIdle := old.place(); was == at && wasIdle == idle {
			return
		}
		d.displace(old)
	}
	d.tree(idle).Put(at)
}

// drop takes u out.
func (d *draft) drop(u *User) {
	d.users.Delete(u.Subject)
	d.keys -= 1 + len(u.Retiring)
	d.sealed.user(u, -1)
	d.displace(u)
}

func (d *draft) displace(u *User) {
	at, idle := u.place()
	d.tree(idle).Delete(at)
}

func (d *draft) tree(idle bool) *cowtree.Edit[event, event] {
	if idle {
		return d.idle
	}
	return d.events
}

// newKey counts a change to the keys, and gives the key that it made.
func (d *draft) newKey(c Candidate) Key {
	d.revision++
	return Key{ID: KeyID{Revision: d.revision, Random: c.Random}, Sealed: c.Sealed, Created: d.now}
}

package fsm

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/keyquorum/keyquorum/fsm/internal/cowtree"
	"github.com/keyquorum/keyquorum/internal/audit"
)

// View is one version of the state. It never changes, costs nothing to keep, and is safe for concurrent use.
// What it gives by reference is not to be changed.
type View struct {
	head
	users userTree
	order order
	keys  int
	// sealed counts the keys by the master key that they are sealed under. It follows from the users.
	sealed tally
}

// head is the part of the state that is not about single users.
type head struct {
	position     uint64
	revision     uint64
	now          int64 // the log's time, in milliseconds since the Unix epoch; 0 before any
	clusterID    string
	keyringCheck []byte
	settings     Settings
	members      []Member   // by ID; replaced, never changed
	removed      []string   // ids, sorted; replaced, never changed
	former       []string   // of removed; likewise
	apiTokens    []APIToken // by ID; replaced, never changed
	audited      audit.Head
	// masterKeys were the primary one before, or are retired; replaced, never changed. The primary is what keyringCheck is
	// sealed under.
	masterKeys []usedMasterKey
}

type userTree = cowtree.Tree[string, *User]

var bySubject = &cowtree.Order[string, *User]{
	Key:     func(u *User) string { return u.Subject },
	Compare: func(subject string, u *User) int { return strings.Compare(subject, u.Subject) },
}

func emptyView() *View {
	return &View{users: cowtree.New(bySubject), order: newOrder()}
}

// Position is the Raft index of the last command entry that was applied; 0 before any. Raft's own entries, such
// as configurations, do not count.
func (v *View) Position() uint64 { return v.position }

// Revision is the number of changes to users' keys so far.
func (v *View) Revision() uint64 { return v.revision }

// Time is the log's: the latest that an entry carried. It never goes back; it is zero before any.
func (v *View) Time() time.Time {
	if v.now == 0 {
		return time.Time{}
	}
	return time.UnixMilli(v.now)
}

// AuditHead is how far the audit chain has come, the same on every node at the same position.
func (v *View) AuditHead() audit.Head { return v.audited }

// Founded tells whether there is a cluster.
func (v *View) Founded() bool { return v.founded() }

func (h *head) founded() bool { return h.clusterID != "" }

// ClusterID is empty until the cluster is founded.
func (v *View) ClusterID() string { return v.clusterID }

// KeyringCheck is the known text that is sealed under the primary master key: since the founding, or since that key is the primary.
func (v *View) KeyringCheck() []byte { return slices.Clone(v.keyringCheck) }

// Settings are zero until the cluster is founded.
func (v *View) Settings() Settings { return v.settings }

// Members gives all records, by ID.
func (v *View) Members() []Member { return slices.Clone(v.members) }

// Member gives the record of the member with the id.
func (v *View) Member(id string) (Member, bool) {
	i, ok := findMember(v.members, id)
	if !ok {
		return Member{}, false
	}
	return v.members[i], true
}

// Removed tells whether the member with the id was taken out of the cluster. It does not come back.
func (v *View) Removed(id string) bool {
	_, removed := slices.BinarySearch(v.removed, id)
	return removed
}

// Holders are the nodes that may hold this state, or one before it, as fresh.
func (v *View) Holders() Holders { return v.holders() }

func (h *head) holders() Holders {
	var all Holders // none are nil, so that a state that was restored gives the same
	if len(h.members) > 0 {
		all.Members = h.members
	}
	if len(h.former) > 0 {
		all.Former = h.former
	}
	return all
}

func findMember(members []Member, id string) (int, bool) {
	return slices.BinarySearchFunc(members, id, func(m Member, id string) int { return cmp.Compare(m.ID, id) })
}

// User gives a user's keys.
func (v *View) User(subject string) (*User, bool) { return v.users.Get(subject) }

// Key gives the key that a token of subject names, be it active or retiring.
func (v *View) Key(subject string, id KeyID) (Key, bool) {
	u, ok := v.users.Get(subject)
	if !ok {
		return Key{}, false
	}
	if u.Active.ID == id {
		return u.Active, true
	}
	if i := u.retiring(id); i >= 0 {
		return u.Retiring[i], true
	}
	return Key{}, false
}

// retiring gives the place of a retiring key; -1 if there is none.
func (u *User) retiring(id KeyID) int {
	return slices.IndexFunc(u.Retiring, func(k Key) bool { return k.ID == id })
}

// Users gives up to limit users whose subjects come after the given one, in byte order.
func (v *View) Users(after string, limit int) []*User {
	var page []*User
	if limit <= 0 {
		return nil
	}
	for u := range v.users.From(after) {
		if u.Subject == after {
			continue
		}
		page = append(page, u)
		if len(page) == limit {
			break
		}
	}
	return page
}

// UserCount is the number of users.
func (v *View) UserCount() int { return v.users.Len() }

// KeyCount is the number of keys of all users, active and retiring.
func (v *View) KeyCount() int { return v.keys }

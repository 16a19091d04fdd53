package fsm

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// model is the state said again, as plainly as can be: it remembers every token, and finds everything else out by
// looking at all of them. Times are in milliseconds.
type model struct {
	now      int64
	revision uint64
	timed    bool // whether the entry at hand has a time
	settings Settings
	users    map[string]*modelUser
	members  map[string]bool // whether the id is a member's; false if it was removed
	former   map[string]bool
	tokens   map[string]bool
	primary  uint32
	used     map[uint32]bool // master keys of before, and whether they are retired
}

type modelUser struct {
	active   *modelKey
	retiring []*modelKey
	ended    int64 // the latest end of a token whose key is gone
}

type modelKey struct {
	id     KeyID
	made   int64
	under  uint32  // the master key
	tokens []int64 // their expiries
}

func (k *modelKey) earliest() int64 {
	if len(k.tokens) == 0 {
		return 0
	}
	return slices.Min(k.tokens)
}

func (k *modelKey) latest() int64 {
	if len(k.tokens) == 0 {
		return 0
	}
	return slices.Max(k.tokens)
}

func (k *modelKey) due(now int64) bool { return len(k.tokens) > 0 && k.earliest() <= now }

func (u *modelUser) keys() []*modelKey { return append([]*modelKey{u.active}, u.retiring...) }

// idleFrom is the latest end of all tokens that the user ever had.
func (u *modelUser) idleFrom() int64 {
	end := u.ended
	for _, k := range u.keys() {
		end = max(end, k.latest())
	}
	return end
}

// bury ends the tokens of a key that is deleted: now, if anybody knows when that is.
func (m *model) bury(u *modelUser, k *modelKey) {
	for _, exp := range k.tokens {
		if m.timed {
			exp = min(exp, m.now)
		}
		u.ended = max(u.ended, exp)
	}
}

// settle corrects what was buried without a time.
func (m *model) settle(u *modelUser) {
	if m.timed {
		u.ended = min(u.ended, m.now)
	}
}

// waits tells whether a token's expiry will bring something about.
func (u *modelUser) waits() bool { return len(u.active.tokens) > 0 || len(u.retiring) > 0 }

func (m *model) newKey(c Candidate) *modelKey {
	m.revision++
	return &modelKey{id: KeyID{Revision: m.revision, Random: c.Random}, made: m.now, under: SealedBy(c.Sealed)}
}

// outcome is what a command is expected to give.
type outcome struct {
	code    Code
	retryAt int64
	key     KeyID
	exp     int64
	done    Expired
	// rewrapped is the number of keys that are sealed under another master key now.
	rewrapped int
	// members and former are those that a state binds, where the command is to hold on all nodes.
	members, former []string
}

// holders gives the ids of the members, and of the former members.
func (m *model) holders() (members, former []string) {
	for id, in := range m.members {
		if in {
			members = append(members, id)
		}
	}
	slices.Sort(members)
	return members, slices.Sorted(maps.Keys(m.former))
}

func (m *model) apply(op Op, timed bool) outcome {
	m.timed = timed
	if NeedsTime(op) && !timed {
		return outcome{code: CodeNeedTime}
	}
	for _, c := range candidatesOf(op) {
		if m.used[SealedBy(c.Sealed)] {
			return outcome{code: CodeMasterKeyRetired}
		}
	}
	switch op := op.(type) {
	case Issue:
		return m.issue(op)
	case Rotate:
		return m.change(op.Subject, op.Expected, func(u *modelUser) outcome {
			if n := behindAt(u, u.active.tokens, m.now); m.settings.Mode == Overlap && n > m.settings.MaxRetiring {
				return m.tooMany(u)
			}
			m.rotate(u, op.Candidate)
			return outcome{key: u.active.id}
		})
	case Revoke:
		return m.change(op.Subject, op.Expected, func(u *modelUser) outcome {
			for _, k := range u.keys() {
				m.bury(u, k)
			}
			m.settle(u)
			u.active, u.retiring = m.newKey(op.Candidate), nil
			return outcome{key: u.active.id}
		})
	case Delete:
		return m.change(op.Subject, op.Expected, func(*modelUser) outcome {
			m.forget(op.Subject)
			return outcome{}
		})
	case Expire:
		return outcome{done: m.expire(op)}
	case UseMasterKey:
		return outcome{code: m.use(op)}
	case Rewrap:
		return outcome{rewrapped: m.rewrap(op)}
	case RetireMasterKey:
		return outcome{code: m.retire(op.ID)}
	case UpdateSettings:
		m.settings = m.settings.With(op)
	case PutMember:
		if in, known := m.members[op.Member.ID]; known && !in {
			return outcome{code: CodeRemovedMember}
		}
		m.members[op.Member.ID] = true
	case RemoveMember:
		if in, known := m.members[op.ID]; known && !in {
			return outcome{code: CodeUnknownMember}
		}
		if m.members[op.ID] {
			m.former[op.ID] = true
		}
		m.members[op.ID] = false
	case PutAPIToken:
		if m.tokens[op.Token.ID] {
			return outcome{code: CodeAPITokenExists}
		}
		m.tokens[op.Token.ID] = true
	case RevokeAPIToken:
		if !m.tokens[op.ID] {
			return outcome{code: CodeUnknownAPIToken}
		}
		delete(m.tokens, op.ID)
	case ForgetMembers:
		for _, id := range op.IDs {
			delete(m.former, id)
		}
	}
	return outcome{}
}

func (m *model) change(subject string, expected KeyID, do func(*modelUser) outcome) outcome {
	u := m.users[subject]
	switch {
	case u == nil:
		return outcome{code: CodeUnknownSubject}
	case expected != KeyID{} && expected != u.active.id:
		return outcome{code: CodeKeyMismatch}
	}
	return do(u)
}

func (m *model) forget(subject string) {
	delete(m.users, subject)
	m.revision++
}

func (m *model) issue(op Issue) outcome {
	ttl := op.TTL
	if ttl == 0 {
		ttl = m.settings.DefaultTTL
	}
	if ttl < m.settings.MinTTL || ttl > m.settings.MaxTTL {
		return outcome{code: CodeInvalid}
	}
	exp := m.now + ttl.Milliseconds()
	for exp%1000 != 0 {
		exp++
	}
	u := m.users[op.Subject]
	if (u == nil || u.active.due(m.now)) && op.Candidate == nil {
		return outcome{code: CodeNeedCandidate}
	}
	switch {
	case u == nil:
		u = &modelUser{active: m.newKey(*op.Candidate)}
		m.users[op.Subject] = u
	case u.active.due(m.now):
		m.rotate(u, *op.Candidate)
	case m.settings.Mode == Overlap:
		with := append(slices.Clone(u.active.tokens), exp)
		sum := behindAt(u, with, slices.Min(with))
		if sum > m.settings.MaxRetiring && sum > behindAt(u, u.active.tokens, u.active.earliest()) {
			return m.tooMany(u)
		}
	}
	u.active.tokens = append(u.active.tokens, exp)
	return outcome{key: u.active.id, exp: exp}
}

// behindAt counts the keys with live tokens that a rotation at a moment leaves behind, if the active key with
// these tokens is one of them.
func behindAt(u *modelUser, tokens []int64, at int64) int {
	if !slices.ContainsFunc(tokens, func(exp int64) bool { return exp > at }) {
		return 0
	}
	n := 1
	for _, k := range u.retiring {
		if slices.ContainsFunc(k.tokens, func(exp int64) bool { return exp > at }) {
			n++
		}
	}
	return n
}

// tooMany tries every end of a key for the time at which there is room.
func (m *model) tooMany(u *modelUser) outcome {
	retryAt := int64(1 << 62)
	for _, k := range u.retiring {
		if t := k.latest(); t > m.now && behindAt(u, []int64{t + 1}, t)-1 < m.settings.MaxRetiring {
			retryAt = min(retryAt, t)
		}
	}
	return outcome{code: CodeTooManyRetiring, retryAt: retryAt}
}

func (m *model) rotate(u *modelUser, c Candidate) {
	if m.settings.Mode == Overlap && u.active.latest() > m.now {
		u.retiring = append(u.retiring, u.active)
	} else {
		m.bury(u, u.active)
	}
	m.settle(u)
	u.active = m.newKey(c)
}

func (m *model) expire(op Expire) (done Expired) {
	for _, item := range op.Items {
		u := m.users[item.Subject]
		if u == nil || !m.expireItem(u, item, &done) {
			done.Skipped++
		}
	}
	return done
}

func (m *model) expireItem(u *modelUser, item ExpireItem, done *Expired) bool {
	if item.Key.IsZero() {
		if u.waits() || m.settings.ForgetAfter == 0 || u.idleFrom()+m.settings.ForgetAfter.Milliseconds() > m.now {
			return false
		}
		m.forget(item.Subject)
		done.Forgotten++
		return true
	}
	if item.Key == u.active.id {
		if !u.active.due(m.now) || item.Candidate == nil {
			return false
		}
		done.Lag = append(done.Lag, time.Duration(m.now-u.active.earliest())*time.Millisecond)
		m.rotate(u, *item.Candidate)
		done.Rotated++
		return true
	}
	i := slices.IndexFunc(u.retiring, func(k *modelKey) bool { return k.id == item.Key && k.latest() <= m.now })
	if i < 0 {
		return false
	}
	m.bury(u, u.retiring[i])
	u.retiring = slices.Delete(u.retiring, i, i+1)
	m.revision++
	done.Deleted++
	return true
}

// due finds by a scan what is due at now.
func (m *model) due(now int64) []Due {
	var due []Due
	for subject, u := range m.users {
		if u.active.due(now) {
			due = append(due, Due{time.UnixMilli(u.active.earliest()), subject, u.active.id, true})
		}
		for _, k := range u.retiring {
			if k.latest() <= now {
				due = append(due, Due{time.UnixMilli(k.latest()), subject, k.id, false})
			}
		}
		if forget := u.idleFrom() + m.settings.ForgetAfter.Milliseconds(); !u.waits() && m.settings.ForgetAfter > 0 && forget <= now {
			due = append(due, Due{time.UnixMilli(forget), subject, KeyID{}, false})
		}
	}
	sortDue(due)
	return due
}

// sortDue settles also what Due leaves open: the order of what one user has due at one moment.
func sortDue(due []Due) {
	slices.SortFunc(due, func(a, b Due) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Key.Revision, b.Key.Revision))
	})
}

// wholeDue gives everything that will ever be due if nothing else happens.
func (m *model) wholeDue() []Due { return m.due(1 << 60) }

func (m *model) user(subject string) *User {
	u := m.users[subject]
	if u == nil {
		return nil
	}
	out := &User{Subject: subject, Active: u.active.key(), IdleFrom: u.idleFrom()}
	for _, k := range u.retiring {
		out.Retiring = append(out.Retiring, k.key())
	}
	return out
}

func (k *modelKey) key() Key {
	return Key{
		ID: k.id, Sealed: sealedUnder(k.under, k.id.Random), Created: k.made,
		Earliest: k.earliest() / 1000, Latest: k.latest() / 1000,
	}
}

func candidatesOf(op Op) (all []Candidate) {
	switch op := op.(type) {
	case Issue:
		if op.Candidate != nil {
			all = append(all, *op.Candidate)
		}
	case Rotate:
		all = append(all, op.Candidate)
	case Revoke:
		all = append(all, op.Candidate)
	case Expire:
		for _, item := range op.Items {
			if item.Candidate != nil {
				all = append(all, *item.Candidate)
			}
		}
	}
	return all
}

func (m *model) use(op UseMasterKey) Code {
	if _, before := m.used[op.ID]; before || op.ID == m.primary {
		return CodeMasterKeyUsed
	}
	members, _ := m.holders()
	for _, id := range members {
		if !slices.Contains(op.Holders, id) {
			return CodeMasterKeyLacking
		}
	}
	m.used[m.primary] = false
	m.primary = op.ID
	return 0
}

func (m *model) retire(id uint32) Code {
	if id == m.primary || m.sealedBy(id) > 0 {
		return CodeMasterKeyInUse
	}
	m.used[id] = true
	return 0
}

// sealedBy counts by a look at every key.
func (m *model) sealedBy(id uint32) (n int) {
	for _, u := range m.users {
		for _, k := range u.keys() {
			if k.under == id {
				n++
			}
		}
	}
	return n
}

func (m *model) rewrap(op Rewrap) (n int) {
	for _, item := range op.Items {
		u := m.users[item.Subject]
		if u == nil || SealedBy(item.Sealed) != m.primary {
			continue
		}
		for _, k := range u.keys() {
			if k.id == item.Key && k.under != m.primary {
				k.under = m.primary
				n++
			}
		}
	}
	return n
}

// masterKeys gives what View.MasterKeys should, by id.
func (m *model) masterKeys() map[uint32]MasterKey {
	all := map[uint32]MasterKey{m.primary: {m.primary, MasterKeyPrimary, m.sealedBy(m.primary)}}
	for id, retired := range m.used {
		state := MasterKeyOlder
		if retired {
			state = MasterKeyRetired
		}
		all[id] = MasterKey{id, state, m.sealedBy(id)}
	}
	for _, u := range m.users {
		for _, k := range u.keys() {
			if _, known := all[k.under]; !known {
				all[k.under] = MasterKey{k.under, MasterKeyOlder, m.sealedBy(k.under)}
			}
		}
	}
	return all
}

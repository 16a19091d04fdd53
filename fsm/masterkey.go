package fsm

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/keyquorum/keyquorum/fsm/internal/logpb"
	"github.com/keyquorum/keyquorum/internal/audit"
)

// The state knows master keys by their ids alone. Which of them there are, the nodes' keyrings say; the state says which
// one is in use, so that all nodes seal under the same, and which ones nothing may be sealed under any more.

// MasterKeyState is what the state says of a master key.
type MasterKeyState uint8

const (
	// MasterKeyPrimary is the one under which all that is new is sealed.
	MasterKeyPrimary MasterKeyState = iota + 1
	// MasterKeyOlder keys open what is still sealed under them.
	MasterKeyOlder
	// MasterKeyRetired keys open nothing, as nothing is sealed under them or will be.
	MasterKeyRetired
)

// MasterKey is a master key as the state has it.
type MasterKey struct {
	ID    uint32
	State MasterKeyState
	// Keys is the number of users' keys that are sealed under it.
	Keys int
}

// usedMasterKey was the primary one before, or is retired.
type usedMasterKey struct {
	id      uint32
	retired bool
}

// maxMasterKeys bounds what is remembered of master keys: a new one each week for 20 years.
const maxMasterKeys = 1024

// SealedBy gives the id of the master key under which something was sealed: Tink's prefix, one byte of 1 and the id. It
// is 0 where there is no such prefix.
func SealedBy(sealed []byte) uint32 {
	if len(sealed) < 5 || sealed[0] != 1 {
		return 0
	}
	return binary.BigEndian.Uint32(sealed[1:5])
}

// PrimaryMasterKey is the id of the master key under which all that is new is to be sealed; 0 until the cluster is
// founded.
func (v *View) PrimaryMasterKey() uint32 { return v.primary() }

// MasterKeyState tells what the state says of the master key; false if it has never heard of it.
func (v *View) MasterKeyState(id uint32) (MasterKeyState, bool) {
	if id != 0 && id == v.primary() {
		return MasterKeyPrimary, true
	}
	i := v.usedMasterKey(id)
	switch {
	case i < 0:
		return 0, false
	case v.masterKeys[i].retired:
		return MasterKeyRetired, true
	}
	return MasterKeyOlder, true
}

// MasterKeys gives all master keys that the state has heard of: those of before, and the primary one at the end.
func (v *View) MasterKeys() []MasterKey {
	if !v.founded() {
		return nil
	}
	var all []MasterKey
	add := func(id uint32, state MasterKeyState) {
		all = append(all, MasterKey{ID: id, State: state, Keys: v.sealed.of(id)})
	}
	for _, k := range v.masterKeys {
		state, _ := v.MasterKeyState(k.id)
		add(k.id, state)
	}
	for _, id := range v.strangers() {
		add(id, MasterKeyOlder)
	}
	add(v.primary(), MasterKeyPrimary)
	return all
}

// strangers are the ids of master keys that seal something and were never the primary one, in order: nothing stops a
// proposer from sealing under them.
func (v *View) strangers() []uint32 {
	var ids []uint32
	for _, c := range v.sealed {
		if _, known := v.MasterKeyState(c.id); !known && c.n > 0 && c.id != v.primary() {
			ids = append(ids, c.id)
		}
	}
	slices.Sort(ids)
	return ids
}

// SealedElsewhere is the number of keys that are sealed under another master key than the primary one.
func (v *View) SealedElsewhere() int { return v.keys - v.sealed.of(v.primary()) }

// SealedKey is a user's key that is to be sealed anew.
type SealedKey struct {
	Subject string
	Key     Key
}

// ToRewrap looks at up to limit users whose subjects come after the given one, and gives their keys that are sealed under
// another master key than the primary one. It also gives the last subject that it looked at, empty if it came to the end.
func (v *View) ToRewrap(after string, limit int) (keys []SealedKey, last string) {
	for u := range v.users.From(after) {
		if u.Subject == after {
			continue
		}
		if limit == 0 {
			return keys, last
		}
		limit--
		last = u.Subject
		keys = v.appendOlder(keys, u)
	}
	return keys, ""
}

func (v *View) appendOlder(keys []SealedKey, u *User) []SealedKey {
	if SealedBy(u.Active.Sealed) != v.primary() {
		keys = append(keys, SealedKey{u.Subject, u.Active})
	}
	for _, k := range u.Retiring {
		if SealedBy(k.Sealed) != v.primary() {
			keys = append(keys, SealedKey{u.Subject, k})
		}
	}
	return keys
}

func (h *head) primary() uint32 { return SealedBy(h.keyringCheck) }

// usedMasterKey gives the place of a master key that was used before; -1 if there is none.
func (h *head) usedMasterKey(id uint32) int {
	return slices.IndexFunc(h.masterKeys, func(k usedMasterKey) bool { return k.id == id })
}

func (h *head) retired(id uint32) bool {
	i := h.usedMasterKey(id)
	return i >= 0 && h.masterKeys[i].retired
}

// checkCandidates refuses what is sealed under a retired master key, whether it is needed or not: who proposes again
// seals all of it anew.
func (h *head) checkCandidates(op Op) *Refusal {
	if len(h.masterKeys) == 0 {
		return nil
	}
	var candidates []*Candidate
	switch op := op.(type) {
	case Issue:
		candidates = append(candidates, op.Candidate)
	case Rotate:
		candidates = append(candidates, &op.Candidate)
	case Revoke:
		candidates = append(candidates, &op.Candidate)
	case Expire:
		for i := range op.Items {
			candidates = append(candidates, op.Items[i].Candidate)
		}
	}
	for _, c := range candidates {
		if c == nil {
			continue
		}
		if id := SealedBy(c.Sealed); h.retired(id) {
			return &Refusal{Code: CodeMasterKeyRetired, Message: fmt.Sprintf("the new key is sealed under master key %d, which is retired", id)}
		}
	}
	return nil
}

// useMasterKey makes the key the primary one, and remembers the one before.
func (d *draft) useMasterKey(op UseMasterKey) *Refusal {
	if op.ID == d.primary() || d.usedMasterKey(op.ID) >= 0 {
		return &Refusal{Code: CodeMasterKeyUsed, Field: "masterKey", Message: fmt.Sprintf("master key %d is or was in use", op.ID)}
	}
	if r := d.roomForMasterKey(); r != nil {
		return r
	}
	for i := range d.members {
		if m := &d.members[i]; !slices.Contains(op.Holders, m.ID) {
			return &Refusal{
				Code:    CodeMasterKeyLacking,
				Message: fmt.Sprintf("member %s has not said that it holds master key %d", cmp.Or(m.Name, m.ID), op.ID),
			}
		}
	}
	if before := d.primary(); before != 0 {
		d.masterKeys = append(slices.Clone(d.masterKeys), usedMasterKey{id: before})
	}
	d.keyringCheck = op.KeyringCheck
	d.auditMasterKey(audit.MasterKeyUsed, op.ID)
	return nil
}

func (d *draft) auditMasterKey(kind audit.Kind, id uint32) {
	d.audit(audit.Record{Kind: kind, Subject: strconv.FormatUint(uint64(id), 10)})
}

func (h *head) roomForMasterKey() *Refusal {
	if len(h.masterKeys) >= maxMasterKeys {
		return invalid("masterKey", "is one too many: %d master keys were used before", maxMasterKeys)
	}
	return nil
}

// retireMasterKey has nothing be sealed under the key from now on. One that was never used is never used then.
func (d *draft) retireMasterKey(id uint32) *Refusal {
	inUse := func(format string, args ...any) *Refusal {
		return &Refusal{Code: CodeMasterKeyInUse, Field: "masterKey", Message: fmt.Sprintf(format, args...)}
	}
	at := d.usedMasterKey(id)
	switch n := d.sealed.of(id); {
	case id == d.primary():
		return inUse("is the primary one: all that is new is sealed under it")
	case n > 0:
		return inUse("still seals %d of the users' keys", n)
	case at >= 0:
		d.masterKeys = slices.Clone(d.masterKeys)
		d.masterKeys[at].retired = true
		d.auditMasterKey(audit.MasterKeyRetired, id)
		return nil
	}
	if r := d.roomForMasterKey(); r != nil {
		return r
	}
	d.masterKeys = append(slices.Clone(d.masterKeys), usedMasterKey{id: id, retired: true})
	d.auditMasterKey(audit.MasterKeyRetired, id)
	return nil
}

// rewrap passes over the keys that are gone, and those that are sealed under the primary master key already.
func (d *draft) rewrap(op Rewrap, r *Result) {
	for i := range op.Items {
		item := &op.Items[i]
		u, ok := d.users.Get(item.Subject)
		if !ok || SealedBy(item.Sealed) != d.primary() {
			continue
		}
		if next, ok := u.rewrapped(item); ok {
			d.put(u, next)
			d.audit(audit.Record{Kind: audit.KeyRewrapped, Subject: u.Subject, KeyID: item.Key.String()})
			r.Rewrapped++
		}
	}
}

// rewrapped gives u with the item's bytes in the place of those of the same key, if they are sealed under another master
// key. All else of the key stays as it is.
func (u *User) rewrapped(item *RewrapItem) (*User, bool) {
	next := *u
	key := &next.Active
	if next.Active.ID != item.Key {
		i := u.retiring(item.Key)
		if i < 0 {
			return nil, false
		}
		next.Retiring = slices.Clone(u.Retiring)
		key = &next.Retiring[i]
	}
	if SealedBy(key.Sealed) == SealedBy(item.Sealed) {
		return nil, false
	}
	key.Sealed = item.Sealed
	return &next, true
}

func (op *UseMasterKey) check() *Refusal {
	if r := checkMasterKey(op.ID); r != nil {
		return r
	}
	if len(op.KeyringCheck) > maxCheck || SealedBy(op.KeyringCheck) != op.ID {
		return invalid("keyringCheck", "must be sealed under the master key and have up to %d bytes", maxCheck)
	}
	for _, id := range op.Holders {
		if r := checkText("holders", id, true); r != nil {
			return r
		}
	}
	return nil
}

func (op *Rewrap) check() *Refusal {
	for i := range op.Items {
		item := &op.Items[i]
		r := checkSubject(item.Subject)
		switch {
		case r != nil:
		case item.Key.IsZero():
			r = invalid("key", "must not be empty")
		case len(item.Sealed) == 0 || len(item.Sealed) > MaxSealed:
			r = invalid("sealed", "must have 1 to %d bytes", MaxSealed)
		}
		if r != nil {
			r.Field = fmt.Sprintf("items[%d].%s", i, r.Field)
			return r
		}
	}
	return nil
}

func checkMasterKey(id uint32) *Refusal {
	if id == 0 {
		return invalid("masterKey", "must not be 0")
	}
	return nil
}

func masterKeysProto(keys []usedMasterKey) []*logpb.MasterKey {
	var out []*logpb.MasterKey
	for _, k := range keys {
		out = append(out, &logpb.MasterKey{Id: k.id, Retired: k.retired})
	}
	return out
}

// setMasterKeys takes those of a snapshot, once the keyring check is set.
func (v *View) setMasterKeys(keys []*logpb.MasterKey) error {
	if len(keys) > maxMasterKeys {
		return errors.New("it knows too many master keys")
	}
	for i, k := range keys {
		if k.Id == 0 || k.Id == v.primary() || v.usedMasterKey(k.Id) >= 0 {
			return fmt.Errorf("master key %d has no id, or one that another has", i+1)
		}
		v.masterKeys = append(v.masterKeys, usedMasterKey{id: k.Id, retired: k.Retired})
	}
	return nil
}

// tally counts keys by the master key that they are sealed under; there are few.
type tally []sealedCount

type sealedCount struct {
	id uint32
	n  int
}

// edit gives a copy that can be changed.
func (t tally) edit() tally { return slices.Clone(t) }

func (t tally) of(id uint32) int {
	for i := range t {
		if t[i].id == id {
			return t[i].n
		}
	}
	return 0
}

// user counts all keys of u, up or down.
func (t *tally) user(u *User, by int) {
	t.add(SealedBy(u.Active.Sealed), by)
	for i := range u.Retiring {
		t.add(SealedBy(u.Retiring[i].Sealed), by)
	}
}

func (t *tally) add(id uint32, by int) {
	for i := range *t {
		if c := &(*t)[i]; c.id == id {
			c.n += by
			return
		}
	}
	*t = append(*t, sealedCount{id, by})
}

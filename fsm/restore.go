package fsm

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/keyquorum/keyquorum/fsm/internal/cowtree"
	"github.com/keyquorum/keyquorum/fsm/internal/logpb"
	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/plant"
	"github.com/keyquorum/keyquorum/internal/subject"
)

// Restore replaces the state by that of a snapshot. The new state is complete before readers see it; if the
// snapshot is not good in every part, the old one stays. It fails once the FSM has halted.
func (f *FSM) Restore(r io.ReadCloser) error {
	defer r.Close()
	if err := f.Err(); err != nil {
		return err
	}
	v, err := ReadSnapshot(r)
	if err != nil {
		return err
	}
	f.replace(v)
	f.change.broadcast()
	if f.audit != nil {
		f.audit.Restored(v.audited)
	}
	plant.Dawdle(plant.OldSnapshot)
	return nil
}

// replace makes v the newest version of the state, if it is no older than the one that is there; otherwise of another
// State, on which nothing rests that was found out about this one.
func (f *FSM) replace(v *View) {
	if state := f.State(); v.position >= state.View().position {
		state.view.Store(v)
		return
	}
	f.state.Store(newState(v))
}

// ReadSnapshot reads what WriteSnapshot wrote, up to the end of r, and nothing else. Its error wraps
// ErrNewerFormat where that is the cause.
func ReadSnapshot(r io.Reader) (*View, error) {
	v, err := readSnapshot(r)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	return v, nil
}

func readSnapshot(from io.Reader) (*View, error) {
	r, err := newRecordReader(from)
	if err != nil {
		return nil, err
	}
	v := emptyView()
	m, err := v.readHead(r)
	if err != nil {
		return nil, err
	}
	if err := v.readMembers(r, m.Members); err != nil {
		return nil, err
	}
	if err := v.readUsers(r, m.Users); err != nil {
		return nil, err
	}
	if err := r.finish(); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *View) readHead(r *recordReader) (*logpb.SnapshotHeader, error) {
	b, err := r.record()
	if err != nil {
		return nil, err
	}
	var m logpb.SnapshotHeader
	if err := unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("its header: %w", err)
	}
	if err := v.setHead(&m); err != nil {
		return nil, fmt.Errorf("its header: %w", err)
	}
	return &m, nil
}

func (v *View) setHead(m *logpb.SnapshotHeader) error {
	if m.Format != Format {
		return formatError(m.Format)
	}
	if m.TimeMs < 0 || m.TimeMs > maxTime {
		return fmt.Errorf("its time, %d ms, is out of range", m.TimeMs)
	}
	v.position, v.revision, v.now = m.Position, m.Revision, m.TimeMs
	if m.ClusterId == "" {
		return unfounded(m)
	}
	var d decoder
	found := Found{ClusterID: m.ClusterId, Settings: d.settings(m.Settings), KeyringCheck: m.KeyringCheck}
	if d.err != nil {
		return d.err
	}
	if r := found.check(); r != nil {
		return r
	}
	v.clusterID, v.settings, v.keyringCheck = found.ClusterID, found.Settings, found.KeyringCheck
	if err := v.setRemoved(m.Removed); err != nil {
		return err
	}
	return cmp.Or(
		v.setFormer(m.Former), v.setAudited(m.AuditSequence, m.AuditHash), v.setAPITokens(m.ApiTokens), v.setMasterKeys(m.MasterKeys),
	)
}

func (v *View) setAudited(sequence uint64, hash []byte) error {
	v.audited = audit.Head{Sequence: sequence}
	if sequence == 0 || len(hash) != copy(v.audited.Hash[:], hash) || len(hash) != len(v.audited.Hash) {
		return errors.New("its audit chain has no head")
	}
	return nil
}

func (v *View) setRemoved(ids []string) error {
	for i, id := range ids {
		if r := checkText("id", id, true); r != nil {
			return fmt.Errorf("removed member %d: %w", i+1, r)
		}
		if i > 0 && id <= ids[i-1] {
			return fmt.Errorf("removed member %d is out of order", i+1)
		}
	}
	v.removed = ids
	return nil
}

func (v *View) setFormer(ids []string) error {
	for i, id := range ids {
		if !v.Removed(id) {
			return fmt.Errorf("former member %d was not removed", i+1)
		}
		if i > 0 && id <= ids[i-1] {
			return fmt.Errorf("former member %d is out of order", i+1)
		}
	}
	v.former = ids
	return nil
}

// unfounded refuses a header that has what only a founded cluster can have.
func unfounded(m *logpb.SnapshotHeader) error {
	if m.Revision != 0 || m.Settings != nil || len(m.KeyringCheck) != 0 || len(m.Removed) != 0 || len(m.Former) != 0 || len(m.ApiTokens) != 0 ||
		m.AuditSequence != 0 || len(m.AuditHash) != 0 || len(m.MasterKeys) != 0 || m.Members != 0 || m.Users != 0 {
		return errors.New("it names no cluster")
	}
	return nil
}

func (v *View) readMembers(r *recordReader, count uint64) error {
	for i := range count {
		b, err := r.record()
		if err != nil {
			return err
		}
		m, err := readMember(b)
		if err != nil {
			return fmt.Errorf("member %d: %w", i+1, err)
		}
		if i > 0 && m.ID <= v.members[i-1].ID {
			return fmt.Errorf("member %d is out of order", i+1)
		}
		if v.Removed(m.ID) {
			return fmt.Errorf("member %d was removed", i+1)
		}
		v.members = append(v.members, m)
	}
	return nil
}

func readMember(b []byte) (Member, error) {
	var m logpb.Member
	if err := unmarshal(b, &m); err != nil {
		return Member{}, err
	}
	var d decoder
	member := d.member(&m)
	if d.err != nil {
		return Member{}, d.err
	}
	if r := member.check(); r != nil {
		return Member{}, r
	}
	return member, nil
}

func (v *View) readUsers(r *recordReader, count uint64) error {
	// The count is believed only so far: what is allocated ahead is bounded.
	users := make([]*User, 0, min(count, 1<<16))
	last := ""
	for i := range count {
		b, err := r.record()
		if err != nil {
			return err
		}
		u, err := readUser(b)
		if err == nil {
			err = v.checkUser(u)
		}
		if err == nil && u.Subject <= last {
			err = errors.New("out of order")
		}
		if err != nil {
			return fmt.Errorf("user %d: %w", i+1, err)
		}
		last = u.Subject
		users = append(users, u)
	}
	v.setUsers(users)
	return nil
}

// checkUser refuses what no log leads to.
func (v *View) checkUser(u *User) error {
	if err := subject.Check(u.Subject); err != nil {
		return fmt.Errorf("its subject %w", err)
	}
	if u.IdleFrom < 0 || u.IdleFrom > maxTime+MaxLifetime.Milliseconds()+1000 {
		return errors.New("the end of its last token is out of range")
	}
	last := uint64(0)
	for i := range u.Retiring {
		k := &u.Retiring[i]
		if k.Latest == 0 || k.ID.Revision <= last {
			return errors.New("its retiring keys are out of order, or without tokens")
		}
		last = k.ID.Revision
		if err := v.checkKey(k, u); err != nil {
			return err
		}
	}
	if u.Active.ID.Revision <= last {
		return errors.New("its active key is not its newest")
	}
	return v.checkKey(&u.Active, u)
}

func (v *View) checkKey(k *Key, u *User) error {
	candidate := Candidate{Random: k.ID.Random, Sealed: k.Sealed}
	if r := candidate.check("key"); r != nil {
		return r
	}
	if v.retired(SealedBy(k.Sealed)) {
		return errors.New("a key is sealed under a retired master key")
	}
	switch {
	case k.ID.Revision > v.revision:
		return errors.New("a key is newer than the state")
	case k.Created < 0 || k.Created > v.now:
		return errors.New("a key was made at no time of the log's")
	case k.Earliest < 0 || k.Latest < k.Earliest || (k.Earliest == 0) != (k.Latest == 0):
		return errors.New("a key's tokens expire in no order")
	case k.Latest > u.IdleFrom/1000:
		return errors.New("a key's tokens live on when none should")
	}
	return nil
}

// setUsers takes users in order of subject, and derives the orders of what is due.
func (v *View) setUsers(users []*User) {
	var events, idle []event
	for _, u := range users {
		v.keys += 1 + len(u.Retiring)
		v.sealed.user(u, 1)
		if at, isIdle := u.place(); isIdle {
			idle = append(idle, at)
		} else {
			events = append(events, at)
		}
	}
	slices.SortFunc(events, compareEvents)
	slices.SortFunc(idle, compareEvents)
	v.users = cowtree.Build(bySubject, users)
	v.order = order{events: cowtree.Build(byTime, events), idle: cowtree.Build(byTime, idle)}
}

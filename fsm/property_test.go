package fsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// sealedUnder is as Tink would begin it.
func sealedUnder(id uint32, random uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32([]byte{1}, id), random)
}

// pair is a rapid state machine: two FSMs that get the same log, one of them by way of snapshots, and the model
// of what they should hold.
type pair struct {
	steady, moved *FSM
	// kept has the audit records that each of them brought.
	kept   [2]kept
	model  model
	index  uint64
	random uint64
	wall   int64
}

func newPair(t *rapid.T) *pair {
	p := &pair{
		model: model{
			settings: DefaultSettings(), users: map[string]*modelUser{}, members: map[string]bool{}, former: map[string]bool{},
			tokens: map[string]bool{}, primary: 1, used: map[uint32]bool{},
		},
		wall: at(0).UnixMilli(),
	}
	p.steady, p.moved = New(Config{Audit: &p.kept[0]}), New(Config{Audit: &p.kept[1]})
	s := DefaultSettings()
	p.send(t, Entry{Commands: commands([]Op{Found{ClusterID: "c", Settings: s, KeyringCheck: sealedUnder(1, 0)}})})
	return p
}

// send applies entries as one batch, between entries of Raft's own, to both.
func (p *pair) send(t *rapid.T, entries ...Entry) [][]Result {
	var logs []*raft.Log
	var places []int
	for _, e := range entries {
		for rapid.IntRange(0, 4).Draw(t, "other") == 0 {
			p.index++
			logs = append(logs, &raft.Log{Index: p.index, Type: raft.LogConfiguration, Data: []byte("conf")})
		}
		b, err := EncodeEntry(e)
		if err != nil {
			t.Fatalf("encode: %v", err)
		}
		p.index++
		places = append(places, len(logs))
		logs = append(logs, &raft.Log{Index: p.index, Type: raft.LogCommand, Data: b})
	}
	a, b := p.steady.ApplyBatch(logs), p.moved.ApplyBatch(logs)
	if len(a) != len(logs) || !reflect.DeepEqual(a, b) {
		t.Fatalf("the two gave\n%v\n%v", a, b)
	}
	var results [][]Result
	for _, i := range places {
		results = append(results, a[i].([]Result))
	}
	return results
}

func (p *pair) Apply(t *rapid.T) {
	var entries []Entry
	var want [][]outcome
	var revisions [][]uint64
	for range rapid.IntRange(1, 3).Draw(t, "entries") {
		e := Entry{Time: p.tick(t)}
		var outs []outcome
		var revs []uint64
		if !e.Time.IsZero() {
			p.model.now = max(p.model.now, e.Time.UnixMilli())
		}
		for range rapid.IntRange(1, 4).Draw(t, "commands") {
			op := p.draw(t)
			e.Commands = append(e.Commands, Command{Op: op})
			out := p.model.apply(op, !e.Time.IsZero())
			switch op.(type) {
			case Tick, Revoke, Delete:
				out.members, out.former = p.model.holders()
			}
			outs = append(outs, out)
			revs = append(revs, p.model.revision)
		}
		entries, want, revisions = append(entries, e), append(want, outs), append(revisions, revs)
	}
	for i, results := range p.send(t, entries...) {
		for j, res := range results {
			checkResult(t, entries[i].Commands[j].Op, res, want[i][j], revisions[i][j])
		}
	}
}

// tick gives the time for an entry: mostly a little later, sometimes none, or an earlier one.
func (p *pair) tick(t *rapid.T) time.Time {
	switch rapid.IntRange(0, 9).Draw(t, "clock") {
	case 0:
		return time.Time{}
	case 1:
		return time.UnixMilli(p.wall - 5000)
	}
	p.wall += rapid.Int64Range(0, 3000).Draw(t, "passes")
	return time.UnixMilli(p.wall)
}

// cand is mostly sealed under the primary master key, as the proposer saw it.
func (p *pair) cand(t *rapid.T) *Candidate {
	p.random++
	return &Candidate{Random: p.random, Sealed: sealedUnder(p.masterKey(t), p.random)}
}

func (p *pair) masterKey(t *rapid.T) uint32 {
	if rapid.IntRange(0, 7).Draw(t, "other master key") > 0 {
		return p.model.primary
	}
	return rapid.Uint32Range(1, 6).Draw(t, "master key")
}

func (p *pair) draw(t *rapid.T) Op {
	subject := rapid.SampledFrom([]string{"a", "b", "c", "ä", "long subject, so that lengths differ"}).Draw(t, "subject")
	switch rapid.SampledFrom([]string{
		"issue", "issue", "issue", "issue", "expire", "expire", "rotate", "rotate",
		"revoke", "delete", "settings", "member", "remove", "tick", "forget members", "token", "revoke token",
		"use", "rewrap", "rewrap", "retire", "retire",
	}).Draw(t, "op") {
	case "issue":
		ttl := rapid.SampledFrom([]time.Duration{0, 1, 2, 3, 5, 7, 10, 20, 30, 90000}).Draw(t, "ttl") * time.Second
		op := Issue{Subject: subject, TTL: ttl}
		if ttl > 0 {
			op.TTL += time.Duration(rapid.IntRange(0, 999).Draw(t, "ms")) * time.Millisecond
		}
		op.TokenID = rapid.SampledFrom([]string{"", "jti"}).Draw(t, "token")
		if rapid.IntRange(0, 5).Draw(t, "with") > 0 {
			op.Candidate = p.cand(t)
		}
		return op
	case "rotate":
		return Rotate{subject, p.expected(t, subject), *p.cand(t)}
	case "revoke":
		return Revoke{subject, p.expected(t, subject), *p.cand(t)}
	case "delete":
		return Delete{subject, p.expected(t, subject)}
	case "settings":
		return drawSettings(t)
	case "member":
		return PutMember{Member{ID: subject, Region: rapid.SampledFrom([]string{"eu", "us"}).Draw(t, "region"), Format: 1}}
	case "remove":
		return RemoveMember{ID: subject}
	case "tick":
		return Tick{}
	case "token":
		return PutAPIToken{apiToken(subject)}
	case "revoke token":
		return RevokeAPIToken{ID: subject}
	case "forget members":
		return ForgetMembers{IDs: []string{subject, "nobody"}}
	case "use":
		members, _ := p.model.holders()
		if rapid.IntRange(0, 3).Draw(t, "lacking") == 0 {
			members = []string{"nobody"}
		}
		id := rapid.Uint32Range(1, 6).Draw(t, "master key")
		return UseMasterKey{ID: id, KeyringCheck: sealedUnder(id, 0), Holders: members}
	case "rewrap":
		return p.drawRewrap(t)
	case "retire":
		return RetireMasterKey{ID: rapid.Uint32Range(1, 6).Draw(t, "master key")}
	default:
		return p.drawExpire(t, subject)
	}
}

func (p *pair) expected(t *rapid.T, subject string) KeyID {
	u := p.model.users[subject]
	switch rapid.IntRange(0, 3).Draw(t, "expected") {
	case 0:
		return KeyID{Revision: 1, Random: 1 << 40}
	case 1:
		if u != nil {
			return u.active.id
		}
	}
	return KeyID{}
}

func drawSettings(t *rapid.T) UpdateSettings {
	return rapid.SampledFrom([]UpdateSettings{
		{Mode: new(Strict)},
		{Mode: new(Overlap)},
		{Mode: new(Overlap)},
		{ForgetAfter: new(time.Duration(0))},
		{ForgetAfter: new(5 * time.Second)},
		{ForgetAfter: new(time.Minute)},
		{MaxRetiring: new(1)},
		{MaxRetiring: new(2)},
		{MaxRetiring: new(4)},
		{DefaultTTL: new(4 * time.Second)},
		{MinTTL: new(time.Second)},
		{MinTTL: new(2 * time.Second)},
		{AuditIssued: new(false)},
		{AuditIssued: new(true)},
	}).Draw(t, "settings")
}

// drawExpire is what a leader would send, with items left out, early, late, or for another subject.
func (p *pair) drawExpire(t *rapid.T, subject string) Expire {
	var op Expire
	for _, d := range p.model.due(p.wall + rapid.Int64Range(0, 4000).Draw(t, "early")) {
		if rapid.IntRange(0, 4).Draw(t, "leave out") == 0 {
			continue
		}
		item := ExpireItem{Subject: d.Subject, Key: d.Key}
		if d.Active {
			item.Candidate = p.cand(t)
		}
		op.Items = append(op.Items, item)
	}
	return Expire{Items: append(op.Items, ExpireItem{Subject: subject})}
}

// drawRewrap is what a leader would send, with keys left out, gone, or sealed under another master key.
func (p *pair) drawRewrap(t *rapid.T) Rewrap {
	items := []RewrapItem{{Subject: "a", Key: KeyID{Revision: 1, Random: 1 << 40}, Sealed: sealedUnder(p.model.primary, 1<<40)}}
	for _, subject := range slices.Sorted(maps.Keys(p.model.users)) {
		for _, k := range p.model.users[subject].keys() {
			if rapid.IntRange(0, 4).Draw(t, "leave out") == 0 {
				continue
			}
			items = append(items, RewrapItem{Subject: subject, Key: k.id, Sealed: sealedUnder(p.masterKey(t), k.id.Random)})
		}
	}
	return Rewrap{Items: items}
}

func checkResult(t *rapid.T, op Op, res Result, want outcome, revision uint64) {
	var refusal *Refusal
	errors.As(res.Err, &refusal)
	switch {
	case (refusal != nil) != (want.code != 0) || refusal != nil && refusal.Code != want.code:
		t.Fatalf("%#v gave %v, want code %d", op, res.Err, want.code)
	case want.retryAt != 0 && refusal.RetryAt.UnixMilli() != want.retryAt:
		t.Fatalf("%#v: retry at %v, want %v", op, refusal.RetryAt, time.UnixMilli(want.retryAt))
	case res.Revision != revision:
		t.Fatalf("%#v gave revision %d, want %d", op, res.Revision, revision)
	case res.Key.ID != want.key:
		t.Fatalf("%#v gave key %v, want %v", op, res.Key.ID, want.key)
	case want.exp != 0 && res.ExpiresAt.UnixMilli() != want.exp:
		t.Fatalf("%#v expires at %v, want %v", op, res.ExpiresAt, time.UnixMilli(want.exp))
	case !slices.Equal(memberIDs(res.Holders.Members), want.members) || !slices.Equal(res.Holders.Former, want.former):
		t.Fatalf("%#v binds %+v, want %v and %v", op, res.Holders, want.members, want.former)
	case res.Rewrapped != want.rewrapped:
		t.Fatalf("%#v rewrapped %d keys, want %d", op, res.Rewrapped, want.rewrapped)
	case !reflect.DeepEqual(res.Expired, want.done):
		t.Fatalf("%#v did %+v, want %+v", op, res.Expired, want.done)
	}
}

func memberIDs(members []Member) (ids []string) {
	for _, m := range members {
		ids = append(ids, m.ID)
	}
	return ids
}

// Move takes one FSM through a snapshot, into itself or into a new one.
func (p *pair) Move(t *rapid.T) {
	b := snapshotOf(t, p.moved)
	if rapid.Bool().Draw(t, "new node") {
		p.moved = New(Config{Audit: &p.kept[1]})
	}
	if err := restore(p.moved, b); err != nil {
		t.Fatalf("restore: %v", err)
	}
	if again := snapshotOf(t, p.moved); !bytes.Equal(b, again) {
		t.Fatal("the snapshot changed by being restored")
	}
}

// Check runs after each step.
func (p *pair) Check(t *rapid.T) {
	if a, b := snapshotOf(t, p.steady), snapshotOf(t, p.moved); !bytes.Equal(a, b) {
		t.Fatal("the two have different snapshots")
	}
	a, b := p.steady.View(), p.moved.View()
	for _, limit := range []int{1, 3, 1000} {
		for _, when := range []int64{p.wall, p.wall + 10_000} {
			if da, db := a.Due(time.UnixMilli(when), limit), b.Due(time.UnixMilli(when), limit); !reflect.DeepEqual(da, db) {
				t.Fatalf("the two have due\n%v\n%v", da, db)
			}
		}
	}
	p.checkDue(t, a)
	p.checkAudit(t, a)
	p.checkUsers(t, a)
	if a.Revision() != p.model.revision || a.Time().UnixMilli() != p.model.now && p.model.now != 0 {
		t.Fatalf("revision %d, time %v; want %d, %d", a.Revision(), a.Time(), p.model.revision, p.model.now)
	}
	for id, in := range p.model.members {
		if _, has := a.Member(id); has != in || a.Removed(id) == in {
			t.Fatalf("member %q: there %v, removed %v, want %v", id, has, a.Removed(id), in)
		}
	}
	if a.KeyCount() != b.KeyCount() || a.UserCount() != b.UserCount() || a.Settings() != p.model.settings {
		t.Fatal("counts or settings differ")
	}
	p.checkMasterKeys(t, a)
	p.checkMasterKeys(t, b)
}

func (p *pair) checkMasterKeys(t *rapid.T, v *View) {
	got := make(map[uint32]MasterKey)
	for _, k := range v.MasterKeys() {
		got[k.ID] = k
	}
	want := p.model.masterKeys()
	if !maps.Equal(got, want) || v.PrimaryMasterKey() != p.model.primary {
		t.Fatalf("master keys %v, want %v with %d for the primary", got, want, p.model.primary)
	}
	elsewhere := v.KeyCount() - want[p.model.primary].Keys
	keys, last := v.ToRewrap("", 1000)
	if v.SealedElsewhere() != elsewhere || len(keys) != elsewhere || last != "" {
		t.Fatalf("%d keys are to be rewrapped, and %d found (%q), want %d", v.SealedElsewhere(), len(keys), last, elsewhere)
	}
}

func (p *pair) checkDue(t *rapid.T, v *View) {
	got := v.Due(time.UnixMilli(p.wall), 1000)
	sortDue(got)
	if want := p.model.due(p.wall); !slices.Equal(got, want) {
		t.Fatalf("due\n%v\nwant\n%v", got, want)
	}
	next, ok := v.NextDue()
	all := p.model.wholeDue()
	if ok != (len(all) > 0) || ok && !next.Equal(all[0].At) {
		t.Fatalf("next due at %v, want the first of %v", next, all)
	}
}

func (p *pair) checkUsers(t *rapid.T, v *View) {
	keys := 0
	for _, u := range v.Users("", 1000) {
		if want := p.model.user(u.Subject); !reflect.DeepEqual(u, want) {
			t.Fatalf("user\n%+v\nwant\n%+v", u, want)
		}
		keys += 1 + len(u.Retiring)
		for _, k := range append([]Key{u.Active}, u.Retiring...) {
			if got, ok := v.Key(u.Subject, k.ID); !ok || !reflect.DeepEqual(got, k) {
				t.Fatalf("Key(%s, %v) = %v, %v", u.Subject, k.ID, got, ok)
			}
		}
	}
	if v.UserCount() != len(p.model.users) || v.KeyCount() != keys {
		t.Fatalf("%d users and %d keys, want %d and %d", v.UserCount(), v.KeyCount(), len(p.model.users), keys)
	}
}

// TestTwoNodesAndTheModelAgree: the same log gives the same results, the same bytes and the same order of what is
// due, whether or not a node went through snapshots; and all of it is what the model says.
func TestTwoNodesAndTheModelAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPair(t)
		t.Repeat(map[string]func(*rapid.T){"apply": p.Apply, "apply more": p.Apply, "move": p.Move, "": p.Check})
	})
}

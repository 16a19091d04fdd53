package fsm

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// newMasterRig is founded under master key 1, and makes candidates under the primary one.
func newMasterRig(t tb) *rig {
	t.Helper()
	r := &rig{FSM: New(Config{}), t: t}
	r.ok(at(0), Found{ClusterID: "c1", Settings: DefaultSettings(), KeyringCheck: sealedUnder(1, 1)})
	return r
}

func (r *rig) candUnder(id uint32) *Candidate {
	r.random++
	return &Candidate{Random: r.random, Sealed: sealedUnder(id, r.random)}
}

func (r *rig) issueUnder(id uint32, now time.Time, subject string) Result {
	r.t.Helper()
	return r.ok(now, Issue{Subject: subject, TTL: time.Minute, Candidate: r.candUnder(id)})
}

func (r *rig) use(id uint32, holders ...string) {
	r.t.Helper()
	r.ok(at(1), UseMasterKey{ID: id, KeyringCheck: sealedUnder(id, 1), Holders: holders})
}

func (r *rig) wantMasterKeys(want ...MasterKey) {
	r.t.Helper()
	if got := r.View().MasterKeys(); fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Fatalf("master keys %v, want %v", got, want)
	}
}

func TestMasterKeyIsUsedOnlyWhereEachMemberHoldsIt(t *testing.T) {
	r := newMasterRig(t)
	for _, id := range []string{"n1", "n2"} {
		r.ok(at(0), PutMember{Member{ID: id, Name: "node " + id, Format: 1}})
	}
	use := UseMasterKey{ID: 2, KeyringCheck: sealedUnder(2, 1), Holders: []string{"n1"}}
	if refusal := r.refused(at(1), use, CodeMasterKeyLacking); !bytes.Contains([]byte(refusal.Message), []byte("node n2")) {
		t.Errorf("%q does not name the member", refusal.Message)
	}
	r.wantMasterKeys(MasterKey{1, MasterKeyPrimary, 0})
	r.use(2, "n2", "n1", "who has gone since")
	r.wantMasterKeys(MasterKey{1, MasterKeyOlder, 0}, MasterKey{2, MasterKeyPrimary, 0})
	for _, id := range []uint32{1, 2} { // none becomes it a second time
		r.refused(at(2), UseMasterKey{ID: id, KeyringCheck: sealedUnder(id, 1), Holders: []string{"n1", "n2"}}, CodeMasterKeyUsed)
	}
	r.refused(at(2), UseMasterKey{ID: 3, KeyringCheck: sealedUnder(2, 1), Holders: []string{"n1", "n2"}}, CodeInvalid)
}

func TestRewrapTouchesNothingButTheSeal(t *testing.T) {
	r := newMasterRig(t)
	old := r.issueUnder(1, at(0), "ada").Key
	r.ok(at(1), Rotate{Subject: "ada", Candidate: *r.candUnder(1)})
	gone := r.issueUnder(1, at(1), "bob").Key.ID
	r.ok(at(2), Revoke{Subject: "bob", Candidate: *r.candUnder(1)})
	r.use(2)
	before, _ := r.View().User("ada")
	revision := r.View().Revision()
	item := func(subject string, id KeyID, under uint32) RewrapItem {
		return RewrapItem{Subject: subject, Key: id, Sealed: sealedUnder(under, id.Random)}
	}
	res := r.ok(at(3), Rewrap{Items: []RewrapItem{
		item("ada", old.ID, 2), item("ada", before.Active.ID, 1), item("bob", gone, 2), item("eve", gone, 2), item("ada", old.ID, 2),
	}})
	if res.Rewrapped != 1 || res.Revision != revision {
		t.Fatalf("%d keys were rewrapped, revision %d, want 1 and %d", res.Rewrapped, res.Revision, revision)
	}
	want := *before
	want.Retiring = []Key{old}
	want.Retiring[0].Sealed = sealedUnder(2, old.ID.Random)
	if got, _ := r.View().User("ada"); fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", want) {
		t.Errorf("ada has\n%+v\nwant\n%+v", *got, want)
	}
	if _, ok := r.View().Key("bob", gone); ok {
		t.Error("a revoked key is back")
	}
	r.wantMasterKeys(MasterKey{1, MasterKeyOlder, 2}, MasterKey{2, MasterKeyPrimary, 1})
}

func TestRetiredMasterKeySealsNothing(t *testing.T) {
	r := newMasterRig(t)
	key := r.issueUnder(1, at(0), "ada").Key.ID
	r.refused(at(1), RetireMasterKey{ID: 1}, CodeMasterKeyInUse) // the primary one
	r.use(2)
	r.refused(at(2), RetireMasterKey{ID: 1}, CodeMasterKeyInUse) // it seals ada's
	r.issueUnder(1, at(2), "in flight")                          // as long as it is not retired
	r.ok(at(3), Delete{Subject: "in flight"})
	r.ok(at(3), Rewrap{Items: []RewrapItem{{Subject: "ada", Key: key, Sealed: sealedUnder(2, key.Random)}}})
	r.ok(at(4), RetireMasterKey{ID: 1})
	r.ok(at(4), RetireMasterKey{ID: 1}) // once more does no harm
	for _, op := range []Op{
		Issue{Subject: "ada", Candidate: r.candUnder(1)},
		Rotate{Subject: "ada", Candidate: *r.candUnder(1)},
		Revoke{Subject: "ada", Candidate: *r.candUnder(1)},
		Expire{Items: []ExpireItem{{Subject: "ada", Key: key, Candidate: r.candUnder(2)}, {Subject: "ada", Key: key, Candidate: r.candUnder(1)}}},
	} {
		r.refused(at(5), op, CodeMasterKeyRetired)
	}
	r.ok(at(6), RetireMasterKey{ID: 9}) // one that was never used is never used then
	r.refused(at(6), UseMasterKey{ID: 9, KeyringCheck: sealedUnder(9, 1)}, CodeMasterKeyUsed)
	r.wantMasterKeys(MasterKey{1, MasterKeyRetired, 0}, MasterKey{9, MasterKeyRetired, 0}, MasterKey{2, MasterKeyPrimary, 1})
}

// A node can have kept a snapshot from before the switch, and gets what followed.
func TestSnapshotFromBeforeTheSwitch(t *testing.T) {
	r := newMasterRig(t)
	key := r.issueUnder(1, at(0), "ada").Key.ID
	early := snapshotOf(t, r.FSM)
	var after []*raft.Log
	send := func(now time.Time, op Op) {
		after = append(after, r.log(now, op))
		r.ApplyBatch(after[len(after)-1:])
	}
	send(at(1), UseMasterKey{ID: 2, KeyringCheck: sealedUnder(2, 1)})
	send(at(1), Rewrap{Items: []RewrapItem{{Subject: "ada", Key: key, Sealed: sealedUnder(2, key.Random)}}})
	send(at(1), RetireMasterKey{ID: 1})
	late := restored(t, early)
	if late.View().PrimaryMasterKey() != 1 || late.View().SealedElsewhere() != 0 {
		t.Errorf("before the switch, the primary is %d", late.View().PrimaryMasterKey())
	}
	late.ApplyBatch(after)
	want := snapshotOf(t, r.FSM)
	if got := snapshotOf(t, late); !bytes.Equal(got, want) {
		t.Error("the two have different snapshots")
	}
	back := restored(t, want)
	if got, want := fmt.Sprint(back.View().MasterKeys()), fmt.Sprint(r.View().MasterKeys()); got != want {
		t.Errorf("restored as %s, want %s", got, want)
	}
}

func TestImpossibleMasterKeysInASnapshot(t *testing.T) {
	for name, change := range map[string]func(*View){
		"the primary was used before": func(v *View) { v.masterKeys = []usedMasterKey{{id: 1}} },
		"one twice":                   func(v *View) { v.masterKeys = []usedMasterKey{{id: 2}, {id: 2, retired: true}} },
		"no id":                       func(v *View) { v.masterKeys = []usedMasterKey{{id: 0}} },
		"a retired one seals": func(v *View) {
			v.keyringCheck, v.masterKeys = sealedUnder(2, 1), []usedMasterKey{{id: 1, retired: true}}
		},
		"too many": func(v *View) {
			for i := range maxMasterKeys + 1 {
				v.masterKeys = append(v.masterKeys, usedMasterKey{id: uint32(i + 2)})
			}
		},
	} {
		r := newMasterRig(t)
		r.issueUnder(1, at(0), "ada")
		v := *r.View()
		change(&v)
		var b bytes.Buffer
		if err := v.WriteSnapshot(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSnapshot(&b); err == nil {
			t.Errorf("%s: the snapshot was read", name)
		}
	}
}

func TestToRewrapGoesOnWhereItStopped(t *testing.T) {
	r := newMasterRig(t)
	for i := range 10 {
		r.issueUnder(1, at(0), fmt.Sprint("user ", i))
	}
	r.use(2)
	r.issueUnder(2, at(1), "user 55")
	var found int
	after := ""
	for looks := 0; ; looks++ {
		if looks > 5 {
			t.Fatal("it comes to no end")
		}
		keys, last := r.View().ToRewrap(after, 3)
		found += len(keys)
		if last == "" {
			break
		}
		after = last
	}
	if found != 10 {
		t.Errorf("%d keys were found, want 10", found)
	}
}

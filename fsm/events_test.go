package fsm

import (
	"slices"
	"testing"
	"time"
)

func TestFirstIssueMakesAKey(t *testing.T) {
	r := newRig(t, nil)
	res := r.issue(at(10.5), "ada", 60)
	if res.Key.ID != (KeyID{Revision: 1, Random: 1}) || string(res.Key.Sealed) != "\x00\x01s" {
		t.Fatalf("signed with %v", res.Key)
	}
	if res.Issuer != "keyquorum" || res.Revision != 1 {
		t.Fatalf("result %+v", res)
	}
	// iat rounds down, exp up, to whole seconds.
	if !res.IssuedAt.Equal(at(10)) || !res.ExpiresAt.Equal(at(71)) {
		t.Fatalf("from %v to %v", res.IssuedAt, res.ExpiresAt)
	}
	k, ok := r.View().Key("ada", res.Key.ID)
	if !ok || k.Created != at(10.5).UnixMilli() || k.Earliest != at(71).Unix() || k.Latest != k.Earliest {
		t.Fatalf("the key is %+v", k)
	}
	r.wantIdle("ada", at(71))
}

func TestLaterIssuesRecordOnTheActiveKey(t *testing.T) {
	r := newRig(t, nil)
	r.issue(at(0), "ada", 60)
	for _, ttl := range []float64{100, 30, 50} {
		// Without a candidate: none is needed.
		res := r.ok(at(1), Issue{Subject: "ada", TTL: time.Duration(ttl) * time.Second})
		if res.Key.ID.Revision != 1 || res.Revision != 1 {
			t.Fatalf("result %+v", res)
		}
	}
	r.wantKeys("ada", 1)
	u, _ := r.View().User("ada")
	if u.Active.Earliest != at(31).Unix() || u.Active.Latest != at(101).Unix() {
		t.Fatalf("expiries %v", u.Active)
	}
	r.wantIdle("ada", at(101))
}

func TestIssueTakesTheDefaultLifetime(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.DefaultTTL = 1500 * time.Millisecond })
	if res := r.issue(at(0), "ada", 0); !res.ExpiresAt.Equal(at(2)) {
		t.Fatalf("expires at %v", res.ExpiresAt)
	}
}

func TestCandidateOfAnIssueIsIgnoredWhenNotNeeded(t *testing.T) {
	r := newRig(t, nil)
	r.issue(at(0), "ada", 60)
	if res := r.issue(at(1), "ada", 60); res.Key.ID.Random != 1 {
		t.Fatalf("signed with %v", res.Key)
	}
	r.wantKeys("ada", 1)
}

func TestIssueOnADueKeyRotatesItFirst(t *testing.T) {
	for mode, keys := range map[Mode][]uint64{Overlap: {2, 1}, Strict: {2}} {
		t.Run(mode.String(), func(t *testing.T) {
			r := newRig(t, func(s *Settings) { s.Mode = mode })
			r.issue(at(0), "ada", 60)
			r.issue(at(0), "ada", 100)
			r.refused(at(60), Issue{Subject: "ada"}, CodeNeedCandidate)
			res := r.issue(at(60), "ada", 60)
			if res.Key.ID.Revision != 2 || res.Key.Earliest != at(120).Unix() {
				t.Fatalf("signed with %v", res.Key)
			}
			r.wantKeys("ada", keys...)
			r.wantRevision(2)
		})
	}
}

func TestExpiryRotates(t *testing.T) {
	for _, c := range []struct {
		name string
		mode Mode
		ttls []float64
		keys []uint64
		idle time.Time
	}{
		{"overlap with a live token", Overlap, []float64{60, 90}, []uint64{2, 1}, at(90)},
		{"overlap with none left", Overlap, []float64{60, 60}, []uint64{2}, at(60)},
		{"strict with a live token", Strict, []float64{60, 90}, []uint64{2}, at(60.7)},
		{"strict with none left", Strict, []float64{60}, []uint64{2}, at(60)},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(s *Settings) { s.Mode = c.mode })
			for _, ttl := range c.ttls {
				r.issue(at(0), "ada", ttl)
			}
			if done := r.expire(at(59.999)); done.Rotated+done.Skipped != 0 {
				t.Fatalf("too early: %+v", done)
			}
			done := r.expire(at(60.7))
			if done.Rotated != 1 || len(done.Lag) != 1 || done.Lag[0] != 700*time.Millisecond {
				t.Fatalf("done %+v", done)
			}
			r.wantKeys("ada", c.keys...)
			r.wantRevision(2)
			r.wantIdle("ada", c.idle)
			if u, _ := r.View().User("ada"); u.Active.Earliest != 0 || u.Active.Latest != 0 {
				t.Fatalf("the new key has tokens: %+v", u.Active)
			}
		})
	}
}

func TestAKeyIsDueInTheMillisecondOfItsExpiry(t *testing.T) {
	r := newRig(t, nil)
	r.issue(at(0), "ada", 60)
	if due := r.View().Due(at(60), 10); len(due) != 1 || !due[0].Active || !due[0].At.Equal(at(60)) {
		t.Fatalf("due %v", due)
	}
	if next, ok := r.View().NextDue(); !ok || !next.Equal(at(60)) {
		t.Fatalf("next %v", next)
	}
}

func TestRetiringKeyGoesWithItsLastToken(t *testing.T) {
	r := newRig(t, nil)
	old := r.issue(at(0), "ada", 60).Key.ID
	r.issue(at(0), "ada", 90)
	r.expire(at(60))
	if _, ok := r.View().Key("ada", old); !ok {
		t.Fatal("the retiring key does not verify")
	}
	if done := r.expire(at(89.999)); done.Deleted != 0 {
		t.Fatalf("too early: %+v", done)
	}
	if done := r.expire(at(90)); done.Deleted != 1 {
		t.Fatalf("done %+v", done)
	}
	r.wantKeys("ada", 2)
	r.wantRevision(3)
	if _, ok := r.View().Key("ada", old); ok {
		t.Fatal("the key is still there")
	}
	if r.View().KeyCount() != 1 {
		t.Fatalf("%d keys", r.View().KeyCount())
	}
}

func TestRotateOnDemand(t *testing.T) {
	r := newRig(t, nil)
	r.issue(at(0), "ada", 60)
	res := r.rotate(at(10), "ada")
	if res.Key.ID.Revision != 2 || res.Revision != 2 || res.Key.Created != at(10).UnixMilli() {
		t.Fatalf("result %+v", res)
	}
	r.wantKeys("ada", 2, 1)
	r.wantIdle("ada", at(60))
	// The new key has signed nothing: so nothing of it needs to be kept.
	r.rotate(at(11), "ada")
	r.wantKeys("ada", 3, 1)
	// The expected key is compared.
	r.refused(at(12), Rotate{Subject: "ada", Expected: res.Key.ID, Candidate: *r.cand()}, CodeKeyMismatch)
	u, _ := r.View().User("ada")
	r.ok(at(12), Rotate{Subject: "ada", Expected: u.Active.ID, Candidate: *r.cand()})
}

func TestRotateInStrictModeKillsTokensAtOnce(t *testing.T) {
	r := newRig(t, strict)
	r.issue(at(0), "ada", 60)
	r.rotate(at(10.25), "ada")
	r.wantKeys("ada", 2)
	r.wantIdle("ada", at(10.25))
}

func TestKeysRetiringFromOverlapModeOutliveAChangeToStrict(t *testing.T) {
	r := newRig(t, nil)
	r.issue(at(0), "ada", 60)
	r.rotate(at(10), "ada")
	r.issue(at(20), "ada", 300)
	r.ok(at(20), UpdateSettings{Mode: new(Strict)})
	r.rotate(at(30), "ada")
	r.wantKeys("ada", 3, 1)
	r.wantIdle("ada", at(60)) // of the older key; the token of 300 s is dead
	r.expire(at(60))
	r.wantKeys("ada", 3)
}

func TestRevokeDeletesAllKeysAndMakesOne(t *testing.T) {
	r := newRig(t, nil)
	first := r.issue(at(0), "ada", 60).Key.ID
	second := r.rotate(at(10), "ada").Key.ID
	r.issue(at(11), "ada", 60)
	r.refused(at(12), Revoke{Subject: "ada", Expected: first, Candidate: *r.cand()}, CodeKeyMismatch)
	res := r.ok(time.Time{}, Revoke{Subject: "ada", Expected: second, Candidate: *r.cand()})
	if res.Key.ID.Revision != 3 || res.Revision != 3 {
		t.Fatalf("result %+v", res)
	}
	r.wantKeys("ada", 3)
	r.wantIdle("ada", at(71)) // when the tokens would have ended: the entry has no time, and the log's may be long past
	for _, id := range []KeyID{first, second} {
		if _, ok := r.View().Key("ada", id); ok {
			t.Fatalf("%v is still there", id)
		}
	}
	if _, ok := r.View().NextDue(); ok {
		t.Fatal("something of a revoked user is due")
	}
	r.ok(at(13), Revoke{Subject: "ada", Candidate: *r.cand()})
	r.wantIdle("ada", at(13))
}

// A leader that does not know the time goes on revoking and rotating, for as long as that takes. Nobody is forgotten for it.
func TestNobodyIsForgottenForATimeThatNobodyKnew(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.ForgetAfter = time.Minute })
	for _, user := range []string{"ada", "bob"} {
		r.issue(at(0), user, 600)
	}
	r.ok(time.Time{}, Revoke{Subject: "ada", Candidate: *r.cand()}) // at 100, say
	r.ok(time.Time{}, Rotate{Subject: "bob", Candidate: *r.cand()})
	r.expire(at(101))
	if n := r.View().UserCount(); n != 2 {
		t.Errorf("%d users", n)
	}
}

func TestDeleteForgets(t *testing.T) {
	r := newRig(t, nil)
	id := r.issue(at(0), "ada", 60).Key.ID
	r.issue(at(0), "bob", 60)
	r.refused(at(1), Delete{Subject: "ada", Expected: KeyID{Revision: 9}}, CodeKeyMismatch)
	if res := r.ok(at(1), Delete{Subject: "ada", Expected: id}); res.Revision != 3 {
		t.Fatalf("revision %d", res.Revision)
	}
	if _, ok := r.View().User("ada"); ok || r.View().UserCount() != 1 || r.View().KeyCount() != 1 {
		t.Fatal("the user is still there")
	}
	if due := r.View().Due(at(100), 10); len(due) != 1 || due[0].Subject != "bob" {
		t.Fatalf("due %v", due)
	}
	// A new key never takes an old one's id.
	if res := r.issue(at(2), "ada", 60); res.Key.ID.Revision != 4 {
		t.Fatalf("new key %v", res.Key.ID)
	}
}

func TestIdleUsersAreForgotten(t *testing.T) {
	r := newRig(t, nil)
	r.issue(at(0), "ada", 60)
	r.issue(at(0), "ada", 90)
	r.expire(at(60))
	if _, ok := r.View().NextDue(); !ok {
		t.Fatal("the retiring key is not due")
	}
	r.expire(at(90))
	if next, ok := r.View().NextDue(); ok {
		t.Fatalf("without forgetAfter, %v is due", next)
	}
	// The setting counts from when the last token died, and for users who were idle before.
	r.ok(at(100), UpdateSettings{ForgetAfter: new(time.Hour)})
	if next, ok := r.View().NextDue(); !ok || !next.Equal(at(90+3600)) {
		t.Fatalf("next %v", next)
	}
	if done := r.expire(at(3689.999)); done.Forgotten != 0 {
		t.Fatalf("too early: %+v", done)
	}
	revision := r.View().Revision()
	if done := r.expire(at(3690)); done.Forgotten != 1 {
		t.Fatalf("done %+v", done)
	}
	if _, ok := r.View().User("ada"); ok || r.View().Revision() != revision+1 {
		t.Fatal("the user is still there")
	}
}

func TestAUserWithALiveTokenIsNotForgotten(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.ForgetAfter = time.Second })
	r.issue(at(0), "ada", 60)
	r.rotate(at(1), "ada") // the token lives on its retiring key
	if done := r.ok(at(30), Expire{Items: []ExpireItem{{Subject: "ada"}}}).Expired; done.Skipped != 1 {
		t.Fatalf("done %+v", done)
	}
}

func TestExpireSkipsWhatIsNotDueOrGone(t *testing.T) {
	r := newRig(t, nil)
	old := r.issue(at(0), "ada", 60).Key.ID
	r.issue(at(0), "ada", 90)
	gone := r.issue(at(0), "bob", 60).Key.ID
	r.ok(at(1), Delete{Subject: "bob"})
	item := func(subject string, id KeyID, c *Candidate) Expire {
		return Expire{Items: []ExpireItem{{Subject: subject, Key: id, Candidate: c}}}
	}
	for name, c := range map[string]struct {
		at time.Time
		op Expire
	}{
		"not due yet":         {at(59), item("ada", old, r.cand())},
		"no candidate":        {at(60), item("ada", old, nil)},
		"another key":         {at(60), item("ada", KeyID{Revision: 77, Random: 1}, r.cand())},
		"a user who is gone":  {at(60), item("bob", gone, r.cand())},
		"forgetting a user":   {at(1e6), item("ada", KeyID{}, nil)},
		"other random bits":   {at(60), item("ada", KeyID{Revision: 1, Random: 99}, r.cand())},
		"a key not yet made":  {at(60), item("ada", KeyID{Revision: 3, Random: 99}, r.cand())},
		"a forgotten unknown": {at(60), item("eve", KeyID{}, nil)},
	} {
		f := restored(t, snapshotOf(t, r.FSM))
		c2 := &rig{FSM: f, t: t, index: r.index}
		if done := c2.ok(c.at, c.op).Expired; done.Skipped != 1 || done.Rotated+done.Deleted+done.Forgotten != 0 {
			t.Errorf("%s: %+v", name, done)
		}
		c2.wantRevision(3)
	}
}

func TestExpireTwiceRotatesOnce(t *testing.T) {
	r := newRig(t, nil)
	id := r.issue(at(0), "ada", 60).Key.ID
	item := func() ExpireItem { return ExpireItem{Subject: "ada", Key: id, Candidate: r.cand()} }
	done := r.ok(at(60), Expire{Items: []ExpireItem{item(), item()}}).Expired
	if done.Rotated != 1 || done.Skipped != 1 {
		t.Fatalf("done %+v", done)
	}
	r.wantRevision(2)
}

func TestLogTimeOnlyMovesForward(t *testing.T) {
	r := newRig(t, nil)
	r.issue(at(100), "ada", 60)
	res := r.issue(at(50), "bob", 60)
	if !res.IssuedAt.Equal(at(100)) || !r.View().Time().Equal(at(100)) {
		t.Fatalf("issued at %v, the log's time is %v", res.IssuedAt, r.View().Time())
	}
	// A command that needs no time works on the log's.
	if res := r.rotate(time.Time{}, "ada"); res.Key.Created != at(100).UnixMilli() {
		t.Fatalf("created %v", res.Key.Created)
	}
}

func TestDueIsInOrderOfTimeAndBounded(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.ForgetAfter = 10 * time.Second })
	r.issue(at(0), "late", 50)
	r.issue(at(0), "idle", 5)
	r.expire(at(5))
	r.issue(at(5), "both", 35) // on its first key, due at 40
	r.issue(at(5), "both", 15) // and so at 20
	r.rotate(at(6), "both")    // that key is retiring until 40
	r.issue(at(6), "both", 24) // the active one is due at 30
	r.issue(at(6), "b", 24)
	want := []Due{
		{At: at(15), Subject: "idle"},
		{At: at(30), Subject: "b", Active: true},
		{At: at(30), Subject: "both", Active: true},
		{At: at(40), Subject: "both"},
		{At: at(50), Subject: "late", Active: true},
	}
	got := r.View().Due(at(60), 100)
	if len(got) != len(want) {
		t.Fatalf("due %v", got)
	}
	for i := range got {
		if got[i].Key.IsZero() != (want[i].Subject == "idle") {
			t.Errorf("%v: key %v", got[i].Subject, got[i].Key)
		}
		got[i].Key = KeyID{}
		if !got[i].At.Equal(want[i].At) || got[i].Subject != want[i].Subject || got[i].Active != want[i].Active {
			t.Errorf("%d: got %v, want %v", i, got[i], want[i])
		}
	}
	for limit := range want {
		if got := r.View().Due(at(60), limit); len(got) != limit {
			t.Errorf("%d due with limit %d", len(got), limit)
		}
	}
	if got := r.View().Due(at(29), 100); len(got) != 1 {
		t.Errorf("due at 29: %v", got)
	}
	if next, ok := r.View().NextDue(); !ok || !next.Equal(at(15)) {
		t.Errorf("next %v", next)
	}
}

func TestMembers(t *testing.T) {
	r := newRig(t, nil)
	for _, id := range []string{"b", "a", "c"} {
		r.ok(time.Time{}, PutMember{Member{ID: id, Name: "node-" + id, Format: 1}})
	}
	before := r.View()
	r.ok(time.Time{}, PutMember{Member{ID: "b", Name: "renamed", Format: 2, Replica: true}})
	r.ok(time.Time{}, RemoveMember{ID: "a"})
	r.refused(time.Time{}, RemoveMember{ID: "a"}, CodeUnknownMember)
	r.refused(time.Time{}, PutMember{Member{ID: "a", Format: 1}}, CodeRemovedMember)
	r.ok(time.Time{}, RemoveMember{ID: "never seen"})
	r.refused(time.Time{}, PutMember{Member{ID: "never seen", Format: 1}}, CodeRemovedMember)
	for id, want := range map[string]bool{"a": true, "b": false, "never seen": true, "": false} {
		if got := r.View().Removed(id); got != want {
			t.Errorf("Removed(%q) = %v", id, got)
		}
	}
	if got := r.View().Members(); len(got) != 2 || got[0].Name != "renamed" || got[1].ID != "c" {
		t.Fatalf("members %v", got)
	}
	if m, ok := r.View().Member("b"); !ok || m.Format != 2 || !m.Replica {
		t.Fatalf("member %v", m)
	}
	if _, ok := r.View().Member("a"); ok {
		t.Fatal("a removed member is still there")
	}
	if got := before.Members(); len(got) != 3 || got[1].Name != "node-b" || before.Removed("a") {
		t.Fatalf("an older view has %v", got)
	}
	r.wantRevision(0)
}

// TestWhoHoldsAState: whoever waits until what it did holds everywhere learns whom to wait for, of its own entry.
func TestWhoHoldsAState(t *testing.T) {
	r := newRig(t, nil)
	for _, id := range []string{"a", "b", "c"} {
		r.ok(time.Time{}, PutMember{Member{ID: id, Format: 1, Replica: id == "c"}})
	}
	r.ok(time.Time{}, RemoveMember{ID: "b"})
	r.ok(time.Time{}, RemoveMember{ID: "never a member"})
	refused := r.apply(time.Time{}, Revoke{Subject: "nobody", Candidate: *r.cand()})[0]
	results := r.apply(time.Time{}, Tick{}, PutMember{Member{ID: "d", Format: 1}}, Delete{Subject: "nobody"}, Rotate{Subject: "nobody", Candidate: *r.cand()})
	for i, want := range [][]string{{"a", "c"}, {"a", "c"}, nil, {"a", "c", "d"}, nil} {
		res := append([]Result{refused}, results...)[i]
		if got := memberIDs(res.Holders.Members); !slices.Equal(got, want) || res.Position == 0 {
			t.Errorf("%d: members %v at %d, want %v", i, got, res.Position, want)
		}
		if want != nil && !slices.Equal(res.Holders.Former, []string{"b"}) {
			t.Errorf("%d: former members %v", i, res.Holders.Former)
		}
	}
	if !refused.Holders.Member("c") || refused.Holders.Member("b") || results[0].Position != refused.Position+1 {
		t.Errorf("holders %+v at %d, then at %d", refused.Holders, refused.Position, results[0].Position)
	}
	r.ok(time.Time{}, ForgetMembers{IDs: []string{"a", "b"}})
	if got := r.ok(time.Time{}, Tick{}).Holders; len(got.Former) != 0 || len(got.Members) != 3 || !r.View().Removed("b") {
		t.Errorf("holders %+v once b was forgotten", got)
	}
}

func TestUsersAndPages(t *testing.T) {
	r := newRig(t, nil)
	for _, s := range []string{"b", "a", "ä", "B", "aa"} {
		r.issue(at(0), s, 60)
	}
	var got []string
	for after := ""; ; {
		page := r.View().Users(after, 2)
		if len(page) == 0 {
			break
		}
		for _, u := range page {
			got = append(got, u.Subject)
		}
		after = got[len(got)-1]
	}
	want := []string{"B", "a", "aa", "b", "ä"}
	if len(got) != len(want) {
		t.Fatalf("users %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("users %v, want %v", got, want)
		}
	}
}

package fsm

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestFoundedOnceAndFirst(t *testing.T) {
	r := &rig{FSM: New(Config{}), t: t}
	c := r.cand()
	for _, op := range []Op{
		Issue{Subject: "ada", Candidate: c},
		Rotate{Subject: "ada", Candidate: *c},
		Revoke{Subject: "ada", Candidate: *c},
		Delete{Subject: "ada"},
		Expire{},
		UpdateSettings{},
		PutMember{Member{ID: "n1", Format: 1}},
		RemoveMember{ID: "n1"},
		Tick{},
		ForgetMembers{},
		PutAPIToken{apiToken("t1")},
		RevokeAPIToken{ID: "t1"},
		UseMasterKey{ID: 1, KeyringCheck: sealedUnder(1, 1)},
		Rewrap{},
		RetireMasterKey{ID: 1},
	} {
		r.refused(at(0), op, CodeNotFounded)
	}
	if r.View().Founded() {
		t.Fatal("founded by a refused command")
	}
	found := Found{ClusterID: "c1", Settings: DefaultSettings(), KeyringCheck: []byte("x")}
	if res := r.ok(time.Time{}, found); res.Settings != DefaultSettings() {
		t.Fatalf("result %+v", res)
	}
	found.ClusterID = "c2"
	r.refused(at(1), found, CodeFounded)
	if v := r.View(); !v.Founded() || v.ClusterID() != "c1" || string(v.KeyringCheck()) != "x" {
		t.Fatalf("cluster %q", v.ClusterID())
	}
}

func TestIssueAndExpireNeedATime(t *testing.T) {
	r := newRig(t, nil)
	id := r.issue(at(0), "ada", 60).Key.ID
	r.refused(time.Time{}, Issue{Subject: "ada"}, CodeNeedTime)
	r.refused(time.Time{}, Expire{Items: []ExpireItem{{Subject: "ada", Key: id, Candidate: r.cand()}}}, CodeNeedTime)
}

func TestUnknownSubjects(t *testing.T) {
	r := newRig(t, nil)
	r.refused(at(0), Rotate{Subject: "ada", Candidate: *r.cand()}, CodeUnknownSubject)
	r.refused(at(0), Revoke{Subject: "ada", Candidate: *r.cand()}, CodeUnknownSubject)
	r.refused(at(0), Delete{Subject: "ada"}, CodeUnknownSubject)
	r.refused(at(0), Issue{Subject: "ada"}, CodeNeedCandidate)
}

func TestLifetimeOutOfBoundsIsRefused(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.MinTTL, s.MaxTTL = 1500*time.Millisecond, time.Hour })
	for _, ttl := range []time.Duration{
		-1, -time.Second, time.Nanosecond, 1499 * time.Millisecond, time.Hour + 1, time.Hour + time.Millisecond,
		1000 * time.Hour, 1 << 62, -1 << 63,
	} {
		refusal := r.refused(at(0), Issue{Subject: "ada", TTL: ttl, Candidate: r.cand()}, CodeInvalid)
		if refusal.Field != "ttl" || !strings.Contains(refusal.Message, "from 1.500s to 3600s") {
			t.Errorf("%v: %v", ttl, refusal)
		}
	}
	if refusal := r.refused(at(0), Issue{Subject: "a", TTL: time.Second, Candidate: r.cand()}, CodeInvalid); refusal.Error() !=
		"ttl: must be from 1.500s to 3600s" {
		t.Errorf("%v", refusal)
	}
	for _, ttl := range []time.Duration{1500 * time.Millisecond, time.Hour} {
		r.ok(at(0), Issue{Subject: "ada", TTL: ttl, Candidate: r.cand()})
	}
}

func TestInvalidFields(t *testing.T) {
	r := newRig(t, nil)
	good := *r.cand()
	long := strings.Repeat("x", 257)
	for _, c := range []struct {
		op    Op
		field string
	}{
		{Issue{Subject: ""}, "subject"},
		{Issue{Subject: long}, "subject"},
		{Issue{Subject: "a\nb"}, "subject"},
		{Issue{Subject: "a", Candidate: &Candidate{Random: 1}}, "candidate"},
		{Issue{Subject: "a", Candidate: &Candidate{Random: 1, Sealed: make([]byte, 513)}}, "candidate"},
		{Issue{Subject: "a", Candidate: &Candidate{Sealed: []byte("s")}}, "candidate"},
		{Rotate{Subject: "", Candidate: good}, "subject"},
		{Rotate{Subject: "a"}, "candidate"},
		{Revoke{Subject: "\x7f", Candidate: good}, "subject"},
		{Revoke{Subject: "a"}, "candidate"},
		{Delete{Subject: "\u0085"}, "subject"},
		{Expire{Items: []ExpireItem{{Subject: "a"}, {Subject: ""}}}, "items[1].subject"},
		{Expire{Items: []ExpireItem{{Subject: "a", Candidate: &Candidate{}}}}, "items[0].candidate"},
		{PutMember{Member{Format: 1}}, "id"},
		{PutMember{Member{ID: long, Format: 1}}, "id"},
		{PutMember{Member{ID: "n1"}}, "format"},
		{PutMember{Member{ID: "n1", Name: long, Format: 1}}, "name"},
		{PutMember{Member{ID: "n1", Region: long, Format: 1}}, "region"},
		{PutMember{Member{ID: "n1", RPCAddress: long, Format: 1}}, "rpcAddress"},
		{PutMember{Member{ID: "n1", RaftAddress: long, Format: 1}}, "raftAddress"},
		{PutMember{Member{ID: "n1", Version: long, Format: 1}}, "version"},
		{RemoveMember{}, "id"},
		{ForgetMembers{IDs: []string{"n1", ""}}, "ids"},
	} {
		if refusal := r.refused(at(0), c.op, CodeInvalid); refusal.Field != c.field {
			t.Errorf("%#v: field %q, want %q", c.op, refusal.Field, c.field)
		}
		wantInvalid(t, Command{Op: c.op}.Validate(), c.field)
	}
	r.ok(at(0), Issue{Subject: strings.Repeat("x", 256), Candidate: &Candidate{Random: 1, Sealed: make([]byte, 512)}})
}

func wantInvalid(t *testing.T, err error, field string) {
	t.Helper()
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Code != CodeInvalid || refusal.Field != field || refusal.Message == "" {
		t.Errorf("got %v, want %s to be invalid", err, field)
	}
}

func TestValidateFindsWhatCannotBeEncoded(t *testing.T) {
	c := Candidate{Random: 1, Sealed: []byte("s")}
	for field, c := range map[string]Command{
		"subject":       {Op: Issue{Subject: "a\xff"}},
		"origin.actor":  {Op: Delete{Subject: "a"}, Origin: Origin{Actor: "\xff"}},
		"origin.source": {Op: Delete{Subject: "a"}, Origin: Origin{Source: "\xff"}},
		"origin.node":   {Op: Delete{Subject: "a"}, Origin: Origin{Node: strings.Repeat("n", 257)}},
		"name":          {Op: PutMember{Member{ID: "a", Name: "\xff", Format: 1}}},
		"format":        {Op: PutMember{Member{ID: "a", Format: -1}}},
		"mode":          {Op: UpdateSettings{Mode: new(Mode(3))}},
		"forgetAfter":   {Op: UpdateSettings{ForgetAfter: new(time.Hour + 1)}},
		"wantedVoters":  {Op: UpdateSettings{WantedVoters: new(-1)}},
		"clusterId":     {Op: Found{Settings: DefaultSettings(), KeyringCheck: []byte("x")}},
		"keyringCheck":  {Op: Found{Settings: DefaultSettings(), ClusterID: "c"}},
	} {
		wantInvalid(t, c.Validate(), field)
	}
	if err := (Command{}).Validate(); err == nil {
		t.Error("a command without an operation is valid")
	}
	if err := (Command{Op: Rotate{Subject: "ada", Candidate: c}}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestSettingsBounds(t *testing.T) {
	if err := DefaultSettings().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(*Settings)
		field  string
	}{
		{func(s *Settings) { s.Mode = 0 }, "mode"},
		{func(s *Settings) { s.Mode = 3 }, "mode"},
		{func(s *Settings) { s.ForgetAfter = -1 }, "forgetAfter"},
		{func(s *Settings) { s.ForgetAfter = time.Millisecond }, "forgetAfter"},
		{func(s *Settings) { s.ForgetAfter = MaxForgetAfter + time.Second }, "forgetAfter"},
		{func(s *Settings) { s.Issuer = "" }, "issuer"},
		{func(s *Settings) { s.Issuer = strings.Repeat("x", 257) }, "issuer"},
		{func(s *Settings) { s.MinTTL = 999 * time.Millisecond }, "minTtl"},
		{func(s *Settings) { s.MinTTL = time.Second + 1 }, "minTtl"},
		{func(s *Settings) { s.DefaultTTL = 0 }, "defaultTtl"},
		{func(s *Settings) { s.DefaultTTL++ }, "defaultTtl"},
		{func(s *Settings) { s.MaxTTL++ }, "maxTtl"},
		{func(s *Settings) { s.DefaultTTL = s.MaxTTL + time.Second }, "defaultTtl"},
		{func(s *Settings) { s.MaxTTL = MaxLifetime + time.Second }, "maxTtl"},
		{func(s *Settings) { s.MinTTL, s.MaxTTL = time.Hour, time.Minute }, "maxTtl"},
		{func(s *Settings) { s.MaxRetiring = 0 }, "maxRetiringKeys"},
		{func(s *Settings) { s.MaxRetiring = 1025 }, "maxRetiringKeys"},
		{func(s *Settings) { s.WantedVoters = 4 }, "wantedVoters"},
		{func(s *Settings) { s.WantedVoters = 11 }, "wantedVoters"},
		{func(s *Settings) { s.WantedVoters = -1 }, "wantedVoters"},
	} {
		s := DefaultSettings()
		c.change(&s)
		wantInvalid(t, s.Validate(), c.field)
	}
}

func TestUpdateSettingsChangesAllOrNothing(t *testing.T) {
	r := newRig(t, nil)
	r.refused(at(0), UpdateSettings{Issuer: new("other"), MinTTL: new(time.Hour)}, CodeInvalid)
	if r.View().Settings() != DefaultSettings() {
		t.Fatalf("settings %+v", r.View().Settings())
	}
	want := Settings{
		Mode: Strict, ForgetAfter: time.Hour, Issuer: "other", MinTTL: 2 * time.Second, DefaultTTL: 3 * time.Second,
		MaxTTL: 4 * time.Second, MaxRetiring: 5, WantedVoters: 7, LeaderRegion: "eu", MaxStaleness: 5 * time.Second, AuditIssued: false,
	}
	res := r.ok(at(0), UpdateSettings{
		Mode: &want.Mode, ForgetAfter: &want.ForgetAfter, Issuer: &want.Issuer, MinTTL: &want.MinTTL,
		DefaultTTL: &want.DefaultTTL, MaxTTL: &want.MaxTTL, MaxRetiring: &want.MaxRetiring, WantedVoters: &want.WantedVoters,
		LeaderRegion: &want.LeaderRegion, AuditIssued: &want.AuditIssued,
	})
	if res.Settings != want || r.View().Settings() != want {
		t.Fatalf("settings %+v", r.View().Settings())
	}
	if res := r.ok(at(0), UpdateSettings{}); res.Settings != want {
		t.Fatalf("no change gave %+v", res.Settings)
	}
	r.wantRevision(0)
}

func TestRefusedCommandLeavesOthersOfItsEntryAlone(t *testing.T) {
	r := newRig(t, nil)
	results := r.apply(at(0), Issue{Subject: "ada", Candidate: r.cand()}, Delete{Subject: "eve"}, Issue{Subject: "ada"})
	if results[0].Err != nil || results[1].Err == nil || results[2].Err != nil {
		t.Fatalf("results %+v", results)
	}
	if results[2].Key.ID != results[0].Key.ID {
		t.Fatal("a command did not see what the one before it did")
	}
}

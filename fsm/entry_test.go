package fsm

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/keyquorum/keyquorum/fsm/internal/logpb"
)

// everyOp has each operation, with every field set.
func everyOp() []Op {
	c := Candidate{Random: 0x0102030405060708, Sealed: []byte("sealed")}
	id := KeyID{Revision: 7, Random: 0xffeeddccbbaa9988}
	s := Settings{
		Mode: Strict, ForgetAfter: time.Hour, Issuer: "issuer", MinTTL: 2 * time.Second,
		DefaultTTL: 3 * time.Second, MaxTTL: 4500 * time.Millisecond, MaxRetiring: 5, WantedVoters: 7,
		LeaderRegion: "eu", MaxStaleness: 6500 * time.Millisecond, AuditIssued: true,
	}
	return []Op{
		Found{ClusterID: "cluster", Settings: s, KeyringCheck: []byte("check")},
		Issue{Subject: "ada", TTL: 90 * time.Second, Candidate: &c, TokenID: "id"},
		Issue{Subject: "ada"},
		Rotate{Subject: "ada", Expected: id, Candidate: c},
		Revoke{Subject: "ada", Expected: id, Candidate: c},
		Delete{Subject: "ada", Expected: id},
		Delete{Subject: "ada"},
		Expire{Items: []ExpireItem{
			{Subject: "ada", Key: id, Candidate: &c}, {Subject: "ada", Key: id}, {Subject: "bob"},
		}},
		UpdateSettings{
			Mode: &s.Mode, ForgetAfter: &s.ForgetAfter, Issuer: &s.Issuer, MinTTL: &s.MinTTL,
			DefaultTTL: &s.DefaultTTL, MaxTTL: &s.MaxTTL, MaxRetiring: &s.MaxRetiring, WantedVoters: &s.WantedVoters,
			LeaderRegion: &s.LeaderRegion, AuditIssued: &s.AuditIssued,
		},
		UpdateSettings{ForgetAfter: new(time.Duration(0))},
		PutMember{Member{
			ID: "n1", Name: "one", Region: "eu", RPCAddress: "h:1", RaftAddress: "h:2", Version: "v",
			Format: 1, Replica: true,
		}},
		RemoveMember{ID: "n1"},
		Tick{},
		ForgetMembers{IDs: []string{"n1", "n2"}},
		PutAPIToken{apiToken("t1")},
		RevokeAPIToken{ID: "t1"},
		UseMasterKey{ID: 0x01020304, KeyringCheck: sealedUnder(0x01020304, 7), Holders: []string{"n1", "n2"}},
		Rewrap{Items: []RewrapItem{{Subject: "ada", Key: id, Sealed: []byte("sealed")}, {Subject: "bob", Key: id, Sealed: []byte("anew")}}},
		RetireMasterKey{ID: 0x01020304},
	}
}

func TestEntryRoundTrip(t *testing.T) {
	origin := Origin{Actor: "login", Source: "::1", Node: "n1"}
	for _, when := range []time.Time{{}, at(0.123)} {
		want := Entry{Time: when}
		for i, op := range everyOp() {
			c := Command{Op: op}
			if i%2 == 0 {
				c.Origin = origin
			}
			want.Commands = append(want.Commands, c)
		}
		b, err := EncodeEntry(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeEntry(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got\n%+v\nwant\n%+v", got, want)
		}
	}
}

func TestEntryTimeIsKeptToTheMillisecond(t *testing.T) {
	b, err := EncodeEntry(Entry{Time: at(1.5).Add(999 * time.Microsecond), Commands: commands([]Op{Delete{}})})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := DecodeEntry(b); err != nil || !e.Time.Equal(at(1.5)) {
		t.Fatalf("time %v, %v", e.Time, err)
	}
}

func TestLifetimeIsRoundedUpToTheMillisecond(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{
		1:                       time.Millisecond,
		-1:                      -time.Millisecond,
		time.Second + 1:         1001 * time.Millisecond,
		time.Second:             time.Second,
		0:                       0,
		math.MaxInt64:           time.Duration(maxMillis) * time.Millisecond,
		math.MinInt64:           -time.Duration(maxMillis) * time.Millisecond,
		time.Millisecond*7 - 10: 7 * time.Millisecond,
	} {
		b, err := EncodeEntry(Entry{Commands: commands([]Op{Issue{Subject: "a", TTL: ttl}})})
		if err != nil {
			t.Fatal(err)
		}
		if e, err := DecodeEntry(b); err != nil || e.Commands[0].Op.(Issue).TTL != want {
			t.Errorf("%v became %v, %v", ttl, e, err)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, e := range map[string]Entry{
		"no commands":          {},
		"no operation":         {Commands: []Command{{}}},
		"a pointer":            {Commands: []Command{{Op: &Delete{}}}},
		"a time before 1970":   {Time: time.Unix(-1, 0), Commands: commands([]Op{Delete{}})},
		"the epoch":            {Time: time.Unix(0, 0), Commands: commands([]Op{Delete{}})},
		"a time past 9999":     {Time: time.UnixMilli(maxTime + 1), Commands: commands([]Op{Delete{}})},
		"no UTF-8":             {Commands: commands([]Op{Delete{Subject: "\xff"}})},
		"an unknown mode":      {Commands: commands([]Op{UpdateSettings{Mode: new(Mode(9))}})},
		"no mode":              {Commands: commands([]Op{Found{}})},
		"a negative count":     {Commands: commands([]Op{UpdateSettings{MaxRetiring: new(-1)}})},
		"a format too high":    {Commands: commands([]Op{PutMember{Member{Format: math.MaxInt32 + 1}}})},
		"parts of millisecond": {Commands: commands([]Op{UpdateSettings{MaxTTL: new(time.Duration(1))}})},
	} {
		if b, err := EncodeEntry(e); err == nil {
			t.Errorf("%s: encoded to %x", name, b)
		}
	}
}

// TestWhatIsEncodedCanBeDecoded: an entry that no one can decode would halt every node.
func TestWhatIsEncodedCanBeDecoded(t *testing.T) {
	text := rapid.SampledFrom([]string{"", "a", "\x00", "\xff", strings.Repeat("x", 300)})
	number := rapid.SampledFrom([]int{0, 1, -1, math.MaxInt32, math.MaxInt32 + 1, math.MaxInt64, math.MinInt64})
	rapid.Check(t, func(t *rapid.T) {
		id := KeyID{rapid.Uint64().Draw(t, "revision"), rapid.Uint64().Draw(t, "random")}
		c := Candidate{rapid.Uint64().Draw(t, "random"), []byte(text.Draw(t, "sealed"))}
		d := time.Duration(rapid.Int64().Draw(t, "duration")) * time.Millisecond
		s := Settings{
			Mode: Mode(rapid.IntRange(0, 3).Draw(t, "mode")), ForgetAfter: d, Issuer: text.Draw(t, "issuer"),
			MaxRetiring: number.Draw(t, "retiring"),
		}
		token := APIToken{
			ID: text.Draw(t, "id"), Name: text.Draw(t, "name"), Roles: []string{text.Draw(t, "role")},
			Hash: []byte(text.Draw(t, "hash")), Expires: time.UnixMilli(rapid.Int64().Draw(t, "expires")),
		}
		ops := []Op{
			Found{text.Draw(t, "cluster"), s, []byte(text.Draw(t, "check")), &token},
			PutAPIToken{token},
			RevokeAPIToken{text.Draw(t, "id")},
			Issue{text.Draw(t, "subject"), time.Duration(rapid.Int64().Draw(t, "ttl")), &c, text.Draw(t, "token")},
			Rotate{text.Draw(t, "subject"), id, c},
			Expire{[]ExpireItem{{text.Draw(t, "subject"), id, &c}}},
			UpdateSettings{Mode: &s.Mode, ForgetAfter: &d, Issuer: &s.Issuer, WantedVoters: &s.MaxRetiring},
			PutMember{Member{ID: text.Draw(t, "id"), Format: number.Draw(t, "format")}},
		}
		e := Entry{
			Time:     time.UnixMilli(rapid.Int64().Draw(t, "time")),
			Commands: commands([]Op{rapid.SampledFrom(ops).Draw(t, "op")}),
		}
		if rapid.Bool().Draw(t, "timeless") {
			e.Time = time.Time{}
		}
		if b, err := EncodeEntry(e); err == nil {
			if _, err := DecodeEntry(b); err != nil {
				t.Fatalf("%+v: %v", e, err)
			}
		}
	})
}

// entryWith gives an entry whose one command is changed by hand.
func entryWith(t *testing.T, change func(*logpb.Entry)) []byte {
	t.Helper()
	m := &logpb.Entry{Format: 1, Commands: []*logpb.Command{
		{Op: &logpb.Command_Delete{Delete: &logpb.Delete{Subject: "ada"}}},
	}}
	change(m)
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeRefuses(t *testing.T) {
	good := entryWith(t, func(*logpb.Entry) {})
	if _, err := DecodeEntry(good); err != nil {
		t.Fatal(err)
	}
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	op := func(c *logpb.Command) []byte {
		return entryWith(t, func(m *logpb.Entry) { m.Commands[0] = c })
	}
	rotate := func(r *logpb.Rotate) []byte { return op(&logpb.Command{Op: &logpb.Command_Rotate{Rotate: r}}) }
	for name, b := range map[string][]byte{
		"nothing":          {},
		"garbage":          []byte("garbage"),
		"half":             good[:len(good)-2],
		"something behind": append(bytes.Clone(good), 0),
		"no format":        entryWith(t, func(m *logpb.Entry) { m.Format = 0 }),
		"no commands":      entryWith(t, func(m *logpb.Entry) { m.Commands = nil }),
		"a negative time":  entryWith(t, func(m *logpb.Entry) { m.TimeMs = -1 }),
		"a time past 9999": entryWith(t, func(m *logpb.Entry) { m.TimeMs = maxTime + 1 }),
		"an unknown field": append(bytes.Clone(good), unknown...),
		"a field twice":    append(protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1), good...),
		"a padded number":  append([]byte{0x08, 0x81, 0x00}, good[2:]...),
		"an unknown field within": entryWith(t, func(m *logpb.Entry) {
			m.Commands[0].GetDelete().ProtoReflect().SetUnknown(unknown)
		}),
		"an unknown operation": op(func() *logpb.Command {
			c := &logpb.Command{}
			c.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 50, protowire.BytesType), nil))
			return c
		}()),
		"no operation":       op(&logpb.Command{}),
		"two operations":     entryWithTwoOps(t),
		"an empty origin":    entryWith(t, func(m *logpb.Entry) { m.Commands[0].Origin = &logpb.Origin{} }),
		"no candidate":       rotate(&logpb.Rotate{Subject: "ada"}),
		"an empty key id":    rotate(&logpb.Rotate{Candidate: &logpb.Candidate{}, Expected: &logpb.KeyID{}}),
		"no settings":        op(&logpb.Command{Op: &logpb.Command_Found{Found: &logpb.Found{}}}),
		"no member":          op(&logpb.Command{Op: &logpb.Command_PutMember{PutMember: &logpb.PutMember{}}}),
		"an unknown mode":    updateWith(op, &logpb.UpdateSettings{Mode: new(logpb.Mode(3))}),
		"a huge duration":    updateWith(op, &logpb.UpdateSettings{MaxTtlMs: new(int64(math.MaxInt64))}),
		"a huge count":       updateWith(op, &logpb.UpdateSettings{MaxRetiring: new(uint32(math.MaxUint32))}),
		"text without UTF-8": bytes.Replace(good, []byte("ada"), []byte("a\xffa"), 1),
	} {
		if e, err := DecodeEntry(b); err == nil {
			t.Errorf("%s: decoded to %+v", name, e)
		}
	}
}

func updateWith(op func(*logpb.Command) []byte, m *logpb.UpdateSettings) []byte {
	return op(&logpb.Command{Op: &logpb.Command_UpdateSettings{UpdateSettings: m}})
}

func entryWithTwoOps(t *testing.T) []byte {
	t.Helper()
	two, err := proto.Marshal(&logpb.Command{Op: &logpb.Command_RemoveMember{RemoveMember: &logpb.RemoveMember{Id: "n"}}})
	if err != nil {
		t.Fatal(err)
	}
	return entryWith(t, func(m *logpb.Entry) { m.Commands[0].ProtoReflect().SetUnknown(two) })
}

func TestDecodeTellsANewerFormat(t *testing.T) {
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	b := entryWith(t, func(m *logpb.Entry) { m.Format = Format + 1 })
	for _, b := range [][]byte{b, append(b, unknown...)} {
		if _, err := DecodeEntry(b); !errors.Is(err, ErrNewerFormat) {
			t.Errorf("got %v", err)
		}
	}
}

func TestEntryFormatsAreReadable(t *testing.T) {
	for _, op := range everyOp() {
		if f := EntryFormat(Command{Op: op}); f < 1 || f > Format {
			t.Errorf("%T needs format %d", op, f)
		}
	}
}

func TestKeyIDText(t *testing.T) {
	for _, id := range []KeyID{{1, 0}, {0, 1}, {1, 2}, {math.MaxUint64, math.MaxUint64}} {
		s := id.String()
		if len(s) != KeyIDLen {
			t.Errorf("%v is written %q", id, s)
		}
		if got, err := ParseKeyID(s); err != nil || got != id {
			t.Errorf("%q is read as %v, %v", s, got, err)
		}
		for i := range s {
			for _, c := range "A_-=+/ \n" {
				if other := s[:i] + string(c) + s[i+1:]; other != s {
					if got, err := ParseKeyID(other); err == nil && got == id {
						t.Errorf("%q is another spelling of %q", other, s)
					}
				}
			}
		}
	}
	for _, s := range []string{"", strings.Repeat("A", KeyIDLen), strings.Repeat("A", KeyIDLen-1), strings.Repeat("B", 23)} {
		if id, err := ParseKeyID(s); err == nil {
			t.Errorf("%q is read as %v", s, id)
		}
	}
	if (KeyID{}).String() != "" {
		t.Error("the zero id has a text")
	}
}

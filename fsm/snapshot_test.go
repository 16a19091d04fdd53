package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/keyquorum/keyquorum/fsm/internal/logpb"
)

// TestUserRecordsAreProtobuf: the hand-written records are what log.proto says they are.
func TestUserRecordsAreProtobuf(t *testing.T) {
	r := newRig(t, nil)
	r.issue(at(0), "ada", 60)
	r.rotate(at(1), "ada")
	r.issue(at(1), "ada", 60)
	r.rotate(at(2), "ada")
	r.issue(at(0), strings.Repeat("ü", 128), 60)
	for _, u := range r.View().Users("", 10) {
		b := appendUser(nil, u)
		var m logpb.User
		if err := unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		if m.Subject != u.Subject || m.IdleFromMs != u.IdleFrom || len(m.Retiring) != len(u.Retiring) ||
			m.Active.Id.Random != u.Active.ID.Random || m.Active.CreatedMs != u.Active.Created {
			t.Fatalf("%v is read as %v", u, &m)
		}
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(&m)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x\nwould be\n%x", b, again)
		}
	}
}

func someState(t tb) *rig {
	r := newRig(t, nil)
	r.ok(at(0), PutMember{Member{ID: "n1", Name: "one", RPCAddress: "h:1", Format: 1}})
	r.ok(at(0), PutMember{Member{ID: "n2", Format: 1, Replica: true}})
	for i := range 5 {
		r.issue(at(0), fmt.Sprint("user-", i), 60)
	}
	r.rotate(at(1), "user-1")
	r.issue(at(1.5), "user-1", 30)
	return r
}

func TestSnapshotBeforeTheFounding(t *testing.T) {
	f := restored(t, snapshotOf(t, New(Config{})))
	if f.View().Founded() || f.View().Position() != 0 {
		t.Fatal("something came of nothing")
	}
}

// TestDamagedSnapshotIsRefused: every byte counts.
func TestDamagedSnapshotIsRefused(t *testing.T) {
	good := snapshotOf(t, someState(t).FSM)
	for i := range good {
		for _, flip := range []byte{1, 0x80} {
			bad := bytes.Clone(good)
			bad[i] ^= flip
			if _, err := ReadSnapshot(bytes.NewReader(bad)); err == nil {
				t.Fatalf("with byte %d changed by %#x it is taken", i, flip)
			}
		}
		if _, err := ReadSnapshot(bytes.NewReader(good[:i])); !errors.Is(err, errCutOff) {
			t.Fatalf("cut off after %d bytes: %v", i, err)
		}
	}
	if _, err := ReadSnapshot(bytes.NewReader(append(bytes.Clone(good), 0))); err == nil {
		t.Fatal("something behind its end is not seen")
	}
}

func TestSnapshotOfANewerFormat(t *testing.T) {
	b := snapshotOf(t, New(Config{}))
	binary.BigEndian.PutUint32(b[len(magic):], Format+1)
	if _, err := ReadSnapshot(bytes.NewReader(b)); !errors.Is(err, ErrNewerFormat) {
		t.Fatal(err)
	}
}

// frame makes a snapshot of records, with a good checksum.
func frame(records ...[]byte) []byte {
	var b bytes.Buffer
	w := newRecordWriter(&b)
	for _, r := range records {
		if err := w.record(r); err != nil {
			panic(err)
		}
	}
	if err := w.finish(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func marshal(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// TestImpossibleSnapshotsAreRefused has snapshots that are whole, with states that no log leads to.
func TestImpossibleSnapshotsAreRefused(t *testing.T) {
	const now = 1_800_000_000
	head := func(change func(*logpb.SnapshotHeader)) []byte {
		settings := DefaultSettings()
		s, _ := settings.proto()
		m := &logpb.SnapshotHeader{
			Format: 1, Position: 9, Revision: 5, TimeMs: now * 1000, ClusterId: "c", Settings: s,
			KeyringCheck: []byte("k"), Members: 0, Users: 1, AuditSequence: 4, AuditHash: make([]byte, 32),
		}
		change(m)
		return marshal(m)
	}
	key := func(revision uint64, exp int64) Key {
		return Key{ID: KeyID{revision, 1}, Sealed: []byte("s"), Created: now * 1000, Earliest: exp, Latest: exp}
	}
	user := func(change func(*User)) []byte {
		u := User{Subject: "ada", Active: key(3, now+9), Retiring: []Key{key(1, now+5), key(2, now+4)}, IdleFrom: (now + 9) * 1000}
		change(&u)
		return appendUser(nil, &u)
	}
	member := func(id string) []byte { return marshal(&logpb.Member{Id: id, Format: 1}) }
	same, sameUser := func(*logpb.SnapshotHeader) {}, func(*User) {}
	two := func(m *logpb.SnapshotHeader) { m.Users = 2 }
	members := func(m *logpb.SnapshotHeader) { m.Members, m.Users = 2, 0 }
	wire := func(from, to string) []byte {
		return []byte(strings.Replace(string(user(sameUser)), from, to, 1))
	}
	if _, err := ReadSnapshot(bytes.NewReader(frame(head(same), user(sameUser)))); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":               frame(),
		"no header":             frame(user(sameUser)),
		"no format":             frame(head(func(m *logpb.SnapshotHeader) { m.Format = 0 }), user(sameUser)),
		"a newer header":        frame(head(func(m *logpb.SnapshotHeader) { m.Format = 2 }), user(sameUser)),
		"a time out of range":   frame(head(func(m *logpb.SnapshotHeader) { m.TimeMs = maxTime + 1 }), user(sameUser)),
		"no cluster":            frame(head(func(m *logpb.SnapshotHeader) { m.ClusterId = "" }), user(sameUser)),
		"no settings":           frame(head(func(m *logpb.SnapshotHeader) { m.Settings = nil }), user(sameUser)),
		"bad settings":          frame(head(func(m *logpb.SnapshotHeader) { m.Settings.MaxRetiring = 0 }), user(sameUser)),
		"no audit head":         frame(head(func(m *logpb.SnapshotHeader) { m.AuditSequence, m.AuditHash = 0, nil }), user(sameUser)),
		"half an audit hash":    frame(head(func(m *logpb.SnapshotHeader) { m.AuditHash = m.AuditHash[:16] }), user(sameUser)),
		"a record of nobody's":  frame(marshal(&logpb.SnapshotHeader{Format: 1, AuditSequence: 1, AuditHash: make([]byte, 32)})),
		"no keyring check":      frame(head(func(m *logpb.SnapshotHeader) { m.KeyringCheck = nil }), user(sameUser)),
		"fewer users":           frame(head(two), user(sameUser)),
		"more users":            frame(head(same), user(sameUser), user(func(u *User) { u.Subject = "bob" })),
		"a user twice":          frame(head(two), user(sameUser), user(sameUser)),
		"users out of order":    frame(head(two), user(func(u *User) { u.Subject = "bob" }), user(sameUser)),
		"members out of order":  frame(head(members), member("b"), member("a")),
		"a member twice":        frame(head(members), member("a"), member("a")),
		"a nameless member":     frame(head(members), member(""), member("a")),
		"a removed member":      frame(head(func(m *logpb.SnapshotHeader) { members(m); m.Removed = []string{"b"} }), member("a"), member("b")),
		"removals out of order": frame(head(func(m *logpb.SnapshotHeader) { m.Removed = []string{"b", "a"} }), user(sameUser)),
		"a nameless removal":    frame(head(func(m *logpb.SnapshotHeader) { m.Removed = []string{""} }), user(sameUser)),
		"removals of nobody's":  frame(marshal(&logpb.SnapshotHeader{Format: 1, Removed: []string{"a"}})),
		"a huge user count":     frame(head(func(m *logpb.SnapshotHeader) { m.Users = 1 << 60 }), user(sameUser)),
		"a bad subject":         frame(head(same), user(func(u *User) { u.Subject = "a\nb" })),
		"no subject":            frame(head(same), user(func(u *User) { u.Subject = "" })),
		"a key without bits":    frame(head(same), user(func(u *User) { u.Active.ID.Random = 0 })),
		"a key without seal":    frame(head(same), user(func(u *User) { u.Active.Sealed = nil })),
		"a key too new":         frame(head(same), user(func(u *User) { u.Active.ID.Revision = 6 })),
		"a key of revision 0":   frame(head(same), user(func(u *User) { u.Retiring[0].ID.Revision = 0 })),
		"a key from the future": frame(head(same), user(func(u *User) { u.Active.Created++ })),
		"expiries crossed":      frame(head(same), user(func(u *User) { u.Active.Earliest++ })),
		"half an expiry":        frame(head(same), user(func(u *User) { u.Active.Earliest = 0 })),
		"a negative expiry":     frame(head(same), user(func(u *User) { u.Active.Earliest = -1 })),
		"retiring for nothing":  frame(head(same), user(func(u *User) { u.Retiring[1] = key(2, 0) })),
		"retiring out of order": frame(head(same), user(func(u *User) { u.Retiring[0].ID.Revision = 2 })),
		"active not newest":     frame(head(same), user(func(u *User) { u.Active.ID.Revision = 2 })),
		"idle too early":        frame(head(same), user(func(u *User) { u.IdleFrom-- })),
		"idle never":            frame(head(same), user(func(u *User) { u.IdleFrom = 1 << 62 })),
		"an unknown field":      frame(head(same), append(user(sameUser), 0x50, 1)),
		"a field twice":         frame(head(same), append(user(sameUser), appendInt(nil, 4, 5)...)),
		"a zero written out":    frame(head(same), append(user(func(u *User) { u.IdleFrom = 0 }), 0x20, 0)),
		"a padded length":       frame(head(same), wire("\x0a\x03ada", "\x0a\x83\x00ada")),
		"a padded number":       frame(head(same), paddedIdle(user)),
		"unknown header field":  frame(append(head(same), 0x78, 1), user(sameUser)),
	} {
		if _, err := ReadSnapshot(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

// paddedIdle writes the last number of a user in one byte more than it needs.
func paddedIdle(user func(func(*User)) []byte) []byte {
	b := user(func(u *User) { u.Active.Earliest, u.Active.Latest, u.Retiring, u.IdleFrom = 0, 0, nil, 5 })
	b[len(b)-1] |= 0x80
	return append(b, 0)
}

// TestPaddedRecordLength: a length in another spelling fails, though its value is right.
func TestPaddedRecordLength(t *testing.T) {
	b := snapshotOf(t, New(Config{}))
	n, size := protowire.ConsumeVarint(b[12:])
	if size != 1 {
		t.Fatalf("a header of %d bytes", n)
	}
	body := append(append(bytes.Clone(b[:12]), byte(n)|0x80, 0), b[13:len(b)-sha256.Size]...)
	sum := sha256.Sum256(body)
	if _, err := ReadSnapshot(bytes.NewReader(append(body, sum[:]...))); err == nil {
		t.Fatal("it is taken")
	}
}

func TestHugeRecordIsNotAllocated(t *testing.T) {
	b := append([]byte(magic), 0, 0, 0, 1)
	for _, n := range []uint64{maxRecord, maxRecord + 1, 1 << 63} {
		from := binary.AppendUvarint(bytes.Clone(b), n)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := ReadSnapshot(bytes.NewReader(from)); err == nil {
			t.Fatal("it is taken")
		}
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		if allocated > 1<<20 {
			t.Errorf("a claim of %d bytes allocates %d", n, allocated)
		}
	}
}

type failingSink struct{ sink }

var errDisk = errors.New("disk full")

func (s *failingSink) Write([]byte) (int, error) { return 0, errDisk }

func TestFailedPersistCancels(t *testing.T) {
	snap, err := someState(t).Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var s failingSink
	if err := snap.Persist(&s); !errors.Is(err, errDisk) || !s.cancelled || s.closed {
		t.Fatalf("%v, cancelled %v, closed %v", err, s.cancelled, s.closed)
	}
}

// TestSnapshotIsOfOneMoment: entries go on being applied while older snapshots are written and views are read.
func TestSnapshotIsOfOneMoment(t *testing.T) {
	r := newRig(t, nil)
	for i := range 500 {
		r.issue(at(0), fmt.Sprint("user-", i), 60)
	}
	var wg sync.WaitGroup
	for round := range 20 {
		snap, err := r.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		view := r.View()
		want := snapshotOf(t, r.FSM)
		wg.Go(func() {
			var s sink
			if err := snap.Persist(&s); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(s.Bytes(), want) {
				t.Errorf("snapshot %d is not of its moment", round)
			}
		})
		wg.Go(func() {
			for _, u := range view.Users("", 1000) {
				if k, ok := view.Key(u.Subject, u.Active.ID); !ok || k.ID != u.Active.ID {
					t.Errorf("view %d changed", round)
				}
			}
			view.Due(at(1000), 1000)
		})
		wg.Go(func() { r.View().Key("user-7", KeyID{1, 1}) })
		for i := range 100 {
			subject := fmt.Sprint("user-", (round*37+i*7)%600)
			switch i % 4 {
			case 0:
				r.issue(at(float64(round)), subject, float64(10+i))
			case 1:
				r.apply(at(float64(round)), Rotate{Subject: subject, Candidate: *r.cand()})
			case 2:
				r.apply(at(float64(round)), Delete{Subject: subject})
			default:
				r.expire(at(float64(round)))
			}
		}
	}
	wg.Wait()
}

package fsm

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/keyquorum/keyquorum/fsm/internal/logpb"
	"github.com/keyquorum/keyquorum/internal/audit"
)

// kept is a sink that keeps everything.
type kept struct {
	entries []audit.Entry
	flushed audit.Head
	refuse  error
}

func (k *kept) Append(before audit.Head, entries []audit.Entry) {
	if before != k.head() {
		panic(fmt.Sprintf("what came follows %v, and what there is ends at %v", before, k.head()))
	}
	k.entries = append(k.entries, entries...)
}

func (k *kept) Restored(head audit.Head) {
	if head != k.head() {
		panic("the snapshot is of another state")
	}
}

func (k *kept) Flush(head audit.Head) error {
	k.flushed = head
	return k.refuse
}

func (k *kept) head() audit.Head {
	if len(k.entries) == 0 {
		return audit.Head{}
	}
	return k.entries[len(k.entries)-1].Head()
}

// checkAudit: the chains are equal and whole, end at the states' head, and tell which keys there are.
func (p *pair) checkAudit(t *rapid.T, v *View) {
	if !reflect.DeepEqual(p.kept[0].entries, p.kept[1].entries) {
		t.Fatal("the two have different audit records")
	}
	head, err := audit.Head{}.Follow(p.kept[0].entries)
	if err != nil || head != v.AuditHead() || head != p.moved.View().AuditHead() {
		t.Fatalf("the records end at %v (%v), the states at %v and %v", head, err, v.AuditHead(), p.moved.View().AuditHead())
	}
	told := keysTold(p.kept[0].entries)
	for _, u := range v.Users("", 1000) {
		for _, k := range append([]Key{u.Active}, u.Retiring...) {
			if !told[u.Subject+" "+k.ID.String()] {
				t.Fatalf("no record tells of %s of %s", k.ID, u.Subject)
			}
		}
	}
	if len(told) != v.KeyCount() {
		t.Fatalf("the records tell of %d keys, there are %d", len(told), v.KeyCount())
	}
}

// keysTold gives the keys that there are by the records.
func keysTold(entries []audit.Entry) map[string]bool {
	keys := make(map[string]bool)
	for _, e := range entries {
		switch e.Kind { //nolint:exhaustive // the others are not about keys
		case audit.KeyMade, audit.KeyRotated:
			keys[e.Subject+" "+e.KeyID] = true
		case audit.KeyDeleted:
			delete(keys, e.Subject+" "+e.KeyID)
		}
	}
	return keys
}

// audited is a rig whose records are kept.
func audited(t *testing.T) (*rig, *kept) {
	r, k := unfoundedRig(t)
	r.ok(at(0), Found{ClusterID: "c1", Settings: DefaultSettings(), KeyringCheck: []byte("check")})
	return r, k
}

func unfoundedRig(t *testing.T) (*rig, *kept) {
	k := new(kept)
	return &rig{FSM: New(Config{Audit: k}), t: t}, k
}

// told gives what records from the given one on say, in short.
func (k *kept) told(from int) (all []string) {
	for _, e := range k.entries[from:] {
		s := fmt.Sprint(e.Kind, " ", e.Subject, " ", e.Reason)
		for _, id := range []string{e.KeyID, e.PreviousKeyID} {
			if parsed, err := ParseKeyID(id); err == nil {
				s += fmt.Sprint(" ", parsed.Revision)
			}
		}
		for _, c := range e.Changes {
			s += fmt.Sprintf(" %s:%s>%s", c.Name, c.From, c.To)
		}
		all = append(all, s+e.TokenID)
	}
	return all
}

// allKinds reads the kinds of records where they are declared, so that none can be left out.
func allKinds(t *testing.T) (kinds []audit.Kind) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "internal", "audit", "record.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for n := range ast.Preorder(file) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			continue
		}
		if of, ok := spec.Type.(*ast.Ident); ok && of.Name == "Kind" {
			kind, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, audit.Kind(kind))
		}
	}
	return kinds
}

// checkOrigins: the records say who asked, from where and at which node, and have the place in the log and the time of one of
// the entries between the two states.
func checkOrigins(t *testing.T, entries []audit.Entry, before, after *View) {
	t.Helper()
	for _, e := range entries {
		if e.Actor != "tests" || e.Source != "::1" || e.Node != "n1" {
			t.Errorf("by whom: %+v", e)
		}
		if e.Position <= before.Position() || e.Position > after.Position() || e.Time < before.Time().UnixMilli() || e.Time > after.Time().UnixMilli() {
			t.Errorf("when: %+v", e)
		}
	}
}

// TestEachChangeIsOnRecord, of each kind that there is.
func TestEachChangeIsOnRecord(t *testing.T) {
	r, k := unfoundedRig(t)
	first := apiToken("first")
	member := Member{ID: "n1", Name: "one", Format: 1}
	other := member
	other.RPCAddress = "h:2"
	for _, step := range []struct {
		what string
		do   func()
		want []string
	}{
		{"the founding", func() {
			r.ok(at(0), Found{ClusterID: "c1", Settings: DefaultSettings(), KeyringCheck: []byte("check"), Operator: &first})
		}, []string{
			"CLUSTER_FOUNDED c1  mode:>overlap forgetAfter:>0s issuer:>keyquorum minTtl:>1s defaultTtl:>900s maxTtl:>86400s maxRetiringKeys:>64 wantedVoters:>5 maxStaleness:>5s auditIssued:>true",
			"API_TOKEN_MADE first  name:>for tests roles:>issuer,verifier expires:>2027-01-15T08:01:00Z",
		}},
		{"the first token", func() { r.ok(at(1), Issue{Subject: "ada", TTL: time.Minute, Candidate: r.cand(), TokenID: " jti"}) }, []string{"KEY_MADE ada  1", "TOKEN_ISSUED ada  1 jti"}},
		{"a rotation", func() { r.rotate(at(2), "ada") }, []string{"KEY_ROTATED ada ON_DEMAND 2 1"}},
		{"one of a key without tokens", func() { r.rotate(at(2), "ada") }, []string{"KEY_ROTATED ada ON_DEMAND 3 2", "KEY_DELETED ada ON_DEMAND 2"}},
		{"the retiring key's end", func() { r.expire(at(62)) }, []string{"KEY_DELETED ada EXPIRY 1"}},
		{"a token more", func() { r.issue(at(63), "ada", 10) }, []string{"TOKEN_ISSUED ada  3"}},
		{"its expiry", func() { r.expire(at(73)) }, []string{"KEY_ROTATED ada EXPIRY 5 3", "KEY_DELETED ada EXPIRY 3"}},
		{"a revocation", func() {
			r.issue(at(74), "ada", 10)
			r.rotate(at(74), "ada")
			r.ok(at(74), Revoke{Subject: "ada", Candidate: *r.cand()})
		}, []string{
			"TOKEN_ISSUED ada  5", "KEY_ROTATED ada ON_DEMAND 6 5",
			"KEY_ROTATED ada REVOKED 7 6", "KEY_DELETED ada REVOKED 5", "KEY_DELETED ada REVOKED 6",
		}},
		{"a deletion", func() { r.ok(at(75), Delete{Subject: "ada"}) }, []string{"KEY_DELETED ada DELETED 7", "USER_DELETED ada "}},
		{"settings", func() {
			r.ok(at(76), UpdateSettings{Mode: new(Strict), ForgetAfter: new(time.Minute), AuditIssued: new(false)})
		}, []string{"SETTINGS_CHANGED   mode:overlap>strict forgetAfter:0s>60s auditIssued:true>false"}},
		{"the same settings", func() { r.ok(at(76), UpdateSettings{Mode: new(Strict)}) }, nil},
		{"an unrecorded token", func() { r.issue(at(77), "bob", 10) }, []string{"KEY_MADE bob  9"}},
		{"a forgotten user", func() { r.expire(at(87)); r.expire(at(150)) }, []string{"KEY_ROTATED bob EXPIRY 10 9", "KEY_DELETED bob EXPIRY 9", "KEY_DELETED bob IDLE 10", "USER_FORGOTTEN bob "}},
		{"a member", func() { r.ok(at(160), PutMember{member}) }, []string{"MEMBER_ADDED n1  name:>one format:>1"}},
		{"the same member", func() { r.ok(at(160), PutMember{member}) }, nil},
		{"a member that moved", func() { r.ok(at(160), PutMember{other}) }, []string{"MEMBER_CHANGED n1  rpcAddress:>h:2"}},
		{"a removal", func() { r.ok(at(160), RemoveMember{ID: "n1"}) }, []string{"MEMBER_REMOVED n1 "}},
		{"an API token", func() { r.ok(at(160), PutAPIToken{apiToken("t1")}) }, []string{"API_TOKEN_MADE t1  name:>for tests roles:>issuer,verifier expires:>2027-01-15T08:01:00Z"}},
		{"its end", func() { r.ok(at(160), RevokeAPIToken{ID: "t1"}) }, []string{"API_TOKEN_REVOKED t1 "}},
		{"a master key", func() { r.ok(at(160), UseMasterKey{ID: 7, KeyringCheck: sealedUnder(7, 1)}) }, []string{"MASTER_KEY_USED 7 "}},
		{"a key sealed anew", func() {
			eve := r.issue(at(160), "eve", 60).Key.ID
			r.ok(at(160), Rewrap{Items: []RewrapItem{{Subject: "eve", Key: eve, Sealed: sealedUnder(7, eve.Random)}}})
		}, []string{"KEY_MADE eve  12", "KEY_REWRAPPED eve  12"}},
		{"a master key's end", func() { r.ok(at(160), RetireMasterKey{ID: 6}) }, []string{"MASTER_KEY_RETIRED 6 "}},
		{"a refusal", func() { r.refused(at(160), Delete{Subject: "nobody"}, CodeUnknownSubject) }, nil},
		{"a tick", func() { r.ok(at(161), Tick{}) }, nil},
	} {
		from, before := len(k.entries), r.View()
		step.do()
		checkOrigins(t, k.entries[from:], before, r.View())
		if got := k.told(from); !slices.Equal(got, step.want) {
			t.Errorf("%s is told as\n%q, want\n%q", step.what, got, step.want)
		}
	}
	if head, err := (audit.Head{}).Follow(k.entries); err != nil || head != r.View().AuditHead() {
		t.Fatalf("the chain ends at %v (%v), the state says %v", head, err, r.View().AuditHead())
	}
	if e := k.entries[2]; e.Time != at(1).UnixMilli() || e.Position != 2 {
		t.Errorf("when: %+v", e)
	}
	kinds := allKinds(t)
	for _, kind := range kinds {
		if !slices.ContainsFunc(k.entries, func(e audit.Entry) bool { return e.Kind == kind }) {
			t.Errorf("no change left a record of the kind %s", kind)
		}
	}
	if len(kinds) < 16 {
		t.Errorf("only %d kinds were found", len(kinds))
	}
}

// TestAuditRecordsAreProtobuf: the encoding is what log.proto says it is, and has no key material.
func TestAuditRecordsAreProtobuf(t *testing.T) {
	r, k := audited(t)
	r.ok(at(0), PutMember{Member{ID: "n1", Name: strings.Repeat("ü", 100), Format: 1}})
	r.ok(at(1), Issue{Subject: "ada", Candidate: &Candidate{Random: 1, Sealed: []byte("material")}, TokenID: "jti"})
	r.rotate(at(2), "ada")
	for _, e := range k.entries {
		b := e.Encode()
		var m logpb.AuditRecord
		if err := unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(&m)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x\nwould be\n%x (%v)", b, again, err)
		}
		if m.Sequence != e.Sequence || m.TimeMs != e.Time || m.Position != e.Position || m.Kind != string(e.Kind) ||
			m.Subject != e.Subject || m.KeyId != e.KeyID || m.PreviousKeyId != e.PreviousKeyID || m.Reason != string(e.Reason) ||
			m.Actor != e.Actor || m.Source != e.Source || m.Node != e.Node || m.TokenId != e.TokenID || m.Expires != e.Expires || len(m.Changes) != len(e.Changes) {
			t.Fatalf("%+v is read as %v", e, &m)
		}
		if bytes.Contains(b, []byte("material")) {
			t.Fatal("a record has key material")
		}
	}
}

// TestNoSnapshotWithoutItsRecords: the log must not be dropped for a snapshot whose records are not kept.
func TestNoSnapshotWithoutItsRecords(t *testing.T) {
	r, k := audited(t)
	r.issue(at(1), "ada", 60)
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	k.refuse = fmt.Errorf("no room")
	var s sink
	if err := snap.Persist(&s); err == nil || !s.cancelled || s.Len() != 0 {
		t.Fatalf("it was persisted: %v", err)
	}
	k.refuse = nil
	if err := snap.Persist(new(sink)); err != nil || k.flushed != r.View().AuditHead() {
		t.Fatalf("flushed to %v: %v", k.flushed, err)
	}
}

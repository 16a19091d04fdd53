package fsm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/internal/audit"
)

func apiToken(id string) APIToken {
	return APIToken{ID: id, Name: "for tests", Roles: []string{"issuer", "verifier"}, Hash: make([]byte, hashLen), Expires: at(60)}
}

func TestAPITokens(t *testing.T) {
	r := newRig(t, nil)
	put := func(id string) PutAPIToken { return PutAPIToken{apiToken(id)} }
	r.ok(at(5), put("b"))
	before := r.View()
	r.ok(at(6), put("a"))
	r.refused(at(6), put("a"), CodeAPITokenExists)
	r.ok(at(7), RevokeAPIToken{ID: "a"})
	r.refused(at(7), RevokeAPIToken{ID: "a"}, CodeUnknownAPIToken)
	if got := before.APITokens(); len(got) != 1 {
		t.Errorf("a view changed: %v", got)
	}
	got, ok := r.View().APIToken("b")
	if !ok || got.Creator != "tests" || !got.Created.Equal(at(5)) || !got.Expires.Equal(at(60)) || got.Name != "for tests" ||
		!slices.Equal(got.Roles, []string{"issuer", "verifier"}) {
		t.Errorf("got %+v, %v", got, ok)
	}
	if _, ok := r.View().APIToken("a"); ok {
		t.Error("a revoked token is still there")
	}
	if again, _ := restored(t, snapshotOf(t, r.FSM)).View().APIToken("b"); again.Creator != got.Creator || !again.Created.Equal(got.Created) || !bytes.Equal(again.Hash, got.Hash) {
		t.Errorf("after a snapshot: %+v", again)
	}
}

// An API token lets its holder in, so who made it and who ended it is on record; what would let somebody in is not.
func TestAPITokensAreOnRecord(t *testing.T) {
	r, k := audited(t)
	token := apiToken("a")
	token.Hash = bytes.Repeat([]byte{0xa5}, hashLen)
	r.ok(at(1), PutAPIToken{token})
	r.refused(at(2), PutAPIToken{token}, CodeAPITokenExists)
	r.ok(at(3), RevokeAPIToken{ID: "a"})
	r.refused(at(4), RevokeAPIToken{ID: "a"}, CodeUnknownAPIToken)
	records := k.entries[1:] // after the founding's
	if len(records) != 2 || records[0].Kind != audit.APITokenMade || records[1].Kind != audit.APITokenRevoked {
		t.Fatalf("on record: %+v", records)
	}
	for i, e := range records {
		if e.Subject != "a" || e.Actor != "tests" || e.Source != "::1" || e.Node != "n1" || e.Time != at(float64(1+2*i)).UnixMilli() {
			t.Errorf("on record: %+v", e)
		}
		if bytes.Contains(e.Encode(), token.Hash) {
			t.Errorf("the record %d has the token's hash", e.Sequence)
		}
	}
}

func TestTheFirstOperatorsTokenComesWithTheCluster(t *testing.T) {
	r := &rig{FSM: New(Config{}), t: t}
	token := apiToken("first")
	r.ok(at(1), Found{ClusterID: "c1", Settings: DefaultSettings(), KeyringCheck: []byte("x"), Operator: &token})
	if _, ok := r.View().APIToken("first"); !ok {
		t.Error("it is not there")
	}
}

func TestAPITokensHaveABound(t *testing.T) {
	r := newRig(t, nil)
	for i := range MaxAPITokens {
		r.ok(at(1), PutAPIToken{apiToken(fmt.Sprintf("%04d", i))})
	}
	r.refused(at(1), PutAPIToken{apiToken("more")}, CodeTooManyAPITokens)
	r.ok(at(1), RevokeAPIToken{ID: "0007"})
	r.ok(at(1), PutAPIToken{apiToken("more")})
}

func TestWhatNoAPITokenCanBe(t *testing.T) {
	r := newRig(t, nil)
	for field, spoil := range map[string]func(*APIToken){
		"id":    func(t *APIToken) { t.ID = "" },
		"name":  func(t *APIToken) { t.Name = strings.Repeat("x", maxText+1) },
		"hash":  func(t *APIToken) { t.Hash = t.Hash[1:] },
		"roles": func(t *APIToken) { t.Roles = nil },
	} {
		token := apiToken("a")
		spoil(&token)
		if refusal := r.refused(at(0), PutAPIToken{token}, CodeInvalid); refusal.Field != field {
			t.Errorf("%s: field %q", field, refusal.Field)
		}
	}
	for _, roles := range [][]string{{""}, {"b", "a"}, {"a", "a"}, {strings.Repeat("x", maxRole+1)}, strings.Split("a b c d e f g h i", " ")} {
		token := apiToken("a")
		token.Roles = roles
		r.refused(at(0), PutAPIToken{token}, CodeInvalid)
	}
}

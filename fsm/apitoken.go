package fsm

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/keyquorum/keyquorum/fsm/internal/logpb"
	"github.com/keyquorum/keyquorum/internal/audit"
)

// MaxAPITokens is the most API tokens that a cluster has at a time.
const MaxAPITokens = 1024

// What an API token may carry.
const (
	hashLen  = 32
	maxRoles = 8
	maxRole  = 32
)

// APIToken is what the cluster keeps of a token by which a caller is known. The token itself it never has.
type APIToken struct {
	ID string
	// Name says to people what it is for; empty for nothing.
	Name string
	// Roles are what it allows, in order, each once. What they mean is not for the state to know.
	Roles []string
	// Hash of the whole token.
	Hash []byte
	// Expires is when it ends, in whole milliseconds; zero for never.
	Expires time.Time
	// Created is when it was made, as far as the log's time was known.
	Created time.Time
	// Creator is the actor who made it.
	Creator string
}

// PutAPIToken makes a token known. Its Created and Creator come from the entry.
type PutAPIToken struct{ Token APIToken }

// RevokeAPIToken ends a token.
type RevokeAPIToken struct{ ID string }

func (PutAPIToken) op()    {}
func (RevokeAPIToken) op() {}

// APIToken gives what is kept of the token with the id.
func (v *View) APIToken(id string) (APIToken, bool) {
	i, ok := findAPIToken(v.apiTokens, id)
	if !ok {
		return APIToken{}, false
	}
	return v.apiTokens[i], true
}

// APITokens gives all of them, by ID.
func (v *View) APITokens() []APIToken { return slices.Clone(v.apiTokens) }

func findAPIToken(tokens []APIToken, id string) (int, bool) {
	return slices.BinarySearchFunc(tokens, id, func(t APIToken, id string) int { return cmp.Compare(t.ID, id) })
}

func (d *draft) putAPIToken(t APIToken, by Origin) *Refusal {
	i, found := findAPIToken(d.apiTokens, t.ID)
	switch {
	case found:
		return &Refusal{Code: CodeAPITokenExists, Field: "id", Message: "there is an API token with this id already"}
	case len(d.apiTokens) >= MaxAPITokens:
		return &Refusal{Code: CodeTooManyAPITokens, Message: "the cluster has as many API tokens as it can have: revoke those that nobody needs"}
	}
	t.Created, t.Creator = millis(d.now), by.Actor
	d.apiTokens = slices.Insert(slices.Clone(d.apiTokens), i, t)
	d.audit(audit.Record{Kind: audit.APITokenMade, Subject: t.ID, Changes: differing(nil, t.values())})
	return nil
}

func (d *draft) revokeAPIToken(id string) *Refusal {
	i, found := findAPIToken(d.apiTokens, id)
	if !found {
		return &Refusal{Code: CodeUnknownAPIToken, Field: "id", Message: "there is no API token with this id"}
	}
	d.apiTokens = slices.Delete(slices.Clone(d.apiTokens), i, i+1)
	d.audit(audit.Record{Kind: audit.APITokenRevoked, Subject: id})
	return nil
}

// values are what the record says of a token.
func (t *APIToken) values() []audit.Change {
	expires := ""
	if !t.Expires.IsZero() {
		expires = t.Expires.UTC().Format(time.RFC3339)
	}
	return []audit.Change{{Name: "name", To: t.Name}, {Name: "roles", To: strings.Join(t.Roles, ",")}, {Name: "expires", To: expires}}
}

// check judges what a token carries; what else is wrong with it depends on the state.
func (t *APIToken) check() *Refusal {
	switch {
	case len(t.Hash) != hashLen:
		return invalid("hash", "must have %d bytes", hashLen)
	case len(t.Roles) == 0 || len(t.Roles) > maxRoles:
		return invalid("roles", "must be 1 to %d", maxRoles)
	case !t.Expires.IsZero() && (t.Expires.UnixMilli() <= 0 || t.Expires.UnixMilli() > maxTime):
		return invalid("expires", "is out of range")
	case t.Expires.Nanosecond()%int(time.Millisecond) != 0:
		return invalid("expires", "must be in whole milliseconds")
	}
	for i, role := range t.Roles {
		if role == "" || len(role) > maxRole {
			return invalid("roles", "must have 1 to %d bytes each", maxRole)
		}
		if i > 0 && role <= t.Roles[i-1] {
			return invalid("roles", "must be in order, each once")
		}
		if r := checkText("roles", role, true); r != nil {
			return r
		}
	}
	return cmp.Or(checkText("id", t.ID, true), checkText("name", t.Name, false), checkText("creator", t.Creator, false))
}

func (t *APIToken) proto() *logpb.APIToken {
	if t == nil {
		return nil
	}
	return &logpb.APIToken{
		Id: t.ID, Name: t.Name, Roles: t.Roles, Hash: t.Hash,
		ExpiresMs: unixMilli(t.Expires), CreatedMs: unixMilli(t.Created), Creator: t.Creator,
	}
}

func (d *decoder) apiToken(m *logpb.APIToken) APIToken {
	if m == nil {
		d.fail("the API token is missing")
		return APIToken{}
	}
	for _, ms := range []int64{m.ExpiresMs, m.CreatedMs} {
		if ms < 0 || ms > maxTime {
			d.fail("an API token's time, %d ms, is out of range", ms)
		}
	}
	return APIToken{
		ID: m.Id, Name: m.Name, Roles: m.Roles, Hash: m.Hash,
		Expires: millis(m.ExpiresMs), Created: millis(m.CreatedMs), Creator: m.Creator,
	}
}

// setAPITokens takes those of a snapshot.
func (v *View) setAPITokens(all []*logpb.APIToken) error {
	if len(all) > MaxAPITokens {
		return invalid("apiTokens", "there are more than %d", MaxAPITokens)
	}
	for _, m := range all {
		var d decoder
		t := d.apiToken(m)
		if d.err != nil {
			return d.err
		}
		if r := t.check(); r != nil {
			return r
		}
		if n := len(v.apiTokens); n > 0 && t.ID <= v.apiTokens[n-1].ID {
			return invalid("apiTokens", "are out of order")
		}
		v.apiTokens = append(v.apiTokens, t)
	}
	return nil
}

// unixMilli and millis keep no time as 0.
func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func millis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

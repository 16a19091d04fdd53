package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

func TestChangesTellTheNewKey(t *testing.T) {
	sh := at(t, (&fakeNode{}).serve(t))
	sh.must(0, "issue", "alice")
	if r := sh.must(0, "rotate", "alice"); r.out != "alice: rotated; the active key is 2-k\n" {
		t.Error(r.out)
	}
	if r := sh.must(0, "revoke", "alice", "--expected-key-id", "2-k"); r.out != "alice: revoked; the active key is 3-k; applied by 3 of 5 nodes in 6.25s, the others verify nothing until they have it\n" {
		t.Error(r.out)
	}
	if r := sh.must(0, "delete", "alice"); r.out != "alice: deleted; applied by 3 of 3 nodes in 4ms\n" {
		t.Error(r.out)
	}
	wants(t, sh.must(1, "keys", "get", "alice").errors, "not found: there is no such subject")
}

func TestAnotherKeyThanExpectedChangesNothing(t *testing.T) {
	for _, command := range []string{"rotate", "revoke", "delete"} {
		n := &fakeNode{}
		address := n.serve(t)
		sh := at(t, address)
		sh.must(0, "issue", "alice")
		r := sh.must(1, command, "alice", "--expected-key-id", "9-k")
		wants(t, r.errors, "keyquorum "+command+": conflict: the active key is another one", address, "req-1", "keys get")
		if r.out != "" || n.revision != 1 {
			t.Errorf("%s: %q, revision %d", command, r.out, n.revision)
		}
	}
}

func TestKeysGetIsATable(t *testing.T) {
	sh := at(t, (&fakeNode{}).serve(t))
	sh.must(0, "issue", "alice")
	want := strings.Join([]string{
		"KEY    STATE     CREATED               FIRST EXPIRY  LAST EXPIRY",
		"1-k    ACTIVE    2026-11-01T12:00:00Z  -             -",
		"0-old  RETIRING  2026-11-01T11:00:00Z  -             2026-11-01T12:00:00Z",
		"",
	}, "\n")
	if got := sh.must(0, "keys", "get", "alice").out; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestKeysListGoesThroughAllPages(t *testing.T) {
	n := &fakeNode{}
	sh := at(t, n.serve(t))
	for i := range 2500 {
		n.active[fmt.Sprintf("user-%04d", i)] = "k"
	}
	lines := strings.Split(strings.TrimSpace(sh.must(0, "keys", "list").out), "\n")
	if len(lines) != 2501 || !strings.HasPrefix(lines[0], "SUBJECT ") || !strings.HasPrefix(lines[2500], "user-2499  k ") {
		t.Errorf("%d lines, from %q to %q", len(lines), lines[0], lines[len(lines)-1])
	}
	pages := strings.Split(strings.TrimSpace(sh.must(0, "keys", "list", "--json").out), "\n")
	if len(pages) != 3 {
		t.Errorf("%d pages", len(pages))
	}
}

func TestKeysListStopsAtItsLimit(t *testing.T) {
	n := &fakeNode{}
	sh := at(t, n.serve(t))
	for i := range 2500 {
		n.active[fmt.Sprintf("user-%04d", i)] = "k"
	}
	for limit, pages := range map[string][]int32{"1": {1}, "1000": {1000}, "1001": {1000, 1}, "0": {1000, 1000, 1000}} {
		n.pages = nil
		sh.must(0, "keys", "list", "--limit", limit)
		if !slices.Equal(n.pages, pages) {
			t.Errorf("--limit %s asked for pages of %v", limit, n.pages)
		}
	}
}

func TestAnEmptyListHasItsHeaderOnly(t *testing.T) {
	sh := at(t, (&fakeNode{}).serve(t))
	if got := sh.must(0, "keys", "list").out; got != "SUBJECT  ACTIVE KEY  CREATED  LAST EXPIRY  RETIRING\n" {
		t.Errorf("%q", got)
	}
}

// A node that never comes to an end is not followed for ever.
func TestAListThatDoesNotLeadOnIsAnError(t *testing.T) {
	subjects := func(names ...string) (list []*v1.SubjectKeys) {
		for _, name := range names {
			list = append(list, &v1.SubjectKeys{Subject: name})
		}
		return list
	}
	for name, page := range map[string]*v1.ListResponse{
		"the same page again": {Subjects: subjects("alice", "bob"), NextPageToken: "bob"},
		"one out of order":    {Subjects: subjects("bob", "alice"), NextPageToken: "bob"},
		"an empty page":       {NextPageToken: "bob"},
	} {
		for _, format := range []string{"--json=false", "--json"} {
			n := &fakeNode{page: page}
			r := at(t, n.serve(t)).must(3, "keys", "list", format)
			wants(t, r.errors, "keyquorum keys list: the answer makes no sense: ")
			if len(n.pages) > 2 {
				t.Errorf("%s: asked %d times", name, len(n.pages))
			}
		}
	}
}

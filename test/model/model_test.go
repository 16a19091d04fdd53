package model

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// deep has more happen in each run: KEYQUORUM_MODEL=deep, as make model sets it.
var deep = os.Getenv("KEYQUORUM_MODEL") == "deep"

// limit is how many states are kept at the most, each some 110 bytes.
func limit() int {
	if deep {
		return 60_000_000
	}
	return 4_000_000
}

// The protocol as it is keeps its promises in every run within the bounds, and the runs come to all that could matter.
func TestAsDesigned(t *testing.T) {
	var seen Event
	for _, bounds := range designed() {
		t.Run(bounds.Name, func(t *testing.T) {
			r, err := Explore(bounds, limit())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d states", r.States)
			if r.Wrong != "" {
				t.Errorf("a promise is broken:\n%v", r)
			}
			seen |= r.Seen
		})
	}
	for event, what := range map[Event]string{
		RevokedByAll: "a Revoke returned because all had applied it", RevokedByTime: "a Revoke returned because its time ran out",
		RevokedByDeposed: "a deposed leader finished a Revoke", Accepted: "a token was accepted",
		Invalid: "a token was called invalid", RefusedStale: "a stale state was refused",
		FromFuture: "a token came from the future", NoRound: "a verification got no round", Forgot: "a former member was forgotten",
	} {
		if seen&event == 0 {
			t.Errorf("in no run %s", what)
		}
	}
}

// Each rule is needed: with it switched off, and all others on, a promise is broken.
func TestEachRuleMatters(t *testing.T) {
	for _, rule := range Rules() {
		t.Run(string(rule), func(t *testing.T) {
			r, err := Explore(BoundsOf(rule), limit(), rule)
			if err != nil {
				t.Fatal(err)
			}
			if r.Wrong == "" {
				t.Fatalf("nothing goes wrong without %s in %d states", rule, r.States)
			}
			t.Logf("without %s:\n%v", rule, r)
		})
	}
}

// What a rule's lack breaks is kept where the rule is on: its bounds are among the designed ones. (Old snapshots let
// through are what switches that rule off, so there they are none.)
func TestBoundsOfRulesAreSound(t *testing.T) {
	if deep || raced {
		t.Skip("the designed ones are others")
	}
	known := designed()
	for _, rule := range Rules() {
		bounds := BoundsOf(rule)
		if rule == OldSnapshotsRefused {
			bounds.Restores = 0
		}
		if !slices.Contains(known, bounds) {
			t.Errorf("the bounds of %s, %q, are not among those that are explored as designed", rule, bounds.Name)
		}
	}
}

// docs/PROTOCOL.md has a section for each rule, in the order of Rules, and for nothing else.
func TestDocumentHasEachRule(t *testing.T) {
	text, err := os.ReadFile("../../docs/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []Rule
	for _, m := range regexp.MustCompile("(?m)^### `([a-z0-9-]+)`$").FindAllSubmatch(text, -1) {
		documented = append(documented, Rule(m[1]))
	}
	if !slices.Equal(documented, Rules()) {
		t.Errorf("docs/PROTOCOL.md has the rules\n%q\nand the model\n%q", documented, Rules())
	}
}

// The name of a rule is its switch.
func TestEveryRuleHasASwitchOfItsOwn(t *testing.T) {
	seen := make(map[flags]Rule)
	for _, rule := range Rules() {
		off := without([]Rule{rule})
		if other, ok := seen[off]; ok || off == (flags{}) {
			t.Errorf("%s switches off what %q does", rule, other)
		}
		seen[off] = rule
	}
}

// docs/PROTOCOL.md has the bounds that are explored.
func TestDocumentHasTheBounds(t *testing.T) {
	if deep || raced {
		t.Skip("the documented ones are others")
	}
	text, err := os.ReadFile("../../docs/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range designed() {
		if row := b.row(); !strings.Contains(string(text), row) {
			t.Errorf("docs/PROTOCOL.md lacks\n%s", row)
		}
	}
}

// row is a line of the document's table.
func (b Bounds) row() string {
	var besides []string
	for _, is := range []struct {
		so   bool
		what string
	}{
		{b.Replicas != 0, "one has no vote"},
		{b.Joiner != 0, "one is added"},
		{b.Leaver != 0, "one is removed and forgotten"},
		{b.Uncommitted, "entries wait to be committed, and can be lost"},
		{b.Issue, "the key is made in the run"},
		{b.Split, "key and revision are published one after the other"},
		{b.Linearizable, "verifications are `LINEARIZABLE`"},
		{b.Age, "P4 is looked at"},
		{b.Snapshots, "old snapshots are let through"},
	} {
		if is.so {
			besides = append(besides, is.what)
		}
	}
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %d | %d | %d | %s |", b.Name, b.Nodes, b.Time, b.Log, b.Asks, b.Elections,
		b.Restarts, b.Restores, b.Revokes, strings.Join(besides, "; "))
}

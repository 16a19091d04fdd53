package boltstore

import (
	"testing"

	"pgregory.net/rapid"
)

// spans behave as a set of indexes.
func TestSpansAreASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s spans
		set := map[uint64]bool{}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				i := rapid.Uint64Range(1, 20).Draw(t, "i")
				s, set[i] = s.add(i), true
			},
			"without": func(t *rapid.T) {
				lo, hi := rapid.Uint64Range(0, 21).Draw(t, "lo"), rapid.Uint64Range(0, 21).Draw(t, "hi")
				if lo <= hi {
					s = s.without(lo, hi)
				}
				for i := lo; i <= hi; i++ {
					delete(set, i)
				}
			},
			"": func(t *rapid.T) { equalSet(t, s, set) },
		})
	})
}

func equalSet(t *rapid.T, s spans, set map[uint64]bool) {
	var first, last uint64
	for i := range uint64(25) {
		if s.has(i) != set[i] {
			t.Fatalf("%v has %d: %t, want %t", s, i, s.has(i), set[i])
		}
		if set[i] {
			last = i
			if first == 0 {
				first = i
			}
		}
	}
	if s.first() != first || s.last() != last {
		t.Fatalf("%v goes from %d to %d, want %d to %d", s, s.first(), s.last(), first, last)
	}
	for i := range s {
		if i > 0 && s[i-1].hi+1 >= s[i].lo {
			t.Fatalf("%v: ranges touch", s)
		}
	}
}

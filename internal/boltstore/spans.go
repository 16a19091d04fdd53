package boltstore

import (
	"cmp"
	"slices"
)

// spans says which entries the log has: ranges in ascending order, with gaps between them. There is one range, or two
// after a snapshot from the leader, when raft leaves what lies before the gap for its next compaction. It is never
// changed, only replaced.
type spans []span

// span is a range of entries, both ends included.
type span struct{ lo, hi uint64 }

func (s spans) first() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[0].lo
}

func (s spans) last() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].hi
}

func (s spans) has(index uint64) bool {
	return slices.ContainsFunc(s, func(r span) bool { return r.lo <= index && index <= r.hi })
}

// add gives s with one more entry.
func (s spans) add(index uint64) spans {
	if s.has(index) {
		return s
	}
	i, _ := slices.BinarySearchFunc(s, index, func(r span, x uint64) int { return cmp.Compare(r.lo, x) })
	next := make(spans, 0, len(s)+1)
	for _, r := range slices.Insert(slices.Clone(s), i, span{index, index}) {
		if n := len(next); n > 0 && next[n-1].hi+1 == r.lo {
			next[n-1].hi = r.hi
		} else {
			next = append(next, r)
		}
	}
	return next
}

// without gives s without the entries from lo to hi.
func (s spans) without(lo, hi uint64) spans {
	var next spans
	for _, r := range s {
		if r.lo < lo {
			next = append(next, span{r.lo, min(r.hi, lo-1)})
		}
		if r.hi > hi {
			next = append(next, span{max(r.lo, hi+1), r.hi})
		}
	}
	return next
}

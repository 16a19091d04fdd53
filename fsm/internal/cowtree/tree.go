// Package cowtree is an ordered map for a state that many read while one changes it: a B-tree whose versions are
// immutable and share what they have in common. Taking a version costs nothing, readers need no lock, and one
// round of edits copies each node that it touches once, however many edits fall on it.
package cowtree

import "iter"

// maxItems is the most items that a node holds. It weighs the copying of a node against the depth of the tree.
const maxItems = 31

// minItems is where a deletion starts to fill a node up from its neighbours. It is well below half, so that
// mixed insertions and deletions do not split and merge the same nodes again and again. Nodes at the right edge
// can hold fewer.
const minItems = maxItems / 3

// Order says how items of a tree are ordered by their keys. Both functions must be pure.
type Order[K, T any] struct {
	// Key gives an item's key.
	Key func(T) K
	// Compare is negative, zero or positive as k is before, at or after the item's key.
	Compare func(k K, item T) int
}

// Tree is one version: it never changes, and is safe for concurrent use. Make the first one with New or Build.
type Tree[K, T any] struct {
	order *Order[K, T]
	root  *node[T]
	len   int
}

// node is a leaf if it has no children; else it has one more than items. Only the round of edits that owns it
// may change it.
type node[T any] struct {
	owner    *owner
	items    []T
	children []*node[T]
}

// New gives a tree without items.
func New[K, T any](order *Order[K, T]) Tree[K, T] { return Tree[K, T]{order: order} }

// Len gives the number of items.
func (t Tree[K, T]) Len() int { return t.len }

// Get finds the item at k.
func (t Tree[K, T]) Get(k K) (item T, ok bool) {
	for n := t.root; n != nil; {
		i, found := t.order.search(n, k)
		if found {
			return n.items[i], true
		}
		if n.leaf() {
			break
		}
		n = n.children[i]
	}
	return item, false
}

// All goes through the items in order.
func (t Tree[K, T]) All() iter.Seq[T] {
	return func(yield func(T) bool) {
		if t.root != nil {
			t.root.all(yield)
		}
	}
}

// From goes through the items in order, starting with the first that is not before k.
func (t Tree[K, T]) From(k K) iter.Seq[T] {
	return func(yield func(T) bool) {
		if t.root != nil {
			t.order.from(t.root, k, yield)
		}
	}
}

// First gives the item that is before all others.
func (t Tree[K, T]) First() (item T, ok bool) {
	for item = range t.All() {
		return item, true
	}
	return item, false
}

// search finds k among the items of n, or the child that it belongs under.
func (o *Order[K, T]) search(n *node[T], k K) (i int, found bool) {
	lo, hi := 0, len(n.items)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		c := o.Compare(k, n.items[mid])
		if c == 0 {
			return mid, true
		}
		if c < 0 {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo, false
}

func (o *Order[K, T]) from(n *node[T], k K, yield func(T) bool) bool {
	i, found := o.search(n, k)
	if !found && !n.leaf() && !o.from(n.children[i], k, yield) {
		return false
	}
	return n.rest(i, yield)
}

// rest goes through the items from i on, and what lies between and behind them.
func (n *node[T]) rest(i int, yield func(T) bool) bool {
	for ; i < len(n.items); i++ {
		if !yield(n.items[i]) {
			return false
		}
		if !n.leaf() && !n.children[i+1].all(yield) {
			return false
		}
	}
	return true
}

func (n *node[T]) all(yield func(T) bool) bool {
	if !n.leaf() && !n.children[0].all(yield) {
		return false
	}
	return n.rest(0, yield)
}

func (n *node[T]) leaf() bool { return len(n.children) == 0 }

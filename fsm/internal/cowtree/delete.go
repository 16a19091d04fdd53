package cowtree

import "slices"

// Delete drops the item at k, and tells whether there was one.
func (e *Edit[K, T]) Delete(k K) bool {
	if _, ok := e.Get(k); !ok {
		return false // without copying a path
	}
	root := e.own(e.tree.root)
	e.delete(root, k)
	e.tree.len--
	e.tree.root = root
	if len(root.items) == 0 {
		e.tree.root = root.only()
	}
	return true
}

// only gives what is left of a root without items: its one child, or nil for a leaf.
func (n *node[T]) only() *node[T] {
	if n.leaf() {
		return nil
	}
	return n.children[0]
}

// delete drops the item at k, which is there, from n, which e owns.
func (e *Edit[K, T]) delete(n *node[T], k K) {
	i, found := e.tree.order.search(n, k)
	switch {
	case n.leaf():
		n.items = slices.Delete(n.items, i, i+1)
		return
	case found:
		// The greatest item before takes its place.
		n.items[i] = e.deleteLast(e.child(n, i))
	default:
		e.delete(e.child(n, i), k)
	}
	e.refill(n, i)
}

// deleteLast takes the greatest item out of the subtree of n, which e owns.
func (e *Edit[K, T]) deleteLast(n *node[T]) T {
	last := len(n.items) - 1
	if n.leaf() {
		item := n.items[last]
		n.items = cut(n.items, last)
		return item
	}
	item := e.deleteLast(e.child(n, last+1))
	e.refill(n, last+1)
	return item
}

// child gives the i-th child of n for changing.
func (e *Edit[K, T]) child(n *node[T], i int) *node[T] {
	n.children[i] = e.own(n.children[i])
	return n.children[i]
}

// refill sees to it that the i-th child of n has enough items, with the help of a neighbour.
func (e *Edit[K, T]) refill(n *node[T], i int) {
	if len(n.children[i].items) >= minItems {
		return
	}
	i = min(i, len(n.items)-1) // of the two neighbours i and i+1
	if len(n.children[i].items)+1+len(n.children[i+1].items) <= maxItems {
		e.merge(n, i)
	} else {
		e.balance(n, i)
	}
}

// merge joins the children i and i+1 of n, and the item between.
func (e *Edit[K, T]) merge(n *node[T], i int) {
	left, right := e.child(n, i), n.children[i+1]
	left.items = append(append(left.items, n.items[i]), right.items...)
	left.children = append(left.children, right.children...)
	n.items = slices.Delete(n.items, i, i+1)
	n.children = slices.Delete(n.children, i+1, i+2)
}

// balance shares what the children i and i+1 of n hold evenly between them. Together they are more than one full
// node, so neither ends below half.
func (e *Edit[K, T]) balance(n *node[T], i int) {
	left, right := n.children[i], n.children[i+1]
	items := slices.Concat(left.items, n.items[i:i+1], right.items)
	children := slices.Concat(left.children, right.children)
	half := len(items) / 2
	n.items[i] = items[half]
	l := &node[T]{owner: e.owner, items: slices.Clone(items[:half]), children: nil}
	r := &node[T]{owner: e.owner, items: slices.Clone(items[half+1:]), children: nil}
	if len(children) > 0 {
		l.children = slices.Clone(children[:half+1])
		r.children = slices.Clone(children[half+1:])
	}
	n.children[i], n.children[i+1] = l, r
}

package cowtree

import "slices"

// owner marks the nodes that one round of edits made, by its address; so it must not be of size zero.
type owner struct{ _ byte }

// Edit is a round of changes that starts from one version and ends in another. It is for one goroutine; the
// version that it started from goes on unchanged.
type Edit[K, T any] struct {
	tree  Tree[K, T]
	owner *owner
}

// Edit starts a round of changes.
func (t Tree[K, T]) Edit() *Edit[K, T] { return &Edit[K, T]{tree: t, owner: new(owner)} }

// Tree gives the version reached. Edits made later do not change it.
func (e *Edit[K, T]) Tree() Tree[K, T] {
	e.owner = new(owner)
	return e.tree
}

// Get finds the item at k.
func (e *Edit[K, T]) Get(k K) (T, bool) { return e.tree.Get(k) }

// Put adds item, in the place of the one with the same key if there is one.
func (e *Edit[K, T]) Put(item T) {
	if e.tree.root == nil {
		e.tree.root = &node[T]{owner: e.owner, items: []T{item}}
		e.tree.len = 1
		return
	}
	root := e.own(e.tree.root)
	sep, right := e.put(root, e.tree.order.Key(item), item, true)
	if right != nil {
		root = &node[T]{owner: e.owner, items: []T{sep}, children: []*node[T]{root, right}}
	}
	e.tree.root = root
}

// put changes n, which e owns; edge tells that n is at the tree's right edge. If n had to be split, it gives the
// right part and the item between.
func (e *Edit[K, T]) put(n *node[T], k K, item T, edge bool) (sep T, right *node[T]) {
	i, found := e.tree.order.search(n, k)
	if found {
		n.items[i] = item
		return sep, nil
	}
	edge = edge && i == len(n.items)
	if n.leaf() {
		e.tree.len++
		return e.insert(n, i, item, nil, edge)
	}
	sep, right = e.put(e.child(n, i), k, item, edge)
	if right == nil {
		return sep, nil
	}
	return e.insert(n, i, sep, right, edge)
}

// insert puts item at i, and child, unless nil, behind it; n is split where it is full. What is always added at
// the tree's end, such as times, leaves full nodes behind.
func (e *Edit[K, T]) insert(n *node[T], i int, item T, child *node[T], end bool) (sep T, right *node[T]) {
	if len(n.items) < maxItems {
		n.insert(i, item, child)
		return sep, nil
	}
	at := maxItems / 2
	if end {
		at = maxItems - 1
	}
	sep, right = e.split(n, at)
	if left := len(n.items); i <= left {
		n.insert(i, item, child)
	} else {
		right.insert(i-left-1, item, child)
	}
	return sep, right
}

// split takes the items behind at out of n, and gives them beside the one at it.
func (e *Edit[K, T]) split(n *node[T], at int) (sep T, right *node[T]) {
	sep = n.items[at]
	right = &node[T]{owner: e.owner, items: slices.Clone(n.items[at+1:])}
	n.items = cut(n.items, at)
	if !n.leaf() {
		right.children = slices.Clone(n.children[at+1:])
		n.children = cut(n.children, at+1)
	}
	return sep, right
}

// own gives n if this round made it, else a copy that may be changed.
func (e *Edit[K, T]) own(n *node[T]) *node[T] {
	if n.owner == e.owner {
		return n
	}
	return &node[T]{owner: e.owner, items: roomy(n.items), children: roomy(n.children)}
}

func (n *node[T]) insert(i int, item T, child *node[T]) {
	n.items = insert(n.items, i, item)
	if child != nil {
		n.children = insert(n.children, i+1, child)
	}
}

// roomy copies s with room for one more, and not much more: most nodes wait a long time for their next item.
func roomy[E any](s []E) []E {
	if len(s) == 0 {
		return nil
	}
	return append(make([]E, 0, (len(s)+4)&^3), s...)
}

func insert[E any](s []E, i int, e E) []E {
	if len(s) == cap(s) {
		s = roomy(s)
	}
	return slices.Insert(s, i, e)
}

// cut shortens s and lets go of what it held behind.
func cut[E any](s []E, n int) []E {
	clear(s[n:])
	return s[:n]
}

package cowtree

// fill is how many items Build puts into a node: it leaves room, so that the first insertions afterwards do not
// split every node that they meet.
const fill = maxItems * 4 / 5

// Build makes a tree of items that are in strictly ascending order already. It does not keep the slice.
func Build[K, T any](order *Order[K, T], sorted []T) Tree[K, T] {
	t := Tree[K, T]{order: order, len: len(sorted)}
	if len(sorted) > 0 {
		t.root = build(sorted, height(len(sorted)))
	}
	return t
}

// capacity is what a subtree holds whose nodes have fill items each; a leaf's height is 0.
func capacity(height int) int {
	c := fill
	for range height {
		c = c*(fill+1) + fill
	}
	return c
}

func height(items int) int {
	h := 0
	for capacity(h) < items {
		h++
	}
	return h
}

// build spreads items evenly over the fewest children that can hold them, so that no node gets too few.
func build[T any](items []T, height int) *node[T] {
	if height == 0 {
		return &node[T]{items: append(make([]T, 0, len(items)), items...)}
	}
	below := capacity(height - 1)
	children := (len(items) + below + 1) / (below + 1)
	n := &node[T]{items: make([]T, 0, children-1), children: make([]*node[T], 0, children)}
	for left := children; left > 0; left-- {
		size := (len(items) - (left - 1)) / left
		n.children = append(n.children, build(items[:size], height-1))
		if left > 1 {
			n.items = append(n.items, items[size])
			size++
		}
		items = items[size:]
	}
	return n
}

package cowtree

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// pair is an item whose value is no part of its key.
type pair struct{ k, v int }

var byKey = &Order[int, pair]{
	Key:     func(p pair) int { return p.k },
	Compare: func(k int, p pair) int { return cmp.Compare(k, p.k) },
}

// check fails unless the tree holds just want, in order, and is balanced.
func check(t rapid.TB, tree Tree[int, pair], want map[int]int) {
	t.Helper()
	if tree.Len() != len(want) {
		t.Fatalf("Len() = %d, want %d", tree.Len(), len(want))
	}
	got := slices.Collect(tree.All())
	if !slices.Equal(got, sorted(want)) {
		t.Fatalf("All() = %v\nwant %v", got, sorted(want))
	}
	if tree.root != nil {
		checkNode(t, tree.root, true)
	}
}

// checkNode gives the height of n.
func checkNode(t rapid.TB, n *node[pair], edge bool) int {
	t.Helper()
	if len(n.items) == 0 || len(n.items) > maxItems || !edge && len(n.items) < minItems {
		t.Fatalf("a node has %d items", len(n.items))
	}
	if n.leaf() {
		return 0
	}
	if len(n.children) != len(n.items)+1 {
		t.Fatalf("a node has %d items and %d children", len(n.items), len(n.children))
	}
	height := checkNode(t, n.children[0], false)
	for i, c := range n.children[1:] {
		if h := checkNode(t, c, edge && i == len(n.items)-1); h != height {
			t.Fatalf("children of heights %d and %d", height, h)
		}
	}
	return height + 1
}

func sorted(m map[int]int) []pair {
	s := make([]pair, 0, len(m))
	for k, v := range m {
		s = append(s, pair{k, v})
	}
	slices.SortFunc(s, func(a, b pair) int { return cmp.Compare(a.k, b.k) })
	return s
}

func clone(m map[int]int) map[int]int {
	c := make(map[int]int, len(m))
	maps.Copy(c, m)
	return c
}

// TestAgainstMap drives rounds of edits, and finds every version ever taken as it was when it was taken.
func TestAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SampledFrom([]int{20, 200, 5000}).Draw(t, "keys")
		model := map[int]int{}
		for range rapid.IntRange(0, 2*keys).Draw(t, "start") {
			model[len(model)*2] = -1
		}
		tree := Build(byKey, sorted(model))
		check(t, tree, model)

		var versions []Tree[int, pair]
		var models []map[int]int
		for round := range rapid.IntRange(1, 8).Draw(t, "rounds") {
			versions, models = append(versions, tree), append(models, clone(model))
			e := tree.Edit()
			rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
			puts := rapid.IntRange(0, 10).Draw(t, "putsOfTen")
			for i := range rapid.IntRange(0, keys).Draw(t, "edits") {
				k := rnd.IntN(2 * keys)
				if rnd.IntN(10) < puts {
					e.Put(pair{k, round*keys + i})
					model[k] = round*keys + i
					continue
				}
				_, want := model[k]
				if got := e.Delete(k); got != want {
					t.Fatalf("Delete(%d) = %v, want %v", k, got, want)
				}
				delete(model, k)
			}
			tree = e.Tree()
			check(t, tree, model)
		}
		for i := range versions {
			check(t, versions[i], models[i])
		}
		checkReads(t, tree, model, 2*keys)
	})
}

func checkReads(t *rapid.T, tree Tree[int, pair], model map[int]int, keys int) {
	all := sorted(model)
	for range 50 {
		k := rapid.IntRange(-1, keys).Draw(t, "k")
		v, want := model[k]
		got, ok := tree.Get(k)
		if ok != want || ok && got != (pair{k, v}) {
			t.Fatalf("Get(%d) = %v, %v", k, got, ok)
		}
		i, _ := slices.BinarySearchFunc(all, k, func(p pair, k int) int { return cmp.Compare(p.k, k) })
		next := slices.Collect(tree.From(k))
		if !slices.Equal(next, all[i:]) {
			t.Fatalf("From(%d) = %v, want %v", k, next, all[i:])
		}
	}
	first, ok := tree.First()
	if ok != (len(all) > 0) || ok && first != all[0] {
		t.Fatalf("First() = %v, %v", first, ok)
	}
}

func TestEditAfterTreeLeavesTreeAlone(t *testing.T) {
	e := New(byKey).Edit()
	for k := range 100 {
		e.Put(pair{k, 0})
	}
	before := e.Tree()
	for k := range 100 {
		e.Put(pair{k, 1})
	}
	e.Delete(50)
	for p := range before.All() {
		if p.v != 0 {
			t.Fatalf("an edit made later shows at %d", p.k)
		}
	}
	if before.Len() != 100 || e.Tree().Len() != 99 {
		t.Fatalf("lengths %d and %d", before.Len(), e.Tree().Len())
	}
}

func TestStopsWhenAskedTo(t *testing.T) {
	items := make([]pair, 5000)
	for i := range items {
		items[i].k = i
	}
	tree := Build(byKey, items)
	for _, stop := range []int{0, 1, 30, 700, 4999} {
		n := 0
		for p := range tree.From(0) {
			if p.k != n {
				t.Fatalf("%d follows %d", p.k, n-1)
			}
			if n == stop {
				break
			}
			n++
		}
		if n != stop {
			t.Fatalf("stopped at %d, want %d", n, stop)
		}
	}
}

// TestAscendingInsertionsFillNodes: times are mostly added at the end, and must not leave half-empty nodes.
func TestAscendingInsertionsFillNodes(t *testing.T) {
	tree := New(byKey)
	for k := 0; k < 100_000; {
		e := tree.Edit()
		for range 100 {
			e.Put(pair{k: k})
			k++
		}
		tree = e.Tree()
	}
	nodes := 0
	var count func(*node[pair])
	count = func(n *node[pair]) {
		nodes++
		for _, c := range n.children {
			count(c)
		}
	}
	count(tree.root)
	if perNode := tree.Len() / nodes; perNode < maxItems*9/10 {
		t.Fatalf("%d items a node", perNode)
	}
}

func TestEmptied(t *testing.T) {
	e := New(byKey).Edit()
	for k := range 3000 {
		e.Put(pair{k: k})
	}
	full := e.Tree()
	for k := range 3000 {
		if !e.Delete(k) {
			t.Fatalf("%d is gone", k)
		}
	}
	empty := e.Tree()
	check(t, empty, nil)
	if empty.Edit().Delete(1) {
		t.Fatal("deleted from an empty tree")
	}
	if full.Len() != 3000 {
		t.Fatal("the full version changed")
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			items := make([]pair, size)
			for i := range items {
				items[i].k = i
			}
			tree := Build(byKey, items)
			k := 0
			for b.Loop() {
				k = (k + 7919) % size
				if _, ok := tree.Get(k); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
}

// BenchmarkEdit is for the cost of a changed item, by how many others are changed with it.
func BenchmarkEdit(b *testing.B) {
	const size = 1_000_000
	items := make([]pair, size)
	for i := range items {
		items[i].k = i
	}
	for _, batch := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			b.ReportAllocs()
			tree := Build(byKey, items)
			k, n := 0, 0
			e := tree.Edit()
			for b.Loop() {
				k = (k + 611_953) % size
				e.Put(pair{k, n})
				if n++; n%batch == 0 {
					tree = e.Tree()
					e = tree.Edit()
				}
			}
		})
	}
}

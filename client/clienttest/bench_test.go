package clienttest_test

import (
	"testing"

	"github.com/keyquorum/keyquorum/client/clienttest"
)

// BenchmarkNewCluster is what a test pays for a cluster of its own, its end left out.
func BenchmarkNewCluster(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		b.Run(map[int]string{1: "one", 3: "three"}[nodes], func(b *testing.B) {
			for b.Loop() {
				clienttest.NewCluster(b, nodes)
			}
		})
	}
}

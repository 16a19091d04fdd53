package sim_test

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/test/sim"
)

// total is what all seeds of this process add up to.
var total struct {
	sync.Mutex
	seeds, bites, operations, violations int
	simulated, watched                   time.Duration
	bit, tried                           map[sim.Fault]int
	outcomes                             map[string]int
}

// TestMain ends with the sum of all seeds.
func TestMain(m *testing.M) {
	total.bit, total.tried, total.outcomes = make(map[sim.Fault]int), make(map[sim.Fault]int), make(map[string]int)
	debug.SetGCPercent(400) // the worlds are small, and short-lived
	code := m.Run()
	if testing.Verbose() || os.Getenv("KEYQUORUM_SEEDS") != "" {
		for _, f := range sim.Sorted(total.tried) {
			fmt.Printf("%-14s %5d of %5d bit\n", f, total.bit[f], total.tried[f])
		}
		fmt.Println(total.outcomes)
		fmt.Printf("P5 was looked at for %.2f hours\n", total.watched.Hours())
		fmt.Printf("%d seeds, %.2f simulated hours, %d faults that bit, %d operations, %d violations\n",
			total.seeds, total.simulated.Hours(), total.bites, total.operations, total.violations)
	}
	os.Exit(code)
}

func add(r sim.Report) {
	total.Lock()
	defer total.Unlock()
	total.seeds++
	total.bites += r.Bites()
	total.operations += r.Operations
	total.violations += len(r.Violations)
	total.simulated += r.Simulated
	total.watched += r.Watched
	for f, n := range r.Tried {
		total.tried[f] += n
		total.bit[f] += r.Bit[f]
	}
	for o, n := range r.Outcomes {
		total.outcomes[o] += n
	}
}

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestSeeds runs KEYQUORUM_SEEDS seeds from KEYQUORUM_SEED_FROM on.
func TestSeeds(t *testing.T) {
	from, n := number(t, "KEYQUORUM_SEED_FROM", 1), number(t, "KEYQUORUM_SEEDS", 5)
	for seed := from; seed < from+n; seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			r := sim.Run(t, seed, sim.Options{})
			add(r)
			if len(r.Violations) > 0 {
				t.Errorf("%d violations\n%s", len(r.Violations), r.Story())
			} else if n == 1 {
				t.Log(r.Story())
			}
		})
	}
}

// kept are seeds that taught something: each shows a fault, planted or since mended, that most let pass.
var kept = map[uint64]string{
	25: "a waiter that joins a round already asked reads an old state",
}

// TestKept runs them.
func TestKept(t *testing.T) {
	for seed, why := range kept {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			r := sim.Run(t, seed, sim.Options{})
			add(r)
			if len(r.Violations) > 0 {
				t.Errorf("%s: %d violations\n%s", why, len(r.Violations), r.Story())
			}
		})
	}
}

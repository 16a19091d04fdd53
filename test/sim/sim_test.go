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
	if seeds := os.Getenv("KEYQUORUM_SEEDS"); seeds != "" && code == 0 {
		for _, missing := range lacking() {
			fmt.Println(missing)
			code = 1
		}
	}
	os.Exit(code)
}

// The numbers that a run of the simulation is held to, so that one which finds nothing has looked: in as many seeds as CI runs,
// every kind of fault bit.
const (
	bitesPerSeed      = 4 // 2,000 in 500
	watchedPerHour    = 0.25
	seedsForEachFault = 500
)

// lacking says in what the run falls short of them.
func lacking() (short []string) {
	if total.seeds < 50 { // chance is too much of what so few draw
		return nil
	}
	if least := bitesPerSeed * total.seeds; total.bites < least {
		short = append(short, fmt.Sprintf("FAIL: %d faults bit in %d seeds, and at least %d should", total.bites, total.seeds, least))
	}
	if hours := total.simulated.Hours(); total.watched.Hours() < watchedPerHour*hours {
		short = append(short, fmt.Sprintf("FAIL: P5 was looked at for %.2f of %.2f hours", total.watched.Hours(), hours))
	}
	if total.seeds < seedsForEachFault {
		return short
	}
	for _, f := range sim.Drawn() {
		if total.bit[f] == 0 {
			short = append(short, fmt.Sprintf("FAIL: %s was tried %d times in %d seeds, and never bit", f, total.tried[f], total.seeds))
		}
	}
	return short
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

// kept are seeds that taught something: each shows a fault, planted or since mended, that most let pass; or a bound that
// somebody would draw too tight. docs/TESTING.md says of which others the plan is no longer drawn.
var kept = map[uint64]string{
	25:     "a waiter that joins a round already asked reads an old state",
	52:     "a leader that has learned the time only a moment ago has nothing rotated yet",
	234:    "on slow links, with messages delayed, a rotation takes more than a second",
	5138:   "a transfer of leadership that hangs in an earlier term refuses all writes later",
	105031: "a node that was without the others for long carries the time on by a clock that is a tenth off",
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

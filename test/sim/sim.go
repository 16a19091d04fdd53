// Package sim runs whole clusters through seeded schedules of faults, under a random workload of all operations, and
// checks what callers saw against what Keyquorum promises. The code of node, fsm, rpc and client is the real one, with
// the same repairs around Raft's transport and stores as in production; network, disks, clocks and gossip are simulated,
// and time is virtual (testing/synctest), so that hours go by in minutes.
//
// A seed gives the plan: the cluster's shape, and which fault befalls whom, when, and for how long. Two runs of a seed go
// alike as far as that; which of several ready goroutines runs first is Go's choice, so that they are not identical.
//
// docs/TESTING.md tells what is simulated, and what cannot be.
package sim

import (
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/internal/seal"
)

// Options change what a seed would draw. The zero value changes nothing.
type Options struct {
	// Nodes is the number of members, Duration how long faults and workload go on; drawn if zero.
	Nodes    int
	Duration time.Duration
	// Faults are the only kinds to inject; all if empty.
	Faults []Fault
	// Deleting has callers delete much more often.
	Deleting bool
	// Replicas has every seed have some.
	Replicas bool
	// Logger gets what the nodes say; nobody if nil.
	Logger *slog.Logger
}

// Report is what came of one run.
type Report struct {
	Seed uint64
	Plan Plan
	// Violations are the promises that were broken; none in a good run.
	Violations []string
	// Notes tell the run's story.
	Notes []string
	// Bit counts, for each kind, the faults that can prove that they had an effect, Tried all.
	Bit, Tried map[Fault]int
	// Operations counts what callers asked for, Outcomes how it came out.
	Operations int
	Outcomes   map[string]int
	// Simulated is the virtual time that went by.
	Simulated time.Duration
	History   []*Op
	// Watched is for how much of that P5 was looked at: some leader had got its writes through for long enough.
	Watched time.Duration
}

// Bites is the number of faults that bit.
func (r Report) Bites() (n int) {
	for _, of := range r.Bit {
		n += of
	}
	return n
}

// Story tells all that is needed to look into a run.
func (r Report) Story() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %s", r.Seed, r.Plan)
	for _, n := range r.Notes {
		fmt.Fprintln(&b, n)
	}
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "VIOLATION %s\n", v)
	}
	fmt.Fprintf(&b, "again: KEYQUORUM_SEED_FROM=%d KEYQUORUM_SEEDS=1 go test -count=1 -run TestSeeds ./test/sim\n", r.Seed)
	return b.String()
}

// sharedKeyring is all worlds' one: its making takes longer than many a run.
var sharedKeyring = sync.OnceValues(seal.NewKeyring)

// Run runs one seed in a bubble of its own.
func Run(t *testing.T, seed uint64, opts Options) Report {
	t.Helper()
	keyring, err := sharedKeyring()
	if err != nil {
		t.Fatal(err)
	}
	var world atomic.Pointer[World]
	defer time.AfterFunc(longestReal, func() { world.Load().stuck(longestReal) }).Stop()
	deadlock := bubble(t, func(*testing.T) {
		w := newWorld(seed, opts, keyring)
		world.Store(w)
		w.live()
	})
	w := world.Load()
	if deadlock != nil && !w.excused {
		w.violation("the bubble: %v", deadlock)
	}
	r := w.report()
	r.Violations = append(r.Violations, check(w.plan, r.History)...)
	return r
}

// bubble runs f under virtual time. It gives what the bubble ended with where goroutines are left, which would end the
// test process.
func bubble(t *testing.T, f func(*testing.T)) (deadlock any) {
	t.Helper()
	defer func() { deadlock = recover() }()
	synctest.Test(t, f)
	return nil
}

func (w *World) report() Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := Report{
		Seed: w.seed, Plan: w.plan, Violations: w.violations, Notes: w.notes, Bit: w.bites, Tried: w.tried,
		Outcomes: make(map[string]int), Simulated: w.lasted, History: w.history.all(),
		Watched: time.Duration(w.timely.watched.Load()),
	}
	r.Operations = len(r.History)
	for _, o := range r.History {
		name := fmt.Sprintf("%s %s", o.Kind, o.Outcome)
		if o.Kind == Verify && o.Outcome == OK {
			name = fmt.Sprintf("verify %s", o.Reason)
		}
		r.Outcomes[name]++
	}
	return r
}

// A world that has not ended after longest, by its own time, waits for ever; one that has not after longestReal, by
// the true time, spins at one instant.
const (
	longest     = 20 * time.Minute
	longestReal = 4 * time.Minute
)

// stuck ends the test process: what waits or spins for ever in a bubble cannot be ended.
func (w *World) stuck(after time.Duration) {
	panic(fmt.Sprintf("the world did not end in %v\n%s\n%s", after, w.report().Story(), stacks()))
}

// stacks gives those of all goroutines, however many seeds wait for their turn.
func stacks() string {
	for size := 1 << 20; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size {
			return string(buf[:n])
		}
	}
}

// live is a world's whole life.
func (w *World) live() {
	defer time.AfterFunc(longest, func() { w.stuck(longest) }).Stop()
	if w.found() {
		w.trouble()
		w.aftermath()
	}
	w.stop()
	w.lasted = time.Since(w.began)
	time.Sleep(time.Minute) // for what ends by itself
	synctest.Wait()
	left := leftovers()
	own := slices.DeleteFunc(slices.Clone(left), wedgedTransfer)
	if len(own) > 0 {
		w.violation("goroutines are left:\n%s", strings.Join(own, "\n\n"))
	}
	w.excused = len(left) > 0 && len(own) == 0
}

// wedgedTransfer tells whether a stack is one of the two that hashicorp/raft 1.8.0 leaves for ever where a leader is
// deposed while it hands over to a member that does not answer (issue 696).
func wedgedTransfer(stack string) bool {
	return strings.Contains(stack, "raft.(*Raft).leadershipTransfer(") || strings.Contains(stack, "raft.(*Raft).leaderLoop.func2(")
}

// trouble has faults befall the cluster while callers use it.
func (w *World) trouble() {
	lib, done, err := w.newLibrary()
	if err != nil {
		w.violation("the client library: %v", err)
		return
	}
	defer done()
	for i := range w.plan.Users {
		w.books = append(w.books, &book{user: fmt.Sprintf("user-%d", i)})
	}
	var all sync.WaitGroup
	watching := make(chan struct{})
	all.Go(func() { w.watch(watching) })
	var busy sync.WaitGroup
	busy.Go(w.inject)
	w.work(w.books, lib, time.Now().Add(w.plan.Duration))
	busy.Wait()
	close(watching)
	all.Wait()
}

// aftermath heals all, and looks whether everybody agrees on what callers were told.
func (w *World) aftermath() {
	w.calm()
	if !w.await(90*time.Second, func() bool { w.readmit(); return w.settled() }) {
		w.violation("the healed cluster does not settle: %s", w.unsettled())
		return
	}
	w.lastLook()
	for range 200 {
		if w.compare() {
			w.compareAudit()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	w.violation("the members never came to rest at one position")
}

// lastLook reads every user's keys at the leader, and has all live tokens verified everywhere.
func (w *World) lastLook() {
	for _, b := range w.books {
		c := &worker{world: w, book: b, rng: w.random("last look")}
		ctx, cancel := bounded(5 * time.Second)
		for _, token := range b.live() {
			for _, m := range w.members {
				c.judge(ctx, service{member: m}, Bounded, token)
			}
		}
		if leader := w.leader(); leader != nil {
			c.newest(ctx, service{member: leader})
		}
		cancel()
	}
}

// leftovers gives the stacks of the goroutines that are left in this bubble beside this one.
func leftovers() (left []string) {
	buf := make([]byte, 1<<16)
	own := string(buf[:runtime.Stack(buf, false)])
	name := bubbleOf(own)
	if name == "" {
		return nil // this version of Go does not tell
	}
	for i, stack := range strings.Split(stacks(), "\n\n") {
		head, _, _ := strings.Cut(stack, "\n")
		if i > 0 && bubbleOf(head) == name && !strings.Contains(stack, "testing/synctest.Test") && !strings.Contains(stack, "synctest.Run") {
			left = append(left, stack)
		}
	}
	return left
}

// bubbleOf finds the name of the bubble in a stack's first line.
func bubbleOf(stack string) string {
	head, _, _ := strings.Cut(stack, "\n")
	_, name, ok := strings.Cut(head, "synctest bubble ")
	if !ok {
		return ""
	}
	name, _, _ = strings.Cut(name, "]")
	name, _, _ = strings.Cut(name, ",")
	return name
}

// Sorted gives the kinds of fault in a report, in order.
func Sorted(counts map[Fault]int) []Fault { return slices.Sorted(maps.Keys(counts)) }

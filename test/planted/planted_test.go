//go:build planted

package planted

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/keyquorum/keyquorum/internal/plant"
	"github.com/keyquorum/keyquorum/test/model"
	"github.com/keyquorum/keyquorum/test/sim"
)

const (
	// most is how many seeds a fault may take.
	most = 150
	// patience bounds one seed, in true time.
	patience = 45 * time.Second
	// states bounds the model.
	states = 4_000_000
)

// catch is what caught a fault.
type catch struct {
	// By are the checks that found something; none if the fault went unseen.
	By []string
	// Seeds is how many it took.
	Seeds uint64
	// Story is the run.
	Story string `json:",omitempty"`
	// Stuck tells that the last of them did not end.
	Stuck bool
	cpu   time.Duration
	err   error
}

// TestPlanted has each fault caught, and the same seeds find nothing without it.
func TestPlanted(t *testing.T) {
	all := plant.All()
	caught := make([]catch, len(all))
	turns := make(chan struct{}, runtime.NumCPU())
	var over sync.WaitGroup
	for i, f := range all {
		over.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			caught[i] = hunt(f)
		})
	}
	over.Wait()
	t.Logf("\n%s", table(all, caught))
	for i, f := range all {
		if c := caught[i]; c.err != nil || len(c.By) == 0 {
			t.Errorf("%s: caught by %q: %v", f, c.By, c.err)
		}
	}
}

// table has a line for each fault.
func table(all []plant.Fault, caught []catch) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "fault\tcaught by\tseeds\tCPU seconds")
	var total time.Duration
	for i, f := range all {
		c := caught[i]
		seeds := strconv.FormatUint(c.Seeds, 10)
		if plots[f].rule != "" {
			seeds = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f\n", f, strings.Join(c.By, ", "), seeds, c.cpu.Seconds())
		total += c.cpu
	}
	fmt.Fprintf(w, "all\t\t\t%.1f\n", total.Seconds())
	_ = w.Flush()
	for _, f := range all {
		if p := plots[f]; p.why != "" {
			fmt.Fprintf(&b, "%s is for the model: %s.\n", f, p.why)
		}
	}
	return b.String()
}

// hunt brings one fault to light. The process that it is planted in may die of it.
func hunt(f plant.Fault) catch {
	if rule := plots[f].rule; rule != "" {
		return explored(rule)
	}
	c := watched(f, "planted", 1)
	for c.Stuck && c.Seeds < most { // a fault may keep a world from ending, which is no check's merit
		next := watched(f, "planted", c.Seeds+1)
		next.cpu += c.cpu
		c = next
	}
	if c.err != nil || len(c.By) == 0 {
		return c
	}
	sound := watched(f, strconv.FormatUint(c.Seeds, 10), 1)
	c.cpu += sound.cpu
	if c.err = sound.err; len(sound.By) > 0 {
		c.err = fmt.Errorf("without the fault, %q found something at seed %d:\n%s", sound.By, sound.Seeds, sound.Story)
	}
	return c
}

// explored has the model explore without the rule.
func explored(rule model.Rule) catch {
	began := time.Now()
	r, err := model.Explore(model.BoundsOf(rule), states, rule)
	c := catch{cpu: time.Since(began), err: err}
	if r.Wrong != "" {
		promise, _, _ := strings.Cut(r.Wrong, ":")
		c.By = []string{fmt.Sprintf("model, without %s: %s", rule, promise)}
	}
	return c
}

// watched runs seeds in a process of its own: until the planted fault is caught, or up to that one without it.
func watched(f plant.Fault, how string, from uint64) catch {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestSeedsWith$", "-test.timeout", "0")
	cmd.Env = append(os.Environ(), "KEYQUORUM_FAULT="+string(f), "KEYQUORUM_HOW="+how, fmt.Sprintf("KEYQUORUM_SEED_FROM=%d", from))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	c := outcome(out.String(), err)
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return c
}

var (
	result = regexp.MustCompile(`(?m)^result (.*)$`)
	begun  = regexp.MustCompile(`(?m)^seed (\d+)$`)
	died   = regexp.MustCompile(`(?m)^panic: (.*)$`)
	// endless are panics of the harness: something took too long.
	endless = regexp.MustCompile(`a seed takes too long|the world did not end`)
)

// outcome reads what a process said. One that died of a panic was caught by that.
func outcome(out string, failure error) (c catch) {
	if m := result.FindStringSubmatch(out); m != nil {
		c.err = json.Unmarshal([]byte(m[1]), &c)
		return c
	}
	seeds := begun.FindAllStringSubmatch(out, -1)
	panicked := died.FindStringSubmatch(out)
	if len(seeds) == 0 || panicked == nil {
		c.err = errors.Join(failure, errors.New(out[max(0, len(out)-3000):]))
		return c
	}
	c.Seeds, c.err = strconv.ParseUint(seeds[len(seeds)-1][1], 10, 64)
	if c.Stuck = endless.MatchString(panicked[1]); c.Stuck {
		c.err = errors.Join(failure, errors.New(out[:min(len(out), 20_000)]))
		return c
	}
	c.By = []string{"a member panics: " + panicked[1]}
	return c
}

// TestSeedsWith is what a process does that TestPlanted starts.
func TestSeedsWith(t *testing.T) {
	f := plant.Fault(os.Getenv("KEYQUORUM_FAULT"))
	if f == "" {
		t.Skip("it is for TestPlanted to start")
	}
	last := uint64(most)
	if n, err := strconv.ParseUint(os.Getenv("KEYQUORUM_HOW"), 10, 64); err == nil {
		last = n
	} else {
		plant.Plant(f)
	}
	from, err := strconv.ParseUint(os.Getenv("KEYQUORUM_SEED_FROM"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(patience, tooLong)
	c := catch{Seeds: last}
	for seed := from; seed <= last; seed++ {
		fmt.Printf("seed %d\n", seed)
		watchdog.Reset(patience)
		r := sim.Run(t, seed, plots[f].options)
		if by := checks(r.Violations); len(by) > 0 {
			c = catch{By: by, Seeds: seed, Story: r.Story()}
			break
		}
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("result %s\n", text)
}

// tooLong ends the process: what waits for ever in a bubble cannot be ended, and keeps its time going.
func tooLong() {
	stacks := make([]byte, 1<<16)
	panic(fmt.Sprintf("a seed takes too long\n%s", stacks[:runtime.Stack(stacks, true)]))
}

// kinds are what violations begin with, and what found them.
var kinds = []struct{ text, check string }{
	{"are not linearizable", "P1 (porcupine)"},
	{"a later change has no higher revision", "P1 (revisions)"},
	{"P1: ", "P1"},
	{"P2: ", "P2"},
	{"P3: ", "P3"},
	{"P4: ", "P4"},
	{"P5: ", "P5"},
	{"P8: ", "P8"},
	{"accepts what it has seen revoked", "P2 (in one state)"},
	{"finished a snapshot", "snapshots out of order"},
	{"went back", "a state went back"},
	{"differ", "states differ"},
	{"ended by itself", "a member ended"},
	{"settle", "does not settle"},
}

// checks gives what found the violations, each once. What a fault leaves behind in goroutines is no check of it.
func checks(violations []string) (by []string) {
	for _, v := range violations {
		line, _, _ := strings.Cut(v, "\n")
		for _, k := range kinds {
			if strings.Contains(line, k.text) {
				by = append(by, k.check)
				break
			}
		}
	}
	slices.SortFunc(by, cmp.Compare[string])
	return slices.Compact(by)
}

package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Fault is a kind of fault.
type Fault string

// The faults.
const (
	Crash        Fault = "crash"         // a process dies, and loses what was not synced
	Blackout     Fault = "blackout"      // all processes die at once
	Halves       Fault = "halves"        // the members are parted in two
	OneWay       Fault = "one-way"       // what one member sends to some others is lost
	Bridge       Fault = "bridge"        // two halves that only one member reaches
	Lone         Fault = "lone"          // one member is cut off
	Holding      Fault = "holding"       // what one member sends to another is held back, and arrives all at once
	Slow         Fault = "slow"          // links are slow
	Resets       Fault = "resets"        // connections break
	Messages     Fault = "messages"      // Raft's messages are lost, delayed, repeated and overtaken by others
	Pause        Fault = "pause"         // a member stands still while its clocks go on
	WallJump     Fault = "wall-jump"     // a wall clock is far off
	Rate         Fault = "rate"          // a monotonic clock runs fast or slow
	Restart      Fault = "restart"       // a process ends in the orderly way, and starts again
	Transfer     Fault = "transfer"      // leadership is handed over
	Replace      Fault = "replace"       // a member is removed, emptied, and added again as a new one
	Wipe         Fault = "wipe"          // a member loses its disk
	Lag          Fault = "lag"           // a member falls so far behind that it needs a snapshot
	DiskHang     Fault = "disk-hang"     // writes do not come back
	DiskFail     Fault = "disk-fail"     // writes fail
	ExpiryStorm  Fault = "expiry-storm"  // many tokens expire in the same second
	Comeback     Fault = "comeback"      // the leader dies with writes of its own; its successor's disk is slow at first
	leaderTarget       = -1              // the member that leads when a step begins
	none               = -2              // no member
	warmUp             = 2 * time.Second // without faults, at the beginning
)

// Plan is all that follows from a seed: what is set up, and the schedule of faults.
type Plan struct {
	Nodes int
	// Replicas are so many members more, which never vote.
	Replicas    int
	Mode        v1.Settings_Mode
	ForgetAfter time.Duration
	// SnapshotInterval, SnapshotThreshold and TrailingLogs are the nodes'.
	SnapshotInterval                time.Duration
	SnapshotThreshold, TrailingLogs uint64
	Users                           int
	// Duration is how long faults and workload go on.
	Duration time.Duration
	Steps    []Step
}

// Step is one fault.
type Step struct {
	Fault Fault
	// At is when it begins, and For how long it lasts.
	At, For time.Duration
	// Who is the member that it is about, by its place; leaderTarget for the one that leads. Other is a second one.
	Who, Other int
	// Side is a set of members, by their places.
	Side []int
	// By is how much, where a fault has a size.
	By time.Duration
	// Factor is a rate.
	Factor float64
	// Weather is what befalls messages.
	Weather weather
	// Apart tells that a member is cut off while it is removed, so that it does not learn of it; Moved that leadership is
	// handed over right after.
	Apart, Moved bool
}

func (s Step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%8v %-12s", s.At.Round(time.Millisecond), s.Fault)
	if s.Who != none {
		fmt.Fprintf(&b, " %s", place(s.Who))
	}
	if s.Other != none {
		fmt.Fprintf(&b, " and %s", place(s.Other))
	}
	if len(s.Side) > 0 {
		fmt.Fprintf(&b, " with")
		for _, i := range s.Side {
			fmt.Fprintf(&b, " %s", place(i))
		}
	}
	if s.By != 0 {
		fmt.Fprintf(&b, " by %v", s.By)
	}
	if s.Factor != 0 {
		fmt.Fprintf(&b, " at %.3f", s.Factor)
	}
	if s.Weather != (weather{}) {
		fmt.Fprintf(&b, " %+v", s.Weather)
	}
	if s.Apart {
		fmt.Fprint(&b, " while it is cut off")
	}
	if s.Moved {
		fmt.Fprint(&b, ", and another leads then,")
	}
	fmt.Fprintf(&b, " for %v", s.For.Round(time.Millisecond))
	return b.String()
}

func place(i int) string {
	if i == leaderTarget {
		return "the leader"
	}
	return fmt.Sprintf("n%d", i+1)
}

func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d nodes and %d replicas, mode %s, forget after %v, snapshots every %v at %d entries with %d trailing, %d users, %v\n",
		p.Nodes, p.Replicas, p.Mode, p.ForgetAfter, p.SnapshotInterval, p.SnapshotThreshold, p.TrailingLogs, p.Users, p.Duration)
	for _, s := range p.Steps {
		fmt.Fprintln(&b, s)
	}
	return b.String()
}

// NewPlan makes the plan of a seed. Options that are set overrule what it would draw.
func NewPlan(seed uint64, opts Options) Plan {
	r := source(seed, "plan")
	p := Plan{
		Nodes: 3, Mode: v1.Settings_OVERLAP, Users: 5 + r.IntN(3), Duration: time.Duration(35+r.IntN(20)) * time.Second,
		SnapshotInterval: time.Duration(1+r.IntN(4)) * time.Second, SnapshotThreshold: uint64(30 + r.IntN(200)),
		TrailingLogs: uint64(4 + r.IntN(60)),
	}
	if r.IntN(4) == 0 {
		p.Nodes = 5
	}
	if r.IntN(3) == 0 {
		p.Mode = v1.Settings_STRICT
	}
	if r.IntN(5) == 0 {
		p.ForgetAfter = time.Duration(2+r.IntN(10)) * time.Second
	}
	if opts.Nodes != 0 {
		p.Nodes = opts.Nodes
	}
	if opts.Duration != 0 {
		p.Duration = opts.Duration
	}
	p.Steps = (&planner{r: r, plan: &p, only: opts.Faults, free: make(map[string]time.Duration)}).steps()
	p.extend(seed, opts)
	return p
}

// extend adds what earlier versions did not draw, from sources of their own, so that the rest of a seed's plan stays as it was.
func (p *Plan) extend(seed uint64, opts Options) {
	r := source(seed, "replicas")
	if n := r.IntN(6); n < 2 || opts.Replicas { // two seeds in six
		p.Replicas = 1 + n%2
	}
	wanted := func(f Fault) bool { return len(opts.Faults) == 0 || slices.Contains(opts.Faults, f) }
	if p.Replicas > 0 {
		apart := []Fault{Lone, Pause, Crash, Restart}
		p.befall(r, slices.DeleteFunc(apart, func(f Fault) bool { return !wanted(f) }), func() int { return p.Nodes + r.IntN(p.Replicas) })
	}
	if r := source(seed, "restarts"); wanted(Restart) {
		p.befall(r, []Fault{Restart}, func() int { return r.IntN(p.Nodes+1) - 1 })
	}
	slices.SortStableFunc(p.Steps, func(a, b Step) int { return cmp.Compare(a.At, b.At) })
}

// befall adds steps of some faults, one after the other. None of them is of the classes that the planner keeps apart from
// what it draws itself: who they are about are others, or they leave nothing behind.
func (p *Plan) befall(r *rand.Rand, faults []Fault, who func() int) {
	if len(faults) == 0 {
		return
	}
	for at := warmUp + time.Duration(r.IntN(12_000))*time.Millisecond; ; {
		s := Step{Fault: faults[r.IntN(len(faults))], At: at, For: time.Duration(300+r.IntN(7000)) * time.Millisecond, Who: who(), Other: none}
		if at += s.For + time.Duration(8000+r.IntN(20_000))*time.Millisecond; s.At+s.For > p.Duration {
			return
		}
		p.Steps = append(p.Steps, s)
	}
}

// planner draws steps. Faults of one class never overlap, where the end of one would undo the other.
type planner struct {
	r    *rand.Rand
	plan *Plan
	only []Fault
	free map[string]time.Duration // from when on there may be another one of a class
}

// odds are how often each fault is drawn, and its class.
var odds = []struct {
	fault  Fault
	weight int
	class  string
}{
	{Crash, 14, "crash"},
	{Blackout, 2, "crash"},
	{Halves, 8, "links"},
	{OneWay, 8, "links"},
	{Bridge, 4, "links"},
	{Lone, 10, "links"},
	{Holding, 6, "links"},
	{Slow, 6, "slow"},
	{Resets, 5, ""},
	{Messages, 12, "messages"},
	{Pause, 10, "pause"},
	{WallJump, 7, "wall"},
	{Rate, 5, "rate"},
	{Transfer, 8, "transfer"},
	{Replace, 5, "links"},
	{Wipe, 3, ""},
	{Lag, 5, "links"},
	{DiskHang, 5, "disk"},
	{DiskFail, 4, "disk"},
	{ExpiryStorm, 5, "storm"},
	{Comeback, 0, "links"}, // only where it is asked for
}

// Drawn gives the faults that a plan can have unasked.
func Drawn() []Fault {
	drawn := []Fault{Restart}
	for _, o := range odds {
		if o.weight > 0 {
			drawn = append(drawn, o.fault)
		}
	}
	return drawn
}

func (p *planner) steps() []Step {
	var steps []Step
	at := warmUp
	for {
		at += time.Duration(300+p.r.IntN(4200)) * time.Millisecond
		s := p.draw(at)
		if at+s.For > p.plan.Duration {
			break
		}
		if p.admit(s) {
			steps = append(steps, s)
		}
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return cmp.Compare(a.At, b.At) })
	return steps
}

// admit tells whether the step's class is free.
func (p *planner) admit(s Step) bool {
	for _, o := range odds {
		if o.fault != s.Fault || o.class == "" {
			continue
		}
		if s.At < p.free[o.class] {
			return false
		}
		p.free[o.class] = s.At + s.For + time.Second
	}
	return true
}

// pick draws one of the faults that are wanted, by their weights.
func (p *planner) pick() Fault {
	total := 0
	for _, o := range odds {
		total += p.weight(o.fault, o.weight)
	}
	n := p.r.IntN(total)
	for _, o := range odds {
		if n -= p.weight(o.fault, o.weight); n < 0 {
			return o.fault
		}
	}
	return Crash
}

func (p *planner) weight(f Fault, usual int) int {
	if len(p.only) > 0 && !slices.Contains(p.only, f) {
		return 0
	}
	if len(p.only) > 0 {
		return max(usual, 1)
	}
	return usual
}

// draw makes a step of a fault by chance.
func (p *planner) draw(at time.Duration) Step {
	s := Step{Fault: p.pick(), At: at, For: time.Duration(500+p.r.IntN(6000)) * time.Millisecond, Who: p.who(), Other: none}
	if shape := p.shape(&s); shape != nil {
		shape()
	}
	return s
}

// shape gives what sets a step's parts that are of its fault alone.
func (p *planner) shape(s *Step) func() {
	return map[Fault]func(){
		Blackout:    func() { s.Who = none },
		Slow:        func() { s.Who, s.By = none, time.Duration(5+p.r.IntN(200))*time.Millisecond },
		ExpiryStorm: func() { s.Who = none },
		Halves:      func() { s.Side, s.For, s.Who = p.side(), s.For+3*time.Second, none },
		OneWay:      func() { s.Side = p.side() },
		Bridge:      func() { s.Who, s.Side = p.r.IntN(p.plan.Nodes), p.side() },
		Lone:        func() { s.For += time.Duration(p.r.IntN(9000)) * time.Millisecond },
		Holding:     func() { s.Other = p.r.IntN(p.plan.Nodes) },
		Resets:      func() { s.For = 0 },
		Messages:    func() { s.Who, s.Weather, s.For = none, p.weather(), s.For+2*time.Second },
		WallJump:    func() { s.By, s.For = p.jump(), s.For+3*time.Second },
		Rate:        func() { s.Factor = 0.9 + 0.2*p.r.Float64() },
		Transfer:    func() { s.Who, s.For = none, min(s.For, 2*time.Second) },
		DiskFail:    func() { s.For = min(s.For, 2*time.Second) },
		Lag:         func() { s.For += 8 * time.Second },
		Replace:     func() { s.Apart, s.Moved, s.For = p.r.IntN(3) > 0, p.r.IntN(2) == 0, s.For+2*time.Second },
		Wipe:        func() { s.For = min(s.For, 3*time.Second) },
		Pause:       func() { s.For += time.Duration(p.r.IntN(3)) * 3 * time.Second },
	}[s.Fault]
}

// jump is how far a wall clock is off.
func (p *planner) jump() time.Duration {
	by := time.Duration(600+p.r.IntN(60_000)) * time.Millisecond
	if p.r.IntN(2) == 0 {
		return -by
	}
	return by
}

// who is a member, or in three cases of ten the leader.
func (p *planner) who() int {
	if p.r.IntN(10) < 3 {
		return leaderTarget
	}
	return p.r.IntN(p.plan.Nodes)
}

// side is a part of the members, at least one, and not all.
func (p *planner) side() []int {
	all := p.r.Perm(p.plan.Nodes)
	side := all[:1+p.r.IntN(p.plan.Nodes-1)]
	slices.Sort(side)
	return side
}

func (p *planner) weather() weather {
	chance := func() float64 {
		if p.r.IntN(2) == 0 {
			return 0
		}
		return 0.02 + 0.2*p.r.Float64()
	}
	return weather{
		lose: chance() / 2, mute: chance() / 2, late: chance() / 2, delay: chance(), repeat: 0.02 + chance(),
		most: time.Duration(20+p.r.IntN(700)) * time.Millisecond,
	}
}

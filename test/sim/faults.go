package sim

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/node"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/memnet"
)

// inject carries out the schedule, and returns when all is undone.
func (w *World) inject() {
	start := time.Now()
	done := make(chan struct{})
	for _, step := range w.plan.Steps {
		if !w.sleep(time.Until(start.Add(step.At))) {
			break
		}
		go func() {
			defer func() { done <- struct{}{} }()
			w.befall(step)
		}()
	}
	for range w.plan.Steps {
		<-done
	}
}

// befall carries out one step, and counts it if it bit.
func (w *World) befall(s Step) {
	w.upsetting(1)
	defer w.upsetting(-1)
	w.note("begins: %v", s)
	proof := w.carryOut(s)
	w.mu.Lock()
	w.tried[s.Fault]++
	if proof != "" {
		w.bites[s.Fault]++
	}
	w.mu.Unlock()
	w.note("ends: %s (%s)", s.Fault, proof)
}

func (w *World) upsetting(by int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults += by
	w.upset = time.Now()
}

// peace gives for how long there has been no fault; false while there is one.
func (w *World) peace() (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.upset), w.faults == 0
}

// carryOut carries out a step, undoes it, and gives the proof that it bit; empty if it did not.
func (w *World) carryOut(s Step) string {
	return map[Fault]func(Step) string{
		Crash: w.crash, Blackout: w.blackout,
		Halves: w.halves, OneWay: w.oneWay, Bridge: w.bridge, Lone: w.lone,
		Holding: w.holding, Slow: w.slow, Resets: w.resets, Messages: w.messages,
		Pause: w.pause, WallJump: w.wallJump, Rate: w.rate,
		Transfer: w.transfer, Restart: w.restart, Replace: w.replace, Wipe: w.wipe, Lag: w.lag,
		DiskHang: w.diskHang, DiskFail: w.diskFail, ExpiryStorm: w.expiryStorm,
		Comeback: w.comeback,
	}[s.Fault](s)
}

// member finds who a step is about.
func (w *World) member(place int) *member {
	if place != leaderTarget {
		return w.members[place]
	}
	if m := w.leader(); m != nil {
		return m
	}
	return w.members[0]
}

// missed tells that others went on without a member.
func (w *World) missed(m *member, before uint64) string {
	for _, other := range w.members {
		if other != m && other.position() > before {
			return fmt.Sprintf("it missed %d entries", other.position()-before)
		}
	}
	return ""
}

func (w *World) crash(s Step) string {
	m := w.member(s.Who)
	led, before := m.leads(), m.position()
	lost, _, _ := m.disk.counts()
	if !m.crash() {
		m.start()
		return ""
	}
	w.sleep(s.For)
	proof := w.missed(m, before)
	if after, _, _ := m.disk.counts(); after > lost {
		proof += fmt.Sprintf(" %d writes were lost", after-lost)
	}
	if leader := w.leader(); led && leader != nil && leader != m {
		proof += " another leads"
	}
	m.start()
	return proof
}

func (w *World) blackout(s Step) string {
	leader := w.leader()
	for _, m := range w.members {
		m.crash()
	}
	w.sleep(s.For)
	for _, m := range w.members {
		m.start()
	}
	if leader == nil || !w.await(10*time.Second, func() bool { return w.leader() != nil }) {
		return ""
	}
	return "a leader was elected anew"
}

// traffic carries out a change of the links, undoes it, and gives what it did.
func (w *World) traffic(s Step, change, undo func(), proof func(before, after memnet.Traffic) string) string {
	before := w.net.Traffic()
	change()
	w.sleep(s.For)
	undo()
	return proof(before, w.net.Traffic())
}

func dropped(before, after memnet.Traffic) string {
	if after.Dropped == before.Dropped {
		return ""
	}
	return fmt.Sprintf("%d bytes were dropped", after.Dropped-before.Dropped)
}

// mend undoes cuts and holds between members.
func (w *World) mend() {
	for i, a := range w.members {
		w.net.Rejoin(a.host)
		for _, b := range w.members[:i] {
			w.net.HealLink(a.host, b.host)
		}
	}
}

// parted calls f with each member of the side, and each other one.
func (w *World) parted(side []int, f func(in, out *member)) {
	in := make(map[int]bool)
	for _, i := range side {
		in[i] = true
	}
	for i, a := range w.members {
		for j, b := range w.members {
			if in[i] && !in[j] {
				f(a, b)
			}
		}
	}
}

func (w *World) halves(s Step) string {
	return w.traffic(s, func() {
		w.parted(s.Side, func(a, b *member) { w.net.Cut(a.host, b.host) })
	}, w.mend, dropped)
}

func (w *World) oneWay(s Step) string {
	m := w.member(s.Who)
	return w.traffic(s, func() {
		for _, i := range s.Side {
			if to := w.members[i]; to != m {
				w.net.CutOneWay(m.host, to.host)
			}
		}
	}, w.mend, dropped)
}

func (w *World) bridge(s Step) string {
	m := w.member(s.Who)
	return w.traffic(s, func() {
		w.parted(s.Side, func(a, b *member) {
			if a != m && b != m {
				w.net.Cut(a.host, b.host)
			}
		})
	}, w.mend, dropped)
}

func (w *World) lone(s Step) string {
	m := w.member(s.Who)
	undo := w.mend
	if m.replica { // what befalls voters meanwhile goes on
		undo = func() { w.join(m) }
	}
	return w.traffic(s, func() { w.cutOff(m) }, undo, dropped)
}

func (w *World) holding(s Step) string {
	a, b := w.member(s.Who), w.member(s.Other)
	if a == b {
		return ""
	}
	return w.traffic(s, func() { w.net.HoldOneWay(a.host, b.host) }, w.mend, func(before, after memnet.Traffic) string {
		if after.Held == before.Held {
			return ""
		}
		return fmt.Sprintf("%d bytes were held back", after.Held-before.Held)
	})
}

func (w *World) slow(s Step) string {
	set := func(d time.Duration) {
		w.slowed.Store(int64(d))
		for i, a := range w.members {
			for _, b := range w.members[:i] {
				w.net.Delay(a.host, b.host, d)
			}
		}
	}
	return w.traffic(s, func() { set(s.By) }, func() { set(0) }, func(before, after memnet.Traffic) string {
		if after.Slowed == before.Slowed {
			return ""
		}
		return fmt.Sprintf("%d writes were slow", after.Slowed-before.Slowed)
	})
}

func (w *World) resets(s Step) string {
	m := w.member(s.Who)
	return w.traffic(s, func() {
		for _, other := range w.members {
			w.net.Reset(m.host, other.host)
		}
	}, func() {}, func(before, after memnet.Traffic) string {
		if after.Reset == before.Reset {
			return ""
		}
		return fmt.Sprintf("%d connections broke", after.Reset-before.Reset)
	})
}

func (w *World) messages(s Step) string {
	before := w.sky.hits.Load()
	w.sky.now.Store(&s.Weather)
	w.sleep(s.For)
	w.sky.now.Store(nil)
	if hits := w.sky.hits.Load() - before; hits > 0 {
		return fmt.Sprintf("%d messages were hit", hits)
	}
	return ""
}

func (w *World) pause(s Step) string {
	m := w.member(s.Who)
	led, before := m.leads(), m.position()
	if m.process() == nil {
		return ""
	}
	m.pause()
	w.sleep(s.For)
	proof := w.missed(m, before)
	if leader := w.leader(); led && leader != nil && leader != m {
		proof += " another leads"
	}
	wait := w.greet(m)
	time.Sleep(time.Millisecond) // until they have asked
	m.resume()
	wait()
	return proof
}

// wallJump puts a wall clock off. At most a minority is off at a time: steps of this kind do not overlap.
func (w *World) wallJump(s Step) string {
	m := w.member(s.Who)
	was := m.clocks.jump(s.By)
	w.sleep(s.For)
	proof := ""
	if l := m.process(); l != nil {
		if res, err := l.node.Status(context.Background()); err == nil && res.GetClock().GetOffset() != nil {
			if offset := res.GetClock().GetOffset().AsDuration(); offset.Abs() > 400*time.Millisecond {
				proof = fmt.Sprintf("it found its own clock off by %v", offset)
			}
		}
	}
	m.clocks.jump(was)
	return proof
}

// rate has a clock run faster or slower than it did.
func (w *World) rate(s Step) string {
	m := w.member(s.Who)
	was := m.clocks.run(s.Factor)
	start, mono := time.Now(), m.clocks.Mono()
	w.sleep(s.For)
	passed := time.Since(start)
	drift := m.clocks.Mono() - mono - time.Duration(was*float64(passed))
	if drift.Abs() > 50*time.Millisecond {
		return fmt.Sprintf("its clock shows %v more than it would have", drift)
	}
	return ""
}

func (w *World) transfer(s Step) string {
	leader := w.leader()
	if leader == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_, _, err := direct(ctx, leader, func(ctx context.Context, n *node.Node) (*v1.TransferLeadershipResponse, error) {
		return n.TransferLeadership(ctx, caller, &v1.TransferLeadershipRequest{})
	})
	if err != nil {
		w.note("transfer: %v", err)
	}
	w.await(s.For, func() bool { next := w.leader(); return next != nil && next != leader })
	if next := w.leader(); next != nil && next != leader {
		return next.host + " leads"
	}
	return ""
}

// staffed tells whether all serve that are to vote, and vote. Replicas are not needed for that.
func (w *World) staffed() bool { return w.unstaffed(w.members[:w.plan.Nodes]) == "" }

// staffing is how long a loss for good waits for that.
const staffing = 4 * time.Second

// replace removes a member for good, and lets the machine come back as a new one.
func (w *World) replace(s Step) string {
	if !w.losing.CompareAndSwap(false, true) {
		return ""
	}
	defer w.losing.Store(false)
	m, leader := w.member(s.Who), w.leader()
	if leader == nil || !w.await(staffing, w.staffed) {
		return ""
	}
	id := m.identity()
	if s.Apart && m != leader {
		w.cutOff(m)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, _, err := direct(ctx, leader, func(ctx context.Context, n *node.Node) (*v1.RemoveResponse, error) {
		return n.Remove(ctx, caller, &v1.RemoveRequest{Node: id})
	})
	if err != nil {
		w.note("remove %s: %v", m.host, err)
		m.doubtful.Store(true)
		w.mend()
		return ""
	}
	if s.Moved {
		w.transfer(Step{For: time.Second})
	}
	w.sleep(s.For)
	w.mend()
	return w.renew(m, id)
}

// cutOff cuts a member off from all others.
func (w *World) cutOff(m *member) {
	for _, other := range w.members {
		if other != m {
			w.net.Cut(m.host, other.host)
		}
	}
}

// join mends a member's links.
func (w *World) join(m *member) {
	for _, other := range w.members {
		if other != m {
			w.net.HealLink(m.host, other.host)
		}
	}
}

// restart ends a process in the orderly way, and starts another.
func (w *World) restart(s Step) string {
	m := w.member(s.Who)
	led, begun := m.leads(), time.Now()
	l := m.retire()
	if l == nil || !w.await(15*time.Second, func() bool { return m.process() != l }) || !l.retired.Load() {
		m.start()
		return ""
	}
	took := time.Since(begun)
	proof := fmt.Sprintf("it ended in %v", took.Round(time.Millisecond))
	w.sleep(s.For)
	if leader := w.leader(); led && leader != nil && leader != m {
		proof += ", another leads"
	}
	m.start()
	if !w.await(5*time.Second, m.ready) {
		return ""
	}
	return proof
}

// renew brings a machine back with nothing on its disk, and waits until it is a member anew.
func (w *World) renew(m *member, old string) string {
	m.empty()
	m.start()
	if !w.await(15*time.Second, func() bool { return m.ready() && m.position() > 0 && w.knows(m) }) {
		return ""
	}
	if v := m.view(); v == nil || !v.Removed(old) {
		return ""
	}
	return "it is a new member"
}

// knows tells whether the member's own state has a record of it.
func (w *World) knows(m *member) bool {
	v := m.view()
	if v == nil {
		return false
	}
	_, ok := v.Member(m.identity())
	return ok
}

// wipe takes a disk away while all is well otherwise: a second one would be more than a quorum can bear.
func (w *World) wipe(s Step) string {
	if !w.losing.CompareAndSwap(false, true) {
		return ""
	}
	defer w.losing.Store(false)
	if !w.await(staffing, w.staffed) {
		return ""
	}
	m := w.member(s.Who)
	id := m.identity()
	m.crash()
	w.sleep(s.For)
	return w.renew(m, id)
}

// lag cuts a member off while the others write more than their logs keep.
func (w *World) lag(s Step) string {
	m := w.member(s.Who)
	before := w.sky.installed.Load()
	w.cutOff(m)
	end := time.Now().Add(s.For)
	for i := 0; time.Now().Before(end) && w.sleep(30*time.Millisecond); i++ {
		w.filler(fmt.Sprintf("lag-%d", i%20), 30*time.Second)
	}
	w.mend()
	w.await(5*time.Second, func() bool { return w.sky.installed.Load() > before })
	if n := w.sky.installed.Load() - before; n > 0 {
		return fmt.Sprintf("%d snapshots were installed", n)
	}
	return ""
}

// filler issues a token beside the history.
func (w *World) filler(user string, ttl time.Duration) bool {
	leader := w.leader()
	if leader == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _, err := direct(ctx, leader, func(ctx context.Context, n *node.Node) (*v1.IssueResponse, error) {
		return n.Issue(ctx, caller, &v1.IssueRequest{Subject: user, Ttl: durationpb.New(ttl)})
	})
	return err == nil
}

func (w *World) diskHang(s Step) string {
	m := w.member(s.Who)
	_, before, _ := m.disk.counts()
	m.mu.Lock()
	ends := m.ownEnds
	m.mu.Unlock()
	m.disk.hold()
	w.sleep(s.For)
	m.disk.release()
	m.mu.Lock()
	ends = m.ownEnds - ends
	m.mu.Unlock()
	switch _, after, _ := m.disk.counts(); {
	case ends > 0:
		return "the watchdog ended it"
	case after > before:
		return fmt.Sprintf("%d writes hung", after-before)
	}
	return ""
}

func (w *World) diskFail(s Step) string {
	m := w.member(s.Who)
	_, _, before := m.disk.counts()
	m.disk.fail(true)
	w.sleep(s.For)
	m.disk.fail(false)
	if _, _, after := m.disk.counts(); after > before {
		return fmt.Sprintf("%d writes failed", after-before)
	}
	return ""
}

// stormUsers is how many users have a token that expires in the same second.
const stormUsers = 60

func (w *World) expiryStorm(Step) string {
	issued := make(chan bool, stormUsers)
	expires := time.Now().Truncate(time.Second).Add(3 * time.Second)
	for i := range stormUsers {
		go func() { issued <- w.filler(fmt.Sprintf("storm-%d", i), time.Until(expires)) }()
	}
	n := 0
	for range stormUsers {
		if <-issued {
			n++
		}
	}
	w.sleep(time.Until(expires.Add(2500 * time.Millisecond)))
	leader := w.leader()
	if leader == nil || n < stormUsers/2 {
		return ""
	}
	v := leader.view()
	if v == nil {
		return ""
	}
	rotated := 0
	for i := range stormUsers {
		if u, ok := v.User(fmt.Sprintf("storm-%d", i)); ok && u.Active.Earliest == 0 && u.Active.Created >= expires.Add(-time.Second).UnixMilli() {
			rotated++
		}
	}
	if rotated < n/2 {
		return ""
	}
	return fmt.Sprintf("%d keys were rotated", rotated)
}

// comeback has the leader die with writes that got no further than its own disk. Its successor's disk takes long with the
// entry that begins the term, so that messages to the dead one wait for longer and longer until they are tried again; it
// comes back as soon as that entry is written.
func (w *World) comeback(s Step) string {
	m := w.leader()
	if m == nil || !w.staffed() {
		return ""
	}
	last := m.disk.last()
	w.cutOff(m)
	w.sleep(300 * time.Millisecond)
	if !m.crash() {
		w.mend()
		return ""
	}
	written := make(chan struct{})
	w.stumble.Store(&stumble{length: 600*time.Millisecond + s.For/8, written: written})
	w.mend()
	select {
	case <-written:
	case <-time.After(10 * time.Second):
	}
	w.stumble.Store(nil)
	w.sleep(5 * time.Millisecond) // until another has it
	alone := m.disk.last() - last
	m.start()
	w.sleep(3 * time.Second)
	if alone == 0 {
		return ""
	}
	return fmt.Sprintf("%d entries were on its disk alone", alone)
}

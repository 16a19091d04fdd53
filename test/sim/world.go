package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/memnet"
)

// World is one simulated cluster with its machines, network, callers and faults.
type World struct {
	seed    uint64
	opts    Options
	plan    Plan
	net     *memnet.Net
	sky     *sky
	keyring *seal.Keyring
	log     *slog.Logger
	members []*member
	history *history
	timely  timely
	books   []*book
	began   time.Time
	lasted  time.Duration
	// slowed is how long links take one way.
	slowed atomic.Int64
	// stumble is the slow write that is to come; nil for none.
	stumble atomic.Pointer[stumble]
	// losing is set while a member is lost for good: two of three at once are more than a cluster can bear.
	losing atomic.Bool
	// excused tells that the goroutines that are left are a library's known ones.
	excused bool

	// over ends what goes on by itself; running is all of it.
	over    atomic.Bool
	ending  chan struct{}
	running sync.WaitGroup

	mu         sync.Mutex
	violations []string
	notes      []string
	bites      map[Fault]int
	tried      map[Fault]int
	// upset is when a fault was last under way.
	upset time.Time
	// faults counts those that are under way.
	faults int
}

var caller = rpc.Caller{Actor: "sim", Source: "127.0.0.1", Node: "sim"}

func newWorld(seed uint64, opts Options, keyring *seal.Keyring) *World {
	w := &World{
		seed: seed, opts: opts, net: memnet.New(), sky: &sky{wires: make(map[raft.ServerID]*wire)},
		keyring: keyring, log: quiet, history: &history{}, began: time.Now(), ending: make(chan struct{}),
		bites: make(map[Fault]int), tried: make(map[Fault]int),
	}
	if opts.Logger != nil {
		w.log = opts.Logger
	}
	w.plan = NewPlan(seed, opts)
	for i := range w.plan.Nodes + w.plan.Replicas {
		m := w.newMember(fmt.Sprintf("n%d", i+1))
		m.replica = i >= w.plan.Nodes
		w.members = append(w.members, m)
	}
	return w
}

// random gives a source of its own for each purpose, so that what one draws does not change what others get.
func (w *World) random(purpose string) *rand.Rand { return source(w.seed, purpose) }

func source(seed uint64, purpose string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(purpose))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// at gives the time since the world began.
func (w *World) at() time.Duration { return time.Since(w.began).Round(time.Millisecond) }

// violation notes that a promise was broken.
func (w *World) violation(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, fmt.Sprintf("%v: ", w.at())+fmt.Sprintf(format, args...))
}

// note remembers what happened, for who looks into a failure.
func (w *World) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes = append(w.notes, fmt.Sprintf("%v: ", w.at())+fmt.Sprintf(format, args...))
}

// sleep waits; false if the world ends first.
func (w *World) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.ending:
		return false
	}
}

// await waits until ok, for at most d.
func (w *World) await(d time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(d); !ok(); {
		if time.Now().After(deadline) || !w.sleep(20*time.Millisecond) {
			return false
		}
	}
	return true
}

// leader gives a member that leads; nil if none does.
func (w *World) leader() *member {
	for _, m := range w.members {
		if m.leads() {
			return m
		}
	}
	return nil
}

// found starts all members and founds the cluster at the first.
func (w *World) found() bool {
	for _, m := range w.members {
		m.start()
	}
	wanted := uint32(w.plan.Nodes)
	settings := &v1.Settings{
		Mode: w.plan.Mode, WantedVoters: &wanted, MinTtl: durationpb.New(time.Second),
		ForgetAfter: durationpb.New(w.plan.ForgetAfter),
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := w.members[0].process().node.Init(ctx, caller, &v1.InitRequest{Settings: settings}); err != nil {
		w.violation("the cluster could not be founded: %v", err)
		return false
	}
	if !w.await(2*time.Minute, w.settled) {
		w.violation("the new cluster did not settle: %s", w.unsettled())
		return false
	}
	return true
}

// settled tells whether all members serve, vote, and have applied the same log.
func (w *World) settled() bool { return w.unsettled() == "" }

// unsettled says what is missing.
func (w *World) unsettled() string {
	if missing := w.unstaffed(w.members); missing != "" {
		return missing
	}
	for _, m := range w.members[1:] {
		if first := w.members[0]; m.position() != first.position() {
			return fmt.Sprintf("%s has applied %d, %s %d", m.host, m.position(), first.host, first.position())
		}
	}
	return ""
}

// unstaffed says what keeps these members from all serving and voting, as each of them knows it. hashicorp/raft gives no vote
// to who is no voter in the configuration that the voter itself has: until all have heard of a new one, the loss of who
// made it one, for good, can leave a majority that elects nobody.
func (w *World) unstaffed(members []*member) string {
	if w.leader() == nil {
		return "nobody leads"
	}
	for _, m := range members {
		l := m.process()
		if l == nil {
			return m.host + " is down"
		}
		if err := l.node.Ready(); err != nil {
			return fmt.Sprintf("%s is not ready: %v", l.name, err)
		}
		res, err := l.node.Members(context.Background())
		if err != nil {
			return err.Error()
		}
		voters, known := 0, len(res.GetMembers())
		for _, m := range res.GetMembers() {
			if m.GetRole() == v1.Member_VOTER {
				voters++
			}
		}
		if voters != w.plan.Nodes || known != len(w.members) {
			return fmt.Sprintf("%d of %d members vote, as %s knows it", voters, known, m.host)
		}
	}
	return ""
}

// calm undoes all faults.
func (w *World) calm() {
	w.net.Heal()
	w.sky.now.Store(nil)
	for _, m := range w.members {
		m.disk.fail(false)
		m.start()
	}
}

// readmit does what a member asks for that finds itself removed, where nobody had been told whether it was: it is emptied,
// and joins anew.
func (w *World) readmit() {
	for _, m := range w.members {
		if l := m.process(); l != nil && m.doubtful.Load() && errors.Is(l.node.Ready(), fault.ErrRemoved) {
			m.doubtful.Store(false)
			m.empty()
			m.start()
		}
	}
}

// compare compares the members' states, byte for byte; false where they are not at one position.
func (w *World) compare() bool {
	var views []*fsm.View
	for _, m := range w.members {
		v := m.view()
		if v == nil || len(views) > 0 && v.Position() != views[0].Position() {
			return false
		}
		views = append(views, v)
	}
	var first bytes.Buffer
	for i, v := range views {
		var b bytes.Buffer
		if err := v.WriteSnapshot(&b); err != nil {
			w.violation("the state of %s: %v", w.members[i].host, err)
		}
		if i == 0 {
			first = b
		} else if !bytes.Equal(first.Bytes(), b.Bytes()) {
			w.violation("the states of %s and %s at position %d differ", w.members[0].host, w.members[i].host, v.Position())
		}
	}
	return true
}

func bounded(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// stop ends all members in the orderly way, and what else goes on.
func (w *World) stop() {
	w.over.Store(true)
	close(w.ending)
	for _, m := range w.members {
		m.shutdown()
	}
	w.running.Wait()
}

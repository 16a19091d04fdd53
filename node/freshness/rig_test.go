package freshness_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node/freshness"
)

var bound = fsm.DefaultSettings().MaxStaleness

// machine is what a node's clocks show, in terms of the bubble's time, by which timers run.
type machine struct {
	mu    sync.Mutex
	start time.Time
	// rate is that of both clocks; asleep is what both gained while the timers stood still, jump what the wall clock was set by.
	rate         float64
	asleep, jump time.Duration
}

func newMachine() *machine { return &machine{start: time.Now(), rate: 1} }

func (m *machine) passed() time.Duration {
	return time.Duration(float64(time.Since(m.start))*m.rate) + m.asleep
}

func (m *machine) mono() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.passed()
}

func (m *machine) wall() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.start.Add(m.passed() + m.jump)
}

func (m *machine) change(how func(*machine)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	how(m)
}

// log is the cluster's, and a state machine that applies it.
type log struct {
	t   testing.TB
	fsm *fsm.FSM

	mu      sync.Mutex
	entries [][]byte
	applied int
	// behind is set while entries wait for catchUp.
	behind bool
}

// newLog is of a founded cluster with these members.
func newLog(t testing.TB, members ...string) *log {
	l := &log{t: t, fsm: fsm.New(fsm.Config{OnHalt: func(err error) { t.Error(err) }})}
	l.append(fsm.Found{ClusterID: "c", Settings: fsm.DefaultSettings(), KeyringCheck: []byte("check")})
	for _, id := range members {
		l.join(id)
	}
	return l
}

func (l *log) join(id string) {
	l.append(fsm.PutMember{Member: fsm.Member{ID: id, Name: id, RPCAddress: id + ":1", RaftAddress: id + ":2", Format: fsm.Format}})
}

// append commits a command, and gives what applying it came to; nothing but its position where it has to wait.
func (l *log) append(op fsm.Op) fsm.Result {
	data, err := fsm.EncodeEntry(fsm.Entry{Commands: []fsm.Command{{Op: op}}})
	if err != nil {
		l.t.Error(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, data)
	if l.behind {
		return fsm.Result{Position: uint64(len(l.entries))}
	}
	return l.apply()
}

func (l *log) apply() (last fsm.Result) {
	for ; l.applied < len(l.entries); l.applied++ {
		entry := &raft.Log{Index: uint64(l.applied + 1), Type: raft.LogCommand, Data: l.entries[l.applied]}
		last = l.fsm.Apply(entry).([]fsm.Result)[0]
	}
	if last.Err != nil {
		l.t.Errorf("entry %d: %v", l.applied, last.Err)
	}
	return last
}

func (l *log) fallBehind() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.behind = true
}

func (l *log) catchUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.behind = false
	l.apply()
}

// restore puts the state of the log's first n entries in place of the present one.
func (l *log) restore(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	other := &log{t: l.t, fsm: fsm.New(fsm.Config{}), entries: l.entries[:n]}
	other.apply()
	var snapshot bytes.Buffer
	if err := other.fsm.View().WriteSnapshot(&snapshot); err != nil {
		l.t.Error(err)
	}
	if err := l.fsm.Restore(io.NopCloser(&snapshot)); err != nil {
		l.t.Error(err)
	}
	l.applied = n
}

func (l *log) length() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

// question is one that the node asked.
type question struct {
	at     time.Duration // since the start
	waited bool
}

// rig is a node's Freshness, and a leader whose answers the test gives.
type rig struct {
	*freshness.Freshness
	*log
	machine *machine
	start   time.Time
	stop    func()

	mu        sync.Mutex
	questions []question
	// answer is what comes of a question.
	answer func(ctx context.Context, waited bool) (uint64, error)
}

// newRig makes a rig whose leader answers at once. It does not run.
func newRig(t testing.TB) *rig {
	r := &rig{log: newLog(t, "a", "b"), machine: newMachine(), start: time.Now()}
	r.answer = r.commit
	r.Freshness = freshness.New(freshness.Config{
		State: r.fsm.State, Wait: r.fsm.Wait, Tick: r.ask, Mono: r.machine.mono, Wall: r.machine.wall,
	})
	return r
}

// run runs the rounds until the test ends, or stop is called.
func (r *rig) run(t *testing.T) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// commit answers with the position of a tick.
func (r *rig) commit(context.Context, bool) (uint64, error) {
	return r.append(fsm.Tick{}).Position, nil
}

func (r *rig) ask(ctx context.Context, waited bool) (uint64, error) {
	r.mu.Lock()
	r.questions = append(r.questions, question{time.Since(r.start), waited})
	answer := r.answer
	r.mu.Unlock()
	return answer(ctx, waited)
}

func (r *rig) answers(how func(ctx context.Context, waited bool) (uint64, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = how
}

func (r *rig) asked() []question {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]question(nil), r.questions...)
}

func noLeader(context.Context, bool) (uint64, error) { return 0, fault.ErrNoLeader }

func silence(ctx context.Context, _ bool) (uint64, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func (r *rig) age() string {
	age, proved := r.Age(r.fsm.State())
	if !proved {
		return "unproved"
	}
	return age.String()
}

// wants checks how old the state is.
func (r *rig) wants(t *testing.T, want string) {
	t.Helper()
	if got := r.age(); got != want {
		t.Errorf("age %s, want %s", got, want)
	}
}

// pass lets virtual time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// call does something that takes its time, and tells what came of it.
func call(do func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	synctest.Wait()
	return done
}

// ended gives what came of a call, at this moment.
func ended(done <-chan error) (err error, ok bool) { //nolint:revive // reads like a receive
	synctest.Wait()
	select {
	case err := <-done:
		return err, true
	default:
		return nil, false
	}
}

func waits(t *testing.T, done <-chan error) {
	t.Helper()
	if err, ok := ended(done); ok {
		t.Errorf("it should wait, and ended with %v", err)
	}
}

func succeeded(t *testing.T, done <-chan error) {
	t.Helper()
	if err, ok := ended(done); !ok || err != nil {
		t.Errorf("it should have succeeded: ended %v, %v", ok, err)
	}
}

func (r *rig) round(t *testing.T, urgent bool) <-chan error {
	t.Helper()
	return call(func() error { return r.Round(t.Context(), urgent) })
}

func (q question) String() string { return fmt.Sprintf("%v (waited %v)", q.at, q.waited) }

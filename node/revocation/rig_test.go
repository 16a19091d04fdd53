package revocation_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/node/revocation"
)

const (
	bound  = 5 * time.Second // fsm.DefaultSettings().MaxStaleness
	window = bound + bound/4
)

var errUnreachable = errors.New("unreachable")

// peer is a member as the leader sees it.
type peer struct {
	// silent peers do not answer until heard is closed; failing ones answer with an error.
	silent  bool
	heard   chan struct{}
	failing bool

	asked, inFlight, most int
}

// rig is a node's Revocation, its log, its clock and the other members.
type rig struct {
	*revocation.Revocation
	cfg revocation.Config
	t   testing.TB
	fsm *fsm.FSM

	mu      sync.Mutex
	index   uint64
	start   time.Time
	rate    float64       // of Mono, for a second of the timers
	zero    time.Duration // what Mono shows at the start
	atMost  time.Duration // where Mono stands still; 0 for nowhere
	reading func()        // runs once when Mono has been read, before the reader goes on
	peers   map[string]*peer
	nudges  int
	leading bool
	heard   map[string]time.Duration // from when on members are waited out; nil where this node does not know
	forgets []time.Duration          // when it was proposed to forget somebody, since the start
}

// newRig is of a founded cluster of nodes a, which is this one, b and c.
func newRig(t testing.TB) *rig {
	r := &rig{t: t, fsm: fsm.New(fsm.Config{OnHalt: func(err error) { t.Error(err) }}), start: time.Now(), rate: 1, peers: make(map[string]*peer)}
	r.append(fsm.Found{ClusterID: "c", Settings: fsm.DefaultSettings(), KeyringCheck: []byte("check")})
	for _, id := range []string{"a", "b", "c"} {
		r.append(fsm.PutMember{Member: fsm.Member{ID: id, Name: id, RPCAddress: id + ":1", RaftAddress: id + ":2", Format: fsm.Format}})
		r.peers[id] = &peer{heard: make(chan struct{})}
	}
	r.cfg = revocation.Config{
		Self: "a", State: r.fsm.State, Mono: r.mono, Applied: r.applied, Heard: r.lastHeard, Propose: r.propose, Nudge: r.nudge,
		Leading: func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.leading },
	}
	r.Revocation = revocation.New(r.cfg)
	return r
}

// run has the node look after the former members until the test ends.
func (r *rig) run(t *testing.T) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

// restart has the node start anew, on the state that it has.
func (r *rig) restart() { r.Revocation = revocation.New(r.cfg) }

// append commits a command and applies it.
func (r *rig) append(op fsm.Op) fsm.Result {
	data, err := fsm.EncodeEntry(fsm.Entry{Commands: []fsm.Command{{Op: op}}})
	if err != nil {
		r.t.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	return r.fsm.Apply(&raft.Log{Index: r.index, Type: raft.LogCommand, Data: data}).([]fsm.Result)[0]
}

// restore puts a state of before in place of the present one.
func (r *rig) restore(before *fsm.View) {
	var snapshot bytes.Buffer
	if err := before.WriteSnapshot(&snapshot); err != nil {
		r.t.Error(err)
	}
	if err := r.fsm.Restore(io.NopCloser(&snapshot)); err != nil {
		r.t.Error(err)
	}
}

// revoke deletes a user who is not there: that is refused, and has to hold everywhere like any other.
func (r *rig) revoke() fsm.Result { return r.append(fsm.Delete{Subject: "ada"}) }

func (r *rig) settle(ctx context.Context) (revocation.Finality, error) {
	return r.Settle(ctx, r.revoke())
}

func (r *rig) propose(_ context.Context, cmd fsm.Command) (fsm.Result, error) {
	r.mu.Lock()
	r.forgets = append(r.forgets, time.Since(r.start))
	r.mu.Unlock()
	res := r.append(cmd.Op)
	return res, res.Err
}

func (r *rig) nudge() { r.set(func() { r.nudges++ }) }

func (r *rig) mono() time.Duration {
	r.mu.Lock()
	now := r.zero + time.Duration(float64(time.Since(r.start))*r.rate)
	if r.atMost != 0 {
		now = min(now, r.atMost)
	}
	reading := r.reading
	r.reading = nil
	r.mu.Unlock()
	if reading != nil {
		reading()
	}
	return now
}

// applied answers as the peer does.
func (r *rig) applied(ctx context.Context, member fsm.Member, position uint64) (uint64, error) {
	r.mu.Lock()
	p := r.peers[member.ID]
	p.asked++
	p.inFlight++
	p.most = max(p.most, p.inFlight)
	silent, failing := p.silent, p.failing
	r.mu.Unlock()
	defer r.set(func() { p.inFlight-- })
	switch {
	case failing:
		return 0, errUnreachable
	case silent:
		select {
		case <-p.heard:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return max(position, r.fsm.View().Position()), nil
}

func (r *rig) lastHeard(member string) (time.Duration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.heard[member]
	return at, ok
}

func (r *rig) set(how func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	how()
}

func (r *rig) forgotten() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]time.Duration(nil), r.forgets...)
}

// lasts checks that a revocation comes to want, and how long it takes by the node's clock: strictly more than least, and
// not much longer, as timers may be a tenth slower.
func (r *rig) lasts(t *testing.T, least time.Duration, want revocation.Finality) {
	t.Helper()
	begun := r.mono()
	got, err := r.settle(t.Context())
	took := r.mono() - begun
	if err != nil || got != want || took <= least || took > least+least/10+time.Millisecond {
		t.Errorf("it came to %+v, %v after %v; want %+v after more than %v", got, err, took, want, least)
	}
}

// pass lets virtual time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

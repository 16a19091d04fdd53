package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/boltstore"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/plant"
	"github.com/keyquorum/keyquorum/node"
	"github.com/keyquorum/keyquorum/node/auditing"
	"github.com/keyquorum/keyquorum/node/raftnet"
)

// syncLimit is how long a disk may hang before the watchdog ends the process, as in production.
const syncLimit = 2 * time.Second

// member is a machine: what stays while its process comes and goes.
type member struct {
	world *World
	host  string
	disk  *disk
	// audit has the audit records, replaced where the disk is emptied.
	audit  *auditing.Memory
	clocks *clocks
	// replica members never vote.
	replica bool
	// doubtful is set where a removal may have happened, and nobody was told.
	doubtful atomic.Bool

	mu sync.Mutex
	// rng is of what happens here.
	rng *rand.Rand
	// id is the identity that the disk has.
	id   string
	life *life
	// starting is set while a process is being started.
	starting bool
	// down keeps a process that ended from being started anew.
	down bool
	// resumed is closed when a pause ends; nil where there is none.
	resumed chan struct{}
	// lives counts the processes, ownEnds those that ended by themselves.
	lives, ownEnds int
}

// life is one process.
type life struct {
	id, name string
	node     *node.Node
	mount    *mount
	ctx      context.Context //nolint:containedctx // it ends with the process, as calls to it do
	kill     context.CancelFunc
	dead     atomic.Bool
	// stop ends it in the orderly way. retiring is set when that was asked for, retired when it has come about.
	stop              context.CancelFunc
	retiring, retired atomic.Bool
}

func (w *World) newMember(host string) *member {
	m := &member{
		world: w, host: host, id: uuid.NewString(), rng: w.random("member " + host),
		disk:   newDisk(w.random("disk " + host)),
		audit:  new(auditing.Memory),
		clocks: &clocks{rate: 1, since: time.Now()},
	}
	m.disk.slow = w.linger
	m.disk.lazy = plant.On(plant.LostSync)
	m.clocks.run(0.9 + 0.2*m.rng.Float64())
	m.clocks.jump(m.drift())
	return m
}

// drift is how far a wall clock that is right is off.
func (m *member) drift() time.Duration {
	return time.Duration(m.rng.IntN(300)-150) * time.Millisecond
}

// process gives the process that runs; nil if none does.
func (m *member) process() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

// view gives the state of the process; nil if none runs.
func (m *member) view() *fsm.View {
	if l := m.process(); l != nil {
		return l.node.View()
	}
	return nil
}

// leads tells whether the member's process leads.
func (m *member) leads() bool {
	l := m.process()
	return l != nil && l.node.Leading()
}

// ready tells whether the member's process serves.
func (m *member) ready() bool {
	l := m.process()
	return l != nil && l.node.Ready() == nil
}

func (m *member) position() uint64 {
	if v := m.view(); v != nil {
		return v.Position()
	}
	return 0
}

// start starts a process, unless one runs.
func (m *member) start() {
	m.mu.Lock()
	if m.life != nil || m.starting || m.world.over.Load() {
		m.mu.Unlock()
		return
	}
	m.starting, m.down = true, false
	m.lives++
	name := fmt.Sprintf("%s#%d", m.host, m.lives)
	m.mu.Unlock()
	l, err := m.open(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.starting = false
	if err != nil {
		m.world.net.Stop(m.host)
		m.world.note("%s does not start: %v", name, err)
		m.restartLater(time.Second)
		return
	}
	m.life = l
	ctx, stop := context.WithCancel(context.Background())
	context.AfterFunc(l.ctx, stop)
	l.stop = stop
	m.world.running.Go(func() { m.ended(l, l.node.Run(ctx)) })
}

// open makes a process over the disk as it is now.
func (m *member) open(name string) (*life, error) {
	w := m.world
	l := &life{id: m.identity(), name: name, mount: m.disk.mount()}
	l.ctx, l.kill = context.WithCancel(context.Background())
	halted := make(chan error, 1)
	halt := func(err error) {
		select {
		case halted <- err:
		default:
		}
	}
	l.mount.onFail = halt
	l.mount.onOlder = func(older, newer uint64) {
		w.violation("%s finished a snapshot of entry %d after one of entry %d", name, older, newer)
	}
	watched := boltstore.Watch(l.mount, syncLimit, func(err error) {
		if !m.isPaused() { // the watchdog of a paused process stands still
			halt(err)
		}
	})
	cfg := node.Config{
		ID: l.id, Name: m.host, RPCAddress: m.host + ":7400", RaftAddress: m.host + ":7401",
		Dial: w.net.Dialer(m.host), Discovery: discovery{m},
		Logs: watched, Stable: watched, Snapshots: shelf{l.mount},
		SnapshotInterval: w.plan.SnapshotInterval, SnapshotThreshold: w.plan.SnapshotThreshold, TrailingLogs: w.plan.TrailingLogs,
		Audit: auditDisk{m.audit, l}, Keyring: w.keyring, Timing: node.Timing{Drain: 2 * time.Second},
		Replica: m.replica,
		Wall:    m.clocks.Wall, Mono: m.clocks.Mono, Logger: w.log, Halted: halted,
		WrapTransport: func(inner raftnet.Inner) raftnet.Inner { return w.sky.wrap(l.id, w.random("wire "+name), inner) },
	}
	var err error
	if cfg.RPCListener, err = w.net.Listen(cfg.RPCAddress); err != nil {
		return nil, err
	}
	if cfg.RaftListener, err = w.net.Listen(cfg.RaftAddress); err != nil {
		return nil, err
	}
	l.node, err = node.New(cfg)
	return l, err
}

func (m *member) identity() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id
}

// ended takes note of a process that is over. One that ended by itself is started anew, as a supervisor would.
func (m *member) ended(l *life, err error) {
	if l.dead.Load() {
		return
	}
	if l.retiring.Load() && err == nil {
		m.rest(l)
		return
	}
	if err == nil || errors.Is(err, fault.ErrHalted) || errors.Is(err, fault.ErrKeyring) || errors.Is(err, fault.ErrTwin) {
		m.world.violation("%s ended by itself: %v", l.name, err)
	}
	m.world.note("%s ended by itself: %v", l.name, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ownEnds++
	m.bury(l)
	if !m.down {
		m.restartLater(time.Duration(500+m.rng.IntN(1500)) * time.Millisecond)
	}
}

// retire has the process end in the orderly way, and gives it; nil if none runs.
func (m *member) retire() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life == nil || m.life.stop == nil {
		return nil
	}
	m.life.retiring.Store(true)
	m.life.stop()
	return m.life
}

// rest takes note of a process that has ended in the orderly way. What it wrote stays: the machine goes on.
func (m *member) rest(l *life) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.retired.Store(true)
	l.dead.Store(true)
	m.life = nil
	m.world.net.Stop(m.host)
	m.world.sky.forget(l.id)
	m.disk.unmount()
	l.kill()
}

// restartLater is called with the lock held.
func (m *member) restartLater(d time.Duration) {
	m.world.running.Go(func() {
		if m.world.sleep(d) && !m.isDown() {
			m.start()
		}
	})
}

// crash ends the process as a power failure does; false if none runs. No other is started until start.
func (m *member) crash() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = true
	if m.life == nil {
		return false
	}
	m.bury(m.life)
	return true
}

// bury cuts off what is left of a process. It is called with the lock held.
func (m *member) bury(l *life) {
	l.dead.Store(true)
	m.life = nil
	m.world.net.Stop(m.host)
	m.world.sky.forget(l.id)
	m.disk.crash()
	l.kill()
}

func (m *member) isDown() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.down
}

// empty ends the process, and takes the disk's content away, and the identity with it.
func (m *member) empty() {
	m.mu.Lock()
	for m.starting {
		m.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
		m.mu.Lock()
	}
	defer m.mu.Unlock()
	if m.life != nil {
		m.bury(m.life)
	}
	m.disk.wipe()
	m.audit = new(auditing.Memory)
	m.id = uuid.NewString()
}

// pause stops all that goes in and out of the member, while its clocks go on.
func (m *member) pause() {
	m.mu.Lock()
	m.resumed = make(chan struct{})
	m.mu.Unlock()
	m.world.net.Freeze(m.host)
	m.disk.hold()
	if plant.On(plant.StoppingClock) {
		m.clocks.halt(true)
	}
}

func (m *member) resume() {
	m.clocks.halt(false)
	m.world.net.Thaw(m.host)
	m.disk.release()
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.resumed)
	m.resumed = nil
}

func (m *member) isPaused() bool { return m.pausing() != nil }

func (m *member) pausing() chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.resumed
}

// awaitResume waits while the member is paused.
func (m *member) awaitResume(ctx context.Context) error {
	for resumed := m.pausing(); resumed != nil; resumed = m.pausing() {
		select {
		case <-resumed:
		case <-ctx.Done():
			return errNotSent
		}
	}
	return nil
}

var (
	// errNotSent says that a direct call never reached a process.
	errNotSent = errors.New("simulated: no process took the call")
	// errDied says that the process died under a direct call.
	errDied = errors.New("simulated: the process died")
)

// direct asks the member's process as a caller on that machine would. Nothing gets in or out while it is paused, and no
// answer out of a process that has died.
func direct[Res any](ctx context.Context, m *member, ask func(context.Context, *node.Node) (Res, error)) (res Res, process string, err error) {
	var none Res
	if err := m.awaitResume(ctx); err != nil {
		return none, "", err
	}
	l := m.process()
	if l == nil {
		return none, "", errNotSent
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	res, err = ask(ctx, l.node)
	_ = m.awaitResume(context.Background())
	if l.dead.Load() {
		return none, l.name, errDied
	}
	return res, l.name, err
}

// discovery knows every machine, and which identity each has that runs.
type discovery struct{ self *member }

func (d discovery) Peers() []string {
	var addresses []string
	for _, m := range d.self.world.members {
		if m != d.self {
			addresses = append(addresses, m.host+":7400")
		}
	}
	return addresses
}

func (d discovery) RaftAddress(id string) (string, bool) {
	for _, m := range d.self.world.members {
		if l := m.process(); l != nil && l.id == id {
			return m.host + ":7401", true
		}
	}
	return "", false
}

func (d discovery) Changed() <-chan struct{} { return nil }

// quiet is where nodes log unless a test asks for it.
var quiet = slog.New(slog.DiscardHandler)

// shutdown ends the process in the orderly way. What it still sends reaches the others.
func (m *member) shutdown() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = true
	if m.life != nil {
		m.life.dead.Store(true)
		m.life.kill()
		m.life = nil
	}
}

// Package masterkey is the leader's duty to the master keyring. It brings the newest master key into use once every
// member holds it, so that no member is ever given what it cannot open, and then has all users' keys that are sealed under
// older ones sealed anew, through the log, in batches.
//
// Whether a key may be used, and whether a key of a user's is still the one that was sealed anew, is decided when the
// entry is applied. So a deposed leader's leftovers, or two leaders at once, do no harm.
package masterkey

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
)

// Keyring is what a Duty needs of the leader's. seal.Keyring is one.
type Keyring interface {
	// IDs gives the ids of the master keys, the newest last.
	IDs() []uint32
	// Reseal gives the same key, sealed under the master key with the id.
	Reseal(id uint32, subject string, random uint64, sealed []byte) ([]byte, error)
}

// Config is what a Duty works with. Fields without a stated default are required.
type Config struct {
	// View gives the node's state.
	View    func() *fsm.View
	Keyring Keyring
	// Holds asks a member for the ids of the master keys that it holds. It fails if another node answers.
	Holds func(context.Context, fsm.Member) ([]uint32, error)
	// Check seals the state's keyring check under the master key with the id.
	Check func(id uint32) ([]byte, error)
	// Propose puts a command through the log.
	Propose func(context.Context, fsm.Command) (fsm.Result, error)
	// Origin is recorded with each change.
	Origin fsm.Origin
	// Interval is the time between two looks; 1 s if zero.
	Interval time.Duration
	// Batch bounds the keys in one entry; 128 if zero.
	Batch int
	// Patience is how long members are waited for, and Timeout bounds one entry's way through the log; 2 s and 10 s if
	// zero.
	Patience, Timeout time.Duration
	// Rewrapped is told how many keys an entry changed; nil for nobody.
	Rewrapped func(keys int)
	Logger    *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Interval == 0 {
		c.Interval = time.Second
	}
	if c.Batch == 0 {
		c.Batch = 128
	}
	if c.Patience == 0 {
		c.Patience = 2 * time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Rewrapped == nil {
		c.Rewrapped = func(int) {}
	}
	return c
}

// Duty is a leader's. Run is called once for each reign.
type Duty struct {
	cfg Config
	// told is what the log was last told stands in the way, so that it is told once.
	told string
}

// New makes a Duty.
func New(cfg Config) *Duty { return &Duty{cfg: cfg.withDefaults()} }

// Run works until ctx ends, which is when the node no longer leads. What failed is tried again at the next look.
func (d *Duty) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		d.promote(ctx)
		d.rewrap(ctx)
		pause(ctx, d.cfg.Interval)
	}
	return nil
}

// promote brings the newest master key into use, if it is not, and all members hold it.
func (d *Duty) promote(ctx context.Context) {
	view := d.cfg.View()
	newest, ok := Next(view, d.cfg.Keyring.IDs())
	if !ok {
		d.told = ""
		return
	}
	lacking, holders := d.survey(ctx, view.Members(), newest)
	if len(lacking) > 0 {
		d.tell(ctx, newest, lacking)
		return
	}
	check, err := d.cfg.Check(newest)
	if err == nil {
		err = d.propose(ctx, fsm.UseMasterKey{ID: newest, KeyringCheck: check, Holders: holders})
	}
	if err != nil {
		d.report(ctx, fmt.Errorf("use the newest master key: %w", err))
		return
	}
	d.told = ""
	d.cfg.Logger.Info("all members hold the newest master key: what is new is sealed under it from now on",
		"master_key", newest, "keys_to_rewrap", d.cfg.View().SealedElsewhere())
}

// Next gives the master key that is to become the primary one: the newest of ids, unless the state has heard of it.
func Next(view *fsm.View, ids []uint32) (id uint32, ok bool) {
	if !view.Founded() || len(ids) == 0 {
		return 0, false
	}
	newest := ids[len(ids)-1]
	_, known := view.MasterKeyState(newest)
	return newest, !known
}

// survey asks all members, many at once, whether they hold the master key. It gives a line for each that does not.
func (d *Duty) survey(ctx context.Context, members []fsm.Member, id uint32) (lacking, holders []string) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Patience)
	defer cancel()
	says := make([]string, len(members))
	var all sync.WaitGroup
	for i, m := range members {
		all.Go(func() {
			switch held, err := d.cfg.Holds(ctx, m); {
			case err != nil:
				says[i] = m.Name + " does not answer"
			case !slices.Contains(held, id):
				says[i] = m.Name + " lacks it"
			}
		})
	}
	all.Wait()
	for i, m := range members {
		if says[i] == "" {
			holders = append(holders, m.ID)
		} else {
			lacking = append(lacking, says[i])
		}
	}
	return lacking, holders
}

// tell says who stands in the way, once for each answer.
func (d *Duty) tell(ctx context.Context, id uint32, lacking []string) {
	who := strings.Join(lacking, ", ")
	if ctx.Err() != nil || who == d.told {
		return
	}
	d.told = who
	d.cfg.Logger.Warn("there is a new master key, which is used once all members hold it: give them the keyring, or remove those that are gone",
		"master_key", id, "waits_for", who)
}

// rewrap goes once through all users, as long as there is something to seal anew.
func (d *Duty) rewrap(ctx context.Context) {
	todo := d.cfg.View().SealedElsewhere()
	if todo == 0 {
		return
	}
	d.cfg.Logger.Info("keys are sealed anew, under the primary master key", "keys", todo)
	pass := pass{duty: d, begun: time.Now()}
	after, more := "", true
	for more && ctx.Err() == nil && d.cfg.View().SealedElsewhere() > 0 {
		keys, last := d.cfg.View().ToRewrap(after, 8*d.cfg.Batch)
		for batch := range slices.Chunk(keys, d.cfg.Batch) {
			if !pass.batch(ctx, batch) {
				return
			}
		}
		after, more = last, last != ""
	}
	left := d.cfg.View().SealedElsewhere()
	level := slog.LevelInfo
	if pass.stuck > 0 {
		level = slog.LevelError
	}
	d.cfg.Logger.Log(ctx, level, "keys were sealed anew", "keys", pass.done, "took", time.Since(pass.begun), "left", left, "cannot_be_opened", pass.stuck)
	if pass.stuck > 0 {
		pause(ctx, 30*d.cfg.Interval) // nothing that this node does will change it
	}
}

// pass is one way through all users.
type pass struct {
	duty        *Duty
	begun       time.Time
	done, stuck int
}

// batch has a few keys sealed anew, and pauses for as long as that took, so that others' writes have at least half of the
// log to themselves. False ends the pass.
func (p *pass) batch(ctx context.Context, keys []fsm.SealedKey) bool {
	cfg := &p.duty.cfg
	primary := cfg.View().PrimaryMasterKey()
	op := fsm.Rewrap{Items: make([]fsm.RewrapItem, 0, len(keys))}
	for _, k := range keys {
		sealed, err := cfg.Keyring.Reseal(primary, k.Subject, k.Key.ID.Random, k.Key.Sealed)
		if err != nil {
			if p.stuck++; p.stuck == 1 {
				cfg.Logger.Error("a key cannot be sealed anew", "key", k.Key.ID.String(), "error", err)
			}
			continue
		}
		op.Items = append(op.Items, fsm.RewrapItem{Subject: k.Subject, Key: k.Key.ID, Sealed: sealed})
	}
	if len(op.Items) == 0 {
		return ctx.Err() == nil
	}
	begun := time.Now()
	bounded, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	res, err := cfg.Propose(bounded, fsm.Command{Origin: cfg.Origin, Op: op})
	if err != nil {
		p.duty.report(ctx, fmt.Errorf("seal keys anew: %w", err))
		return false
	}
	p.done += res.Rewrapped
	cfg.Rewrapped(res.Rewrapped)
	pause(ctx, max(time.Millisecond, time.Since(begun)))
	return ctx.Err() == nil
}

func (d *Duty) propose(ctx context.Context, op fsm.Op) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	_, err := d.cfg.Propose(ctx, fsm.Command{Origin: d.cfg.Origin, Op: op})
	return err
}

// report is quiet about what a change of leader explains.
func (d *Duty) report(ctx context.Context, err error) {
	if ctx.Err() != nil || errors.Is(err, fault.ErrNotLeader) || err.Error() == d.told {
		return
	}
	d.told = err.Error()
	d.cfg.Logger.Warn("the rotation of the master key has to wait; it is tried again", "error", err)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

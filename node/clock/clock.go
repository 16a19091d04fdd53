// Package clock keeps the cluster's time, so that no single machine's clock can date a token, expire one or
// rotate a key early.
//
// Each node measures the wall clocks of all voters all the while. It knows the time when a majority of the
// voters, measured lately, agree: the middle of those, carried on by the node's own monotonic clock. One wrong
// clock, the leader's or the node's own, then changes nothing; it is reported, and its node does not lead.
//
// The time may step by some milliseconds from one measurement to the next, backwards too. Whoever needs an
// order takes the log's time, which only moves forward.
package clock

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"
)

// Defaults of Config.
const (
	DefaultInterval  = time.Second
	DefaultTimeout   = 2 * time.Second
	DefaultMaxAge    = 10 * time.Second
	DefaultAgreement = 500 * time.Millisecond
)

// Config is what a Clock is made of. Self, Voters and Measure are required.
type Config struct {
	// Self is the id of this node.
	Self string
	// Wall reads this node's wall clock; time.Now if nil.
	Wall func() time.Time
	// Mono reads this node's monotonic clock, from any zero. It should count the time that the machine was
	// asleep (CLOCK_BOOTTIME on Linux): Go's own, which is used if nil, does not on every system.
	Mono func() time.Duration
	// Voters returns the ids of the cluster's voters; none while the node is in no cluster. It is called once
	// for each round of measurements.
	Voters func() []string
	// Measure asks the node with that id for its wall clock. It is called for each voter but Self, for
	// several at once, never twice at once for one, and must return soon after ctx ends.
	Measure func(ctx context.Context, id string) (time.Time, error)

	// Interval is the time from one round of measurements to the next; DefaultInterval if zero.
	Interval time.Duration
	// Timeout bounds one measurement; DefaultTimeout if zero. One whose round trip is longer than Agreement
	// is too vague to be used; the rest of the time is for opening a connection.
	Timeout time.Duration
	// MaxAge is how long a measurement counts; DefaultMaxAge if zero.
	MaxAge time.Duration
	// Agreement is how close together clocks must be to agree, and how far this node's own may be off;
	// DefaultAgreement if zero.
	Agreement time.Duration

	// Logger is told of clocks that are off, and when the time becomes known or unknown; none if nil.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Wall == nil {
		c.Wall = time.Now
	}
	if c.Mono == nil {
		start := time.Now()
		c.Mono = func() time.Duration { return time.Since(start) }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&c.Interval, DefaultInterval)
	setDefault(&c.Timeout, DefaultTimeout)
	setDefault(&c.MaxAge, DefaultMaxAge)
	setDefault(&c.Agreement, DefaultAgreement)
	return c
}

func setDefault(d *time.Duration, def time.Duration) {
	if *d == 0 {
		*d = def
	}
}

// Clock is the cluster's time as one node knows it. Its methods are safe for concurrent use, take no lock and
// are cheap enough for every request.
type Clock struct {
	cfg   Config
	rules Rules
	kick  chan struct{}
	known atomic.Pointer[known]
	trips atomic.Pointer[map[string]trip] // never changed once published
}

// known is what the last round found; it is never changed once published.
type known struct {
	base  time.Time     // the cluster's time at the zero of the monotonic clock
	until time.Duration // the monotonic clock at which base stops being vouched for
	bases map[string]time.Time
}

// New returns a clock that knows nothing until Run is called.
func New(cfg Config) *Clock {
	cfg = cfg.withDefaults()
	if cfg.Voters == nil || cfg.Measure == nil {
		panic(errors.New("clock: Config.Voters and Config.Measure are required"))
	}
	return &Clock{
		cfg:   cfg,
		rules: Rules{MaxAge: cfg.MaxAge, Agreement: cfg.Agreement},
		kick:  make(chan struct{}, 1),
	}
}

// Now returns the cluster's time and whether it is known. If it is not, t is what Last returns.
func (c *Clock) Now() (t time.Time, known bool) {
	k := c.known.Load()
	if k == nil {
		return time.Time{}, false
	}
	mono := c.cfg.Mono()
	return k.base.Add(mono), mono <= k.until
}

// Last returns the time that the node last knew, carried on by its monotonic clock; false if it never knew.
func (c *Clock) Last() (t time.Time, ever bool) {
	k := c.known.Load()
	if k == nil {
		return time.Time{}, false
	}
	return k.base.Add(c.cfg.Mono()), true
}

// drift is the part of a span of time by which a machine's clock may misjudge it: a tenth, of the true span.
const drift = 9

// Doubt returns by how much more than Config.Agreement Now and Last may be off, for want of a measurement: none while
// measurements come in, a ninth of the time since the last one if they do not, as a clock may run a tenth too slow or too fast.
func (c *Clock) Doubt() time.Duration {
	k := c.known.Load()
	if k == nil {
		return 0
	}
	age := c.cfg.Mono() - (k.until - c.cfg.MaxAge)
	if age <= 2*c.cfg.Interval {
		return 0
	}
	return age / drift
}

// Offset returns by how much this node's own wall clock is ahead of the cluster's time; false if that is
// not known.
func (c *Clock) Offset() (offset time.Duration, known bool) {
	now, known := c.Now()
	if !known {
		return 0, false
	}
	return c.wall().Sub(now), true
}

// Off tells that this node's own wall clock is known to be off by more than Config.Agreement, so that the node
// must not lead.
func (c *Clock) Off() bool {
	offset, known := c.Offset()
	return known && offset.Abs() > c.cfg.Agreement
}

// Offsets returns, for this node and each voter measured lately, by how much its wall clock is ahead of the time that the
// node last knew. It is empty if the node never knew the time.
func (c *Clock) Offsets() map[string]time.Duration {
	out := make(map[string]time.Duration)
	k := c.known.Load()
	if k == nil {
		return out
	}
	for voter, base := range k.bases {
		out[voter] = base.Sub(k.base)
	}
	return out
}

// Kick has Run measure at once, for when the voters have changed. It never blocks.
func (c *Clock) Kick() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// wall reads the own wall clock without the monotonic reading, which Sub would prefer.
func (c *Clock) wall() time.Time { return c.cfg.Wall().Round(0) }

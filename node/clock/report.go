package clock

import (
	"log/slog"
	"time"
)

// report tells the log what changed: a clock that went off or came back, the time known or not.
type report struct {
	log       *slog.Logger
	self      string
	agreement time.Duration
	patience  time.Duration // how long a start may take before it is worth a warning

	off     map[string]bool
	isKnown bool
	warned  bool
	waiting time.Duration // monotonic clock when the time was first wanted; negative before that
}

func newReport(cfg Config) *report {
	return &report{
		log: cfg.Logger, self: cfg.Self, agreement: cfg.Agreement, patience: cfg.MaxAge,
		off: make(map[string]bool), waiting: -1,
	}
}

// known is called when a majority agrees.
func (r *report) known(est Estimate, bases map[string]time.Time) {
	if !r.isKnown {
		r.log.Info("clock: the cluster's time is known", "agreeing", len(est.Group))
	}
	r.isKnown, r.warned, r.waiting = true, false, -1
	for voter, base := range bases {
		r.voter(voter, base.Sub(est.Base))
	}
}

// voter reports one clock when it crosses the bound.
func (r *report) voter(id string, offset time.Duration) {
	off := offset.Abs() > r.agreement
	if off == r.off[id] {
		return
	}
	r.off[id] = off
	switch {
	case !off:
		r.log.Info("clock: a voter's wall clock is right again", "voter", id, "offset", offset)
	case id == r.self:
		r.log.Error("clock: this node's wall clock is off, so it will not lead: set it right", "offset", offset)
	default:
		r.log.Warn("clock: a voter's wall clock is off: set it right", "voter", id, "offset", offset)
	}
}

// unknown is called when no majority agrees. A node in no cluster wants no time, and one that has just started
// has a while to ask.
func (r *report) unknown(now time.Duration, measured, voters int) {
	if voters == 0 || r.warned {
		return
	}
	if r.waiting < 0 {
		r.waiting = now
	}
	if !r.isKnown && now-r.waiting < r.patience {
		return
	}
	r.isKnown, r.warned = false, true
	r.log.Warn("clock: the cluster's time is unknown: no majority of the voters' clocks agrees",
		"measured", measured, "voters", voters)
}

// Package placement keeps the leader where the cluster wants it: in the region that its settings prefer, for the writes
// of the services there, as long as a voter in it can lead as well as the present leader does.
//
// It works on the leader alone, and hands leadership away at most once in a while, to a voter that has done well all that
// while: a hand-over stops writes for some round trips, and one to a voter that cannot keep it for an election.
package placement

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
)

const (
	// Patience is how long a leader leads, and how long a voter must have done well, before leadership is handed over.
	Patience = 10 * time.Second
	// longest is the longest time between two attempts at the same voter: each waits twice as long as the one before. One
	// after which there was peace for twice this time is forgotten.
	longest = 10 * time.Minute
	// interval is the time between two looks.
	interval = time.Second
)

// Config is what a Placement works with. All fields are required.
type Config struct {
	// Self is the id of this node.
	Self string
	View func() *fsm.View
	// Voters gives the ids of Raft's voters.
	Voters func() []string
	// Fit tells whether a member could lead as well as this node: it answers, has caught up, and its clock is right.
	Fit func(ctx context.Context, m fsm.Member) bool
	// HandOver transfers leadership to a voter.
	HandOver func(ctx context.Context, id string) error
	Logger   *slog.Logger
}

// Placement is one node's part in it. What it remembers of earlier attempts outlasts its leadership.
type Placement struct {
	cfg      Config
	attempts map[string]attempt
}

// attempt is the last one at a voter, and how long the next has to wait.
type attempt struct {
	at    time.Time
	pause time.Duration
}

// New makes a Placement.
func New(cfg Config) *Placement {
	return &Placement{cfg: cfg, attempts: make(map[string]attempt)}
}

// Run works while this node leads, until ctx ends, and returns nil. It does not run twice at once.
func (p *Placement) Run(ctx context.Context) error {
	since := make(map[string]time.Time) // each voter that does well now
	began := time.Now()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		p.look(ctx, since)
		if time.Since(began) >= Patience {
			p.place(ctx, since)
		}
	}
}

// look notes since when each voter that should rather lead does well.
func (p *Placement) look(ctx context.Context, since map[string]time.Time) {
	well := p.ask(ctx, p.wanted())
	maps.DeleteFunc(since, func(id string, _ time.Time) bool { return !well[id] })
	for id := range well {
		if _, known := since[id]; !known {
			since[id] = time.Now()
		}
	}
}

// ask gives those of the members that do well now.
func (p *Placement) ask(ctx context.Context, members []fsm.Member) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, interval)
	defer cancel()
	well := make(map[string]bool)
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, m := range members {
		asked.Go(func() {
			if p.cfg.Fit(ctx, m) {
				mu.Lock()
				defer mu.Unlock()
				well[m.ID] = true
			}
		})
	}
	asked.Wait()
	return well
}

// wanted gives the voters that should rather lead than this node: none if it is where the leader should be.
func (p *Placement) wanted() []fsm.Member {
	view := p.cfg.View()
	region := view.Settings().LeaderRegion
	self, _ := view.Member(p.cfg.Self)
	if region == "" || self.Region == region {
		return nil
	}
	voters := p.cfg.Voters()
	var wanted []fsm.Member
	for _, m := range view.Members() {
		if m.Region == region && slices.Contains(voters, m.ID) {
			wanted = append(wanted, m)
		}
	}
	return wanted
}

// place hands leadership over to a voter that has done well for long enough, and with which it is not too early to try.
func (p *Placement) place(ctx context.Context, since map[string]time.Time) {
	for _, m := range p.wanted() {
		well, ok := since[m.ID]
		if !ok || time.Since(well) < Patience || !p.due(m.ID) {
			continue
		}
		p.cfg.Logger.Info("leadership is handed over to the preferred region", "region", m.Region, "to", m.Name)
		if err := p.cfg.HandOver(ctx, m.ID); err != nil {
			p.cfg.Logger.Warn("leadership could not be handed over to the preferred region", "region", m.Region, "to", m.Name, "error", err)
		}
		return
	}
}

// due tells whether another attempt at a voter may be made, and counts it.
func (p *Placement) due(id string) bool {
	last, tried := p.attempts[id]
	ago := time.Since(last.at)
	switch {
	case !tried || ago >= 2*longest:
		p.attempts[id] = attempt{at: time.Now(), pause: Patience}
		return true
	case ago >= last.pause:
		p.attempts[id] = attempt{at: time.Now(), pause: min(2*last.pause, longest)}
		return true
	}
	return false
}

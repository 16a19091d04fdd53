package auditing

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/plant"
)

const (
	// maxFill is how many entries are got and filled in at once: they make a file of their own.
	maxFill = 16384
	// goneFor is how long nobody is asked again for what nobody had.
	goneFor = 10 * time.Minute
	// idleFill is how often gaps are looked for where nothing points at one.
	idleFill = 10 * time.Second
)

// fill gets what is missing from other nodes until ctx ends.
func (t *Trail) fill(ctx context.Context) {
	pause := t.cfg.Retry
	for {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		for t.fillOne(ctx) {
			pause = t.cfg.Retry
		}
		pause = min(2*pause, idleFill)
		if len(t.missing()) == 0 {
			pause = t.cfg.Retry // a look costs nothing
		}
	}
}

// missing gives the gaps that somebody may be able to fill.
func (t *Trail) missing() []audit.Gap {
	if plant.On(plant.AuditGap) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var some []audit.Gap
	for _, g := range gaps(t.cfg.Store, t.snapshot) {
		if at, ever := t.gone[g.To]; !ever || time.Since(at) >= goneFor {
			some = append(some, g)
		}
	}
	return some
}

// gaps gives what is missing in a store, the newest first: also behind its end, where a snapshot came instead.
func gaps(s Store, snapshot audit.Head) []audit.Gap {
	found := s.Gaps()
	if head := s.Head(); head.Sequence < snapshot.Sequence {
		found = append([]audit.Gap{{From: head.Sequence + 1, To: snapshot.Sequence, Last: snapshot.Hash}}, found...)
	}
	return found
}

// fillOne fills the end of one gap; false if none could be.
func (t *Trail) fillOne(ctx context.Context) bool {
	for _, g := range t.missing() {
		if t.fillGap(ctx, g) {
			return true
		}
	}
	return false
}

// fillGap asks the others, in an order by chance, until one has what the gap ends with. What is got hangs on the hash that
// the gap ends with, so no node can make another believe anything.
func (t *Trail) fillGap(ctx context.Context, g audit.Gap) bool {
	peers := t.cfg.Peers()
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] }) //nolint:gosec // no secret hangs on it
	answered := 0
	for _, id := range peers {
		c, err := t.get(ctx, id, g)
		if ctx.Err() != nil {
			return false
		}
		if err != nil {
			t.cfg.Logger.Debug("audit records could not be got", "from_node", id, "error", err)
			continue
		}
		answered++
		if len(c.entries) > 0 {
			return t.filled(id, c)
		}
	}
	if answered == len(peers) {
		t.giveUp(g)
	}
	return false
}

// get asks a node for the end of a gap; an empty chunk if it has not got that.
func (t *Trail) get(ctx context.Context, id string, g audit.Gap) (chunk, error) {
	from := g.From
	if g.Len() > maxFill {
		from = g.To - maxFill + 1
	}
	var c chunk
	for next := from; next <= g.To; {
		before, entries, err := t.ask(ctx, id, next)
		if err != nil {
			return chunk{}, err
		}
		for len(entries) > 0 && entries[len(entries)-1].Sequence > g.To {
			entries = entries[:len(entries)-1]
		}
		if len(entries) == 0 {
			return chunk{}, nil
		}
		if len(c.entries) == 0 || c.last() != before {
			c = chunk{before: before} // the node has a gap of its own before this
		}
		c.entries = append(c.entries, entries...)
		next = c.last().Sequence + 1
	}
	if head, err := c.before.Follow(c.entries); err != nil || head.Hash != g.Last {
		t.cfg.Logger.Error("a node has other audit records than the cluster", "from_node", id, "from", c.before.Sequence+1, "to", g.To)
		return chunk{}, nil
	}
	return c, nil
}

// askTimeout bounds a question: one page.
const askTimeout = 10 * time.Second

func (t *Trail) ask(ctx context.Context, id string, from uint64) (audit.Head, []audit.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return t.cfg.Ask(ctx, id, from)
}

// filled keeps what was got.
func (t *Trail) filled(id string, c chunk) bool {
	if err := t.cfg.Store.Fill(c.before, c.entries); err != nil {
		t.cfg.Logger.Warn("audit records that were missing could not be written", "error", err)
		return false
	}
	t.cfg.Logger.Info("audit records that were missing have been got", "from_node", id, "from", c.before.Sequence+1, "to", c.last().Sequence)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.filled += uint64(len(c.entries))
	t.broadcast()
	return true
}

// giveUp takes note that no member has what is missing.
func (t *Trail) giveUp(g audit.Gap) {
	t.cfg.Logger.Error("audit records are missing here, and no other member has them", "from", g.From, "to", g.To)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone[g.To] = time.Now()
}

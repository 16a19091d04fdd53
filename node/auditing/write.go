package auditing

import (
	"context"
	"slices"
	"time"
)

// maxGroup is how many entries are written, and made durable, at once.
const maxGroup = 8192

// write writes what comes until ctx ends, and then what is left, once.
func (t *Trail) write(ctx context.Context) {
	defer t.end()
	for t.await(ctx) {
		c, taken := t.group()
		if !t.writeGroup(ctx, c) {
			return
		}
		t.done(c, taken)
		t.gather(ctx)
	}
}

// gather waits for more, so that what comes in a while is synced at once: the log's own syncs share the disk, and nobody
// waits for the records, which the log would bring again.
func (t *Trail) gather(ctx context.Context) {
	t.mu.Lock()
	many := t.waiting >= maxGroup
	t.mu.Unlock()
	if many {
		return
	}
	timer := time.NewTimer(t.cfg.Gather)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// await waits for something to write; false if there is nothing, and nothing comes.
func (t *Trail) await(ctx context.Context) bool {
	for {
		t.mu.Lock()
		ready, changed := len(t.queue) > 0, t.changed
		t.mu.Unlock()
		if ready {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// group joins the first chunks of the queue that follow each other. They stay in it until they are written.
func (t *Trail) group() (c chunk, taken int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c = t.queue[0]
	c.entries = slices.Clip(c.entries)
	for taken = 1; taken < len(t.queue) && len(c.entries) < maxGroup && t.queue[taken].before == c.last(); taken++ {
		c.entries = append(c.entries, t.queue[taken].entries...)
	}
	return c, taken
}

// writeGroup tries until it succeeds; false if ctx ends first.
func (t *Trail) writeGroup(ctx context.Context, c chunk) bool {
	for {
		err := t.cfg.Store.Append(c.before, c.entries)
		t.outcome(err)
		if err == nil {
			return true
		}
		timer := time.NewTimer(t.cfg.Retry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// outcome takes note of how writing goes.
func (t *Trail) outcome(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil && t.failure == nil && t.cfg.Block:
		t.cfg.Logger.Error("the audit file cannot be written: this node takes no writes as the leader until it can; make room, or see to the disk", "error", err)
	case err != nil && t.failure == nil:
		t.cfg.Logger.Error("the audit file cannot be written: changes go on without a record here; make room, or see to the disk", "error", err)
	case err == nil && t.failure != nil:
		t.cfg.Logger.Info("the audit file can be written again")
	}
	if err != nil {
		t.counts.failures++
	}
	if err != nil || t.failure != nil {
		t.failure = err
		t.broadcast()
	}
}

// done takes what was written out of the queue.
func (t *Trail) done(c chunk, taken int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.queue[:taken])
	if t.queue = t.queue[taken:]; len(t.queue) == 0 {
		t.queue = nil
	}
	t.waiting -= len(c.entries)
	t.counts.written += uint64(len(c.entries))
	if t.dropping && t.waiting <= t.cfg.Most/2 {
		t.dropping = false
	}
	t.broadcast()
}

func (t *Trail) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.broadcast()
}

package tokens

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/keyquorum/keyquorum/internal/token"
)

const (
	// sampleEvery and sampleMost bound what the log tells of refusals: whoever sends bad tokens must not fill the disk.
	sampleEvery = 10 * time.Second
	sampleMost  = 10
)

// refusals tells the log of some tokens that were not valid. All are counted where they are answered.
type refusals struct {
	log *slog.Logger

	mu      sync.Mutex
	since   time.Time
	told    int
	skipped int
}

// tell takes note of a refusal. Tokens that have expired are nothing to look into, and are told of to those who look for
// more. The subject is what the token claims; the token itself is never told.
func (r *refusals) tell(ctx context.Context, raw string, reason token.Reason) {
	level := slog.LevelInfo
	if reason == token.Expired {
		level = slog.LevelDebug
	}
	if r.log == nil || !r.log.Enabled(ctx, level) {
		return
	}
	skipped, ok := r.take(time.Now())
	if !ok {
		return
	}
	attrs := []slog.Attr{slog.String("reason", reasons[reason].String())}
	if subject := token.ClaimedSubject(raw); subject != "" {
		attrs = append(attrs, slog.String("claimed_subject", subject))
	}
	if skipped > 0 {
		attrs = append(attrs, slog.Int("refused_untold", skipped))
	}
	r.log.LogAttrs(ctx, level, "a token was refused", attrs...)
}

// take tells whether one more can be told of, and how many were not since the last that was.
func (r *refusals) take(now time.Time) (skipped int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.since) >= sampleEvery {
		r.since, r.told = now, 0
	}
	if r.told >= sampleMost {
		r.skipped++
		return 0, false
	}
	r.told++
	skipped, r.skipped = r.skipped, 0
	return skipped, true
}

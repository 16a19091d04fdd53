package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// logWriter passes memberlist's log lines on. Nothing that memberlist calls an error is one of this node's:
// gossip only proposes, and a peer that does not answer, or a stranger at the door, is for a warning at most.
type logWriter struct {
	log     *slog.Logger
	leaving atomic.Bool  // what fails from now on does so because this node ends
	told    atomic.Int64 // when something was last told of who is at the door, in nanoseconds since the epoch
}

// between is the time from one warning of who is at the door to the next. Anybody can knock as often as they like.
const between = 10 * time.Second

// again tells, to one caller in a while, that it is time.
func (w *logWriter) again() bool {
	now, last := time.Now().UnixNano(), w.told.Load()
	return now-last >= int64(between) && w.told.CompareAndSwap(last, now)
}

var logLevels = []struct {
	prefix string
	level  slog.Level
}{
	{"[DEBUG] ", slog.LevelDebug},
	{"[INFO] ", slog.LevelInfo},
	{"[WARN] ", slog.LevelWarn},
	{"[ERR] ", slog.LevelWarn},
	{"Err: ", slog.LevelWarn},
}

// ofStranger tells of a line whether somebody who has no key can have it written.
func ofStranger(line []byte) bool {
	for _, of := range []string{" from=", "Remote node state size", "Could not set the deadline"} {
		if bytes.Contains(line, []byte(of)) {
			return true
		}
	}
	return false
}

// Write takes one line.
func (w *logWriter) Write(line []byte) (int, error) {
	level, text := slog.LevelInfo, bytes.TrimSpace(line)
	for _, l := range logLevels {
		if rest, ok := bytes.CutPrefix(text, []byte(l.prefix)); ok {
			level, text = l.level, rest
			break
		}
	}
	if w.leaving.Load() || level == slog.LevelWarn && ofStranger(text) && !w.again() {
		level = slog.LevelDebug
	}
	if ctx := context.Background(); w.log.Enabled(ctx, level) {
		w.log.Log(ctx, level, "gossip: "+string(bytes.TrimPrefix(text, []byte("memberlist: "))))
	}
	return len(line), nil
}

package main

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// logLevel is the least that is logged.
type logLevel slog.Level

// logFormat is how lines of the log are written.
type logFormat string

const (
	logText logFormat = "text"
	logJSON logFormat = "json"
)

var logLevels = []string{"debug", "info", "warn", "error"}

func parseLogLevel(_ logLevel, given texts) (logLevel, error) {
	var level slog.Level
	if !slices.Contains(logLevels, given[0]) || level.UnmarshalText([]byte(given[0])) != nil {
		return 0, fmt.Errorf("%s is none of %s", quoted(given[0]), strings.Join(logLevels, ", "))
	}
	return logLevel(level), nil
}

func parseLogFormat(_ logFormat, given texts) (logFormat, error) {
	if f := logFormat(given[0]); f == logText || f == logJSON {
		return f, nil
	}
	return "", fmt.Errorf("%s is neither %s nor %s", quoted(given[0]), logText, logJSON)
}

// newLogger writes a line for each thing that happens to w.
func newLogger(w io.Writer, level logLevel, format logFormat) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.Level(level)}
	if format == logJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

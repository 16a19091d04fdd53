package main

import (
	"fmt"
	"strconv"
	"strings"
)

// size is a number of bytes.
type size int64

// units are those that sizes are given in, the longest names first.
var units = []struct {
	name  string
	bytes uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"", 1}}

func parseSize(_ size, given texts) (size, error) {
	for _, u := range units {
		number, ok := strings.CutSuffix(given[0], u.name)
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(number, 10, 32); err == nil {
			return size(n * u.bytes), nil
		}
		break
	}
	return 0, fmt.Errorf("%s is not a size: write it like 512KiB, 64MiB or 1GiB", quoted(given[0]))
}

// auditFailure says what a node does while its audit file cannot be written.
type auditFailure string

const (
	blockWrites auditFailure = "block"
	warnOnly    auditFailure = "warn"
)

func parseAuditFailure(_ auditFailure, given texts) (auditFailure, error) {
	if f := auditFailure(given[0]); f == blockWrites || f == warnOnly {
		return f, nil
	}
	return "", fmt.Errorf("%s is neither %s nor %s", quoted(given[0]), blockWrites, warnOnly)
}

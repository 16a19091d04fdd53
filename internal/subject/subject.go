// Package subject has the one rule for how a user may be named, so that requests, tokens and the replicated
// state cannot disagree about it.
package subject

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// Max is the longest subject in bytes.
const Max = 256

var (
	errEmpty = errors.New("must not be empty")
	errLong  = fmt.Errorf("must not be longer than %d bytes", Max)
	errUTF8  = errors.New("must be valid UTF-8")
	errCtrl  = errors.New("must not contain control characters")
)

// Check tells what is wrong with s as a subject, or nil: it must be 1 to Max bytes of valid UTF-8 without the
// control characters of C0, DEL and C1. The error is worded to follow a field's name, and never quotes s.
func Check(s string) error {
	switch {
	case s == "":
		return errEmpty
	case len(s) > Max:
		return errLong
	case !utf8.ValidString(s):
		return errUTF8
	}
	for _, r := range s {
		if r < 0x20 || 0x7f <= r && r <= 0x9f {
			return errCtrl
		}
	}
	return nil
}

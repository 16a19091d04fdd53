package subject

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for s, want := range map[string]error{
		"a":                        nil,
		"ada@example.org":          nil,
		"with space":               nil,
		"ünïcødé 語":                nil,
		"\u00a0":                   nil, // just above C1
		"\ufffd":                   nil, // the replacement character itself is valid UTF-8
		strings.Repeat("x", Max):   nil,
		"":                         errEmpty,
		strings.Repeat("x", Max+1): errLong,
		"bad\xff":                  errUTF8,
		"\xed\xa0\x80":             errUTF8, // a lone surrogate
		"nul\x00":                  errCtrl,
		"line\nbreak":              errCtrl,
		"\x1f":                     errCtrl,
		"del\x7f":                  errCtrl,
		"c1\u0080":                 errCtrl,
		"c1\u009f":                 errCtrl,
	} {
		if got := Check(s); got != want {
			t.Errorf("Check(%q) = %v, want %v", s, got, want)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	for b.Loop() {
		if Check("ada.lovelace@example.org") != nil {
			b.Fatal("refused")
		}
	}
}

package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/keyquorum/keyquorum/rpc/jsoncodec"
)

// printer writes to one of the standard streams, in colour if that is a terminal, and remembers the first failure.
type printer struct {
	w      io.Writer
	colour bool
	failed error
}

// newPrinter colours for a terminal, unless NO_COLOR (no-color.org) or TERM=dumb ask it not to.
func newPrinter(w io.Writer, env lookupEnv) *printer {
	noColour, _ := env("NO_COLOR")
	term, _ := env("TERM")
	return &printer{w: w, colour: isTerminal(w) && noColour == "" && term != "dumb"}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Write is part of io.Writer.
func (p *printer) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	if p.failed == nil {
		p.failed = err
	}
	return n, err
}

func (p *printer) printf(format string, args ...any) { fmt.Fprintf(p, format, args...) }

// json prints an answer in the JSON of the wire, in one line.
func (p *printer) json(m proto.Message) error {
	text, err := jsonText(m)
	if err != nil {
		return err
	}
	p.printf("%s\n", text)
	return nil
}

// jsonText is a message in the JSON of the wire, with all that could steer a terminal as escapes: it stands in strings
// only, and reads as the same value.
func jsonText(m proto.Message) (string, error) {
	b, err := jsoncodec.Append(nil, m)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNonsense, err)
	}
	return escaped(string(b)), nil
}

// escaped is a text in JSON with escapes for all that could steer a terminal.
func escaped(b string) string {
	var text strings.Builder
	for _, r := range b {
		if !unsafe(r) {
			text.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&text, `\u%04x`, unit)
		}
	}
	return text.String()
}

// style is an ANSI attribute.
type style string

const (
	bold  style = "1"
	red   style = "31"
	green style = "32"
)

func (p *printer) paint(s style, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// fields are names with values, to print one below the other.
type fields [][2]string

// add leaves out what has no value.
func (f *fields) add(name, value string) {
	if value != "" {
		*f = append(*f, [2]string{name, value})
	}
}

func (p *printer) fields(list fields) {
	width := 0
	for _, f := range list {
		width = max(width, len(f[0]))
	}
	for _, f := range list {
		p.printf("  %-*s  %s\n", width, f[0], clean(f[1]))
	}
}

// table prints rows below a header, page by page. A column is as wide as what it has held so far.
type table struct {
	p      *printer
	header []string
	widths []int
}

func newTable(p *printer, header ...string) *table {
	return &table{p: p, header: header, widths: make([]int, len(header))}
}

// print prints one page. The header comes with the first.
func (t *table) print(rows [][]string) {
	first := t.header != nil
	t.fit(append(rows, t.header))
	if first {
		t.p.printf("%s\n", t.p.paint(bold, t.line(t.header)))
		t.header = nil
	}
	for _, row := range rows {
		t.p.printf("%s\n", t.line(row))
	}
}

func (t *table) fit(rows [][]string) {
	for _, row := range rows {
		for i, cell := range row {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(clean(cell)))
		}
	}
}

func (t *table) line(row []string) string {
	var b strings.Builder
	for i, cell := range row {
		if cell == "" {
			cell = "-"
		}
		fmt.Fprintf(&b, "%-*s  ", t.widths[i], clean(cell))
	}
	return strings.TrimRight(b.String(), " ")
}

// clean keeps what came over the network from steering the terminal.
func clean(text string) string {
	if strings.IndexFunc(text, unsafe) < 0 && utf8.ValidString(text) {
		return text
	}
	return quoted(text)
}

func unsafe(r rune) bool { return !unicode.IsPrint(r) }

func quoted(text string) string { return strconv.Quote(text) }

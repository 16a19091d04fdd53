package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/auditcheck"
	"github.com/keyquorum/keyquorum/internal/auditfile"
)

var (
	// errBadAudit ends a check whose answer has been printed.
	errBadAudit = errors.New("the audit files are not as the cluster has them")
	// errNoMajority says that too few members answered to tell what the cluster has on record.
	errNoMajority = errors.New("no majority of the members tells the same")
)

func (c *auditVerifyCommand) run(ctx context.Context, s *session) error {
	paths, err := auditPaths(c.Files)
	if err != nil {
		return err
	}
	w, err := c.witnesses(ctx)
	if err != nil {
		return err
	}
	defer w.close()
	head, told, err := w.head(ctx)
	if err != nil {
		return err
	}
	res, err := c.compare(ctx, w, head, paths)
	if err != nil {
		return err
	}
	return c.tell(s.out, finding{w, head, told, res})
}

// auditPaths gives the files, in the order of their records.
func auditPaths(given []string) ([]string, error) {
	var paths []string
	for _, path := range given {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			paths = append(paths, path)
			continue
		}
		found, err := auditfile.Files(path)
		if err != nil {
			return nil, err
		}
		paths = append(paths, found...)
	}
	if len(paths) == 0 {
		return nil, usagef("there are no audit files (*%s) in %s", auditfile.Suffix, quoted(given[0]))
	}
	// Their names are numbers with leading zeros.
	slices.SortFunc(paths, func(a, b string) int { return cmp.Compare(filepath.Base(a), filepath.Base(b)) })
	return slices.Compact(paths), nil
}

// behind is how long a node that runs may take to write what it has applied.
const behind = 3 * time.Second

// compare checks the files. A node that runs may still have to write its last records, so where only these are not there it
// looks again.
func (c *auditVerifyCommand) compare(ctx context.Context, w *witnesses, head audit.Head, paths []string) (auditcheck.Result, error) {
	o := auditcheck.Options{Head: head, Partial: c.Partial, Truth: func(ctx context.Context, sequence uint64) (audit.Hash, bool, error) {
		patience := time.Duration(0)
		if sequence > head.Sequence {
			patience = behind // it may still be on its way to the files of some
		}
		told, err := w.settled(ctx, sequence, patience)
		return told.hash, err == nil, unsettling(err)
	}}
	for patience := time.Now().Add(behind); ; {
		res, err := auditcheck.Check(ctx, paths, o)
		if err != nil || res.Fault == nil || res.Fault.What != audit.Truncated || time.Now().After(patience) {
			return res, err
		}
		if err := rest(ctx); err != nil {
			return res, err
		}
	}
}

// rest waits a little.
func rest(ctx context.Context) error {
	select {
	case <-time.After(retryPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finding is what the check came to.
type finding struct {
	*witnesses
	head audit.Head
	ballot
	auditcheck.Result
}

// verdict is the answer in JSON.
type verdict struct {
	Good     bool     `json:"good"`
	First    uint64   `json:"first"`
	Last     uint64   `json:"last"`
	Head     uint64   `json:"head"`
	HeadHash string   `json:"headHash"`
	Record   uint64   `json:"record,omitempty"`
	What     string   `json:"what,omitempty"`
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"`
	Members  int      `json:"members"`
	Vouching []string `json:"vouching"` // by their node ids
}

func (c *auditVerifyCommand) tell(out *printer, f finding) error {
	v := verdict{Good: f.Fault == nil, First: f.First, Last: f.Last, Head: f.head.Sequence, HeadHash: f.head.Hash.String(), Members: len(f.members)}
	if f := f.Fault; f != nil {
		v.Record, v.What, v.File, v.Line = f.Sequence, string(f.What), f.File, f.Line
	}
	for _, m := range f.vouching {
		v.Vouching = append(v.Vouching, m.id)
	}
	switch {
	case c.JSON:
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		out.printf("%s\n", escaped(string(text)))
	case v.Good:
		out.printf("%s: records %d to %d are as %d of %d members have them; the head is record %d, %s\n",
			out.paint(green, "good"), v.First, v.Last, len(f.vouching), v.Members, v.Head, v.HeadHash)
		out.fields(f.attendance())
	default:
		out.printf("%s: record %d is %s", out.paint(red, "bad"), v.Record, v.What)
		if v.File != "" {
			out.printf(" (%s, line %d)", clean(v.File), v.Line)
		}
		out.printf("; %d of %d members agree on the head, record %d, %s\n", len(f.vouching), v.Members, v.Head, v.HeadHash)
		out.fields(f.attendance())
	}
	if !v.Good {
		return errBadAudit
	}
	return nil
}

// attendance says who told the head, and who did not.
func (f finding) attendance() fields {
	var lagging, differing []string
	list := fields{}
	vouching := naming(f.vouching)
	if len(f.members) == 1 {
		vouching += " alone: no node names another member"
	}
	list.add("vouching", vouching)
	for _, m := range f.members {
		switch {
		case !m.answers() || slices.Contains(f.vouching, m):
		case slices.Contains(f.lagging, m):
			lagging = append(lagging, m.String())
		default:
			differing = append(differing, m.String())
		}
	}
	list.add("lagging", strings.Join(lagging, ", "))
	list.add("differing", strings.Join(differing, ", "))
	for _, m := range f.members {
		if fault := m.fault(); fault != "" {
			list.add("silent", fault)
		}
	}
	return list
}

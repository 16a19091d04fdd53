package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/auditcheck"
	"github.com/keyquorum/keyquorum/internal/auditfile"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
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
	head, err := w.head(ctx)
	if err != nil {
		return err
	}
	res, err := c.compare(ctx, w, head, paths)
	if err != nil {
		return err
	}
	return c.tell(s.out, w, head, res)
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
		return w.settled(ctx, head, sequence)
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

// verdict is the answer in JSON.
type verdict struct {
	Good     bool   `json:"good"`
	First    uint64 `json:"first"`
	Last     uint64 `json:"last"`
	Head     uint64 `json:"head"`
	HeadHash string `json:"headHash"`
	Record   uint64 `json:"record,omitempty"`
	What     string `json:"what,omitempty"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
}

func (c *auditVerifyCommand) tell(out *printer, w *witnesses, head audit.Head, res auditcheck.Result) error {
	v := verdict{Good: res.Fault == nil, First: res.First, Last: res.Last, Head: head.Sequence, HeadHash: head.Hash.String()}
	if f := res.Fault; f != nil {
		v.Record, v.What, v.File, v.Line = f.Sequence, string(f.What), f.File, f.Line
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
			out.paint(green, "good"), v.First, v.Last, w.agreeing, w.members, v.Head, v.HeadHash)
	default:
		out.printf("%s: record %d is %s", out.paint(red, "bad"), v.Record, v.What)
		if v.File != "" {
			out.printf(" (%s, line %d)", clean(v.File), v.Line)
		}
		out.printf("; %d of %d members agree on the head, record %d, %s\n", w.agreeing, w.members, v.Head, v.HeadHash)
	}
	if !v.Good {
		return errBadAudit
	}
	return nil
}

// witnesses are the members of a cluster, each asked for itself.
type witnesses struct {
	// members counts all, nodes are those that can be asked.
	members int
	nodes   []*client.Client
	// agreeing is how many told the head that a majority did.
	agreeing int
}

// witnesses finds the members.
func (c *auditVerifyCommand) witnesses(ctx context.Context) (*witnesses, error) {
	cluster, err := c.client()
	if err != nil {
		return nil, err
	}
	defer cluster.Close()
	res, err := cluster.Members(ctx)
	if err != nil {
		return nil, err
	}
	w := &witnesses{members: len(res.GetMembers())}
	for _, m := range res.GetMembers() {
		node, err := c.clientOf(m.GetRpcAddress(), c.wait())
		if err == nil {
			w.nodes = append(w.nodes, node)
		}
	}
	return w, nil
}

func (w *witnesses) close() {
	for _, n := range w.nodes {
		n.Close()
	}
}

// ask asks all at once; what a node fails at is left out.
func ask[T any](w *witnesses, do func(*client.Client) (T, error)) []T {
	var mu sync.Mutex
	var all []T
	var asked sync.WaitGroup
	for _, n := range w.nodes {
		asked.Go(func() {
			if t, err := do(n); err == nil {
				mu.Lock()
				defer mu.Unlock()
				all = append(all, t)
			}
		})
	}
	asked.Wait()
	return all
}

// majority gives what more than half of all members tell.
func (w *witnesses) majority(told []audit.Head) (audit.Head, int, bool) {
	votes := make(map[audit.Head]int)
	for _, h := range told {
		votes[h]++
	}
	for h, n := range votes {
		if n > w.members/2 {
			return h, n, true
		}
	}
	return audit.Head{}, 0, false
}

// head gives the last record that a majority agrees on. They go on while they are asked: the one that is behind says which
// record it is about, and the others tell its hash.
func (w *witnesses) head(ctx context.Context) (audit.Head, error) {
	heads := ask(w, func(n *client.Client) (audit.Head, error) {
		res, err := n.AuditHead(ctx)
		if err != nil {
			return audit.Head{}, err
		}
		hash, err := audit.ParseHash(res.GetHash())
		return audit.Head{Sequence: res.GetSequence(), Hash: hash}, err
	})
	if len(heads) <= w.members/2 {
		return audit.Head{}, fmt.Errorf("%w: %d of %d answered", errNoMajority, len(heads), w.members)
	}
	lowest := slices.MinFunc(heads, func(a, b audit.Head) int { return cmp.Compare(a.Sequence, b.Sequence) })
	if head, n, ok := w.majority(heads); ok && head.Sequence == lowest.Sequence {
		w.agreeing = n
		return head, nil
	}
	told := w.hashes(ctx, lowest.Sequence)
	head, n, ok := w.majority(told)
	if !ok {
		return head, fmt.Errorf("%w, about record %d", errNoMajority, lowest.Sequence)
	}
	w.agreeing = n
	return head, nil
}

// hashes asks all for the hash of a record, as they have it in their files.
func (w *witnesses) hashes(ctx context.Context, sequence uint64) []audit.Head {
	return ask(w, func(n *client.Client) (audit.Head, error) {
		page, err := n.AuditList(ctx, &v1.AuditServiceListRequest{From: sequence, PageSize: 1})
		if err != nil {
			return audit.Head{}, err
		}
		if len(page.GetRecords()) == 0 || page.GetRecords()[0].GetSequence() != sequence {
			return audit.Head{}, errNoRecord
		}
		hash, err := audit.ParseHash(page.GetRecords()[0].GetHash())
		return audit.Head{Sequence: sequence, Hash: hash}, err
	})
}

var errNoRecord = errors.New("it has no such record")

// settled gives the hash of a record by majority. One after the head may still be on its way to the files of some.
func (w *witnesses) settled(ctx context.Context, head audit.Head, sequence uint64) (audit.Hash, bool, error) {
	for patience := time.Now().Add(behind); ; {
		found, _, ok := w.majority(w.hashes(ctx, sequence))
		if ok || sequence <= head.Sequence || time.Now().After(patience) {
			return found.Hash, ok, ctx.Err()
		}
		if err := rest(ctx); err != nil {
			return audit.Hash{}, false, err
		}
	}
}

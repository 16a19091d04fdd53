package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

type auditCommand struct {
	Tail   auditTailCommand   `cmd:"" help:"Show the record of changes as it grows."`
	Verify auditVerifyCommand `cmd:"" help:"Check a node's audit files against what the cluster has on record."`
}

type auditTailCommand struct {
	From count `percall:"" placeholder:"1" help:"Number of the first record. Default: ten before the last."`
	Once bool  `percall:"" help:"Show what there is, and end."`

	connection
	format
}

func (*auditTailCommand) Help() string {
	return "Shows the records that the asked node has in its files, and goes on as they come, until it is interrupted. With --json each is a line of JSON."
}

func (c *auditTailCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	from := uint64(c.From)
	if from == 0 {
		head, err := cluster.AuditHead(ctx)
		if err != nil {
			return err
		}
		from = max(10, head.GetStoredSequence()) - 9
	}
	show := func(r *v1.AuditRecord) error { return c.show(s.out, r) }
	if c.Once {
		return auditPages(ctx, cluster, from, show)
	}
	err = cluster.AuditWatch(ctx, from, show)
	if ctx.Err() != nil || errors.Is(err, errUnread) {
		return nil //nolint:nilerr // that is how it ends
	}
	return err
}

// errUnread ends what nobody reads any more.
var errUnread = errors.New("nobody reads what is printed")

func (c *auditTailCommand) show(out *printer, r *v1.AuditRecord) error {
	if c.JSON {
		if err := out.json(r); err != nil {
			return err
		}
	} else {
		out.printf("%s\n", clean(auditLine(r)))
	}
	if out.failed != nil {
		return errUnread
	}
	return nil
}

// auditPages shows all records that there are from one on.
func auditPages(ctx context.Context, cluster *client.Client, from uint64, show func(*v1.AuditRecord) error) error {
	for {
		page, err := cluster.AuditList(ctx, &v1.AuditServiceListRequest{From: from})
		if err != nil || len(page.GetRecords()) == 0 {
			return err
		}
		for _, r := range page.GetRecords() {
			if r.GetSequence() < from {
				return fmt.Errorf("%w: record %d comes after %d", errNonsense, r.GetSequence(), from-1)
			}
			if err := show(r); err != nil {
				return nil //nolint:nilerr // nobody reads on
			}
			from = r.GetSequence() + 1
		}
	}
}

// auditLine is a record for people.
func auditLine(r *v1.AuditRecord) string {
	words := []string{fmt.Sprintf("%6d", r.GetSequence()), stamp(r.GetTime()), r.GetKind()}
	add := func(name, value string) {
		if value != "" {
			words = append(words, name+value)
		}
	}
	add("", r.GetSubject())
	add("key ", r.GetKeyId())
	add("was ", r.GetPreviousKeyId())
	add("for ", r.GetReason())
	add("jti ", r.GetTokenId())
	if r.GetExpiresAt() != nil {
		add("until ", stamp(r.GetExpiresAt()))
	}
	for _, change := range r.GetChanges() {
		add("", fmt.Sprintf("%s: %q to %q", change.GetName(), change.GetFrom(), change.GetTo()))
	}
	add("by ", r.GetActor())
	add("from ", r.GetSource())
	add("at ", r.GetNode())
	return strings.Join(words, "  ")
}

type auditVerifyCommand struct {
	Files   []string `arg:"" placeholder:"FILE" help:"A node's audit files, all of them, or the folder that they are in: DATADIR/audit."`
	Partial bool     `percall:"" help:"The node keeps only its newest files: take it that the oldest went for their age."`

	connection
	format
}

func (*auditVerifyCommand) Help() string {
	return `Asks the nodes of --addr, and each member that one of those asked names, who the members are, which record is the last, and what its hash is, and takes what a majority of those says that each node names; then reads the files. It names the first record that is not as the cluster has it: changed, missing, out of place, cut off, rewritten with matching hashes, or made up.

Name more nodes than the one whose files they are: one that lies can name itself alone as the cluster. With --tls-ca each member has to show the certificate of the node with its name.

It exits with 0 if all is good, 1 if not, and 3 where no majority of the members answers.`
}

func (c *auditVerifyCommand) check() (faults []string) {
	for _, path := range c.Files {
		if _, err := os.Stat(path); err != nil {
			faults = append(faults, err.Error())
		}
	}
	return slices.Concat(faults, c.connection.check())
}

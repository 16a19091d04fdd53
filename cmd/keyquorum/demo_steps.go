package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// story prints what happens.
type story struct {
	out      *printer
	chapters int
}

func (s *story) chapter(title string) {
	s.chapters++
	s.out.printf("\n%s\n", s.out.paint(bold, fmt.Sprintf("%d. %s", s.chapters, title)))
}

func (s *story) say(format string, args ...any) { s.out.printf("   "+format+"\n", args...) }

// fact prints one piece of evidence.
func (s *story) fact(name, format string, args ...any) {
	s.out.printf("     %-10s %s\n", name, fmt.Sprintf(format, args...))
}

// everywhere has a token verified on every node that runs, and insists on the verdict.
func (d *demo) everywhere(ctx context.Context, what, token string, want v1.VerifyResponse_Reason) error {
	var answers []string
	for _, n := range d.nodes {
		started := time.Now()
		res, err := n.client.Verify(ctx, &v1.VerifyRequest{Token: token})
		if err != nil {
			return fmt.Errorf("verify %s at %s: %w", what, n.name, err)
		}
		if res.GetReason() != want || res.GetValid() != (want == v1.VerifyResponse_NONE) {
			return fmt.Errorf("%s at %s: the verdict is %s, and should be %s", what, n.name, res.GetReason(), want)
		}
		answers = append(answers, fmt.Sprintf("%s in %s", res.GetNode(), since(started)))
	}
	verdict := d.out.paint(green, "valid")
	if want != v1.VerifyResponse_NONE {
		verdict = d.out.paint(red, "refused, "+want.String())
	}
	d.say("%s: %s (%s)", upper(what), verdict, strings.Join(answers, ", "))
	return nil
}

func (d *demo) issue(ctx context.Context, at *demoNode, subject string, ttl time.Duration) (*v1.IssueResponse, error) {
	res, err := at.client.Issue(ctx, &v1.IssueRequest{Subject: subject, Ttl: durationpb.New(ttl)})
	if err != nil {
		return nil, fmt.Errorf("issue a token for %s at %s: %w", subject, at.name, err)
	}
	return res, nil
}

// poll asks until it is told yes, or ctx ends.
func poll(ctx context.Context, what string, ask func() (bool, error)) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		yes, err := ask()
		if yes {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waited in vain for %s: %w", what, ctx.Err()), err)
		case <-ticker.C:
		}
	}
}

func (d *demo) awaitVoters(ctx context.Context, n int) error {
	return poll(ctx, "all nodes to vote and be ready", func() (bool, error) {
		for _, node := range d.nodes {
			status, err := node.client.Status(ctx)
			if err != nil || !status.GetReady() || voters(status) < n {
				return false, err
			}
		}
		return true, nil
	})
}

func voters(status *v1.StatusResponse) (n int) {
	for _, m := range status.GetMembers() {
		if m.GetRole() == v1.Member_VOTER {
			n++
		}
	}
	return n
}

// leader waits until the running nodes agree on a leader among them.
func (d *demo) leader(ctx context.Context) (leader *demoNode, err error) {
	err = poll(ctx, "a leader", func() (bool, error) {
		for _, n := range d.nodes {
			if n.member.Leading() {
				leader = n
				return true, nil
			}
		}
		return false, nil
	})
	return leader, err
}

// awaitRotation waits until every node has another active key for a subject, and gives that.
func (d *demo) awaitRotation(ctx context.Context, subject, old string) (key *v1.Key, err error) {
	err = poll(ctx, "the rotation of "+subject+"'s key", func() (bool, error) {
		for _, n := range d.nodes {
			res, err := n.client.Get(ctx, &v1.GetRequest{Subject: subject})
			if err != nil {
				return false, err
			}
			if key = res.GetKeys()[0]; key.GetKeyId() == old {
				return false, nil
			}
		}
		return true, nil
	})
	return key, err
}

func (d *demo) awaitRevision(ctx context.Context, revision uint64) error {
	return poll(ctx, "all nodes to have heard of it", func() (bool, error) {
		for _, n := range d.nodes {
			if status, err := n.client.Status(ctx); err != nil || status.GetRevision() < revision {
				return false, err
			}
		}
		return true, nil
	})
}

func short(token string) string { return token[:12] + "…" + token[len(token)-6:] }

func since(t time.Time) time.Duration { return rounded(time.Since(t)) }

// rounded keeps about three digits.
func rounded(d time.Duration) time.Duration {
	for unit := time.Second; unit > time.Nanosecond; unit /= 10 {
		if d >= unit {
			return d.Round(unit / 100)
		}
	}
	return d
}

func note(yes bool, text string) string {
	if yes {
		return text
	}
	return ""
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

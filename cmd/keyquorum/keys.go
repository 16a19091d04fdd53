package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// pageSize is what keys list asks for at a time: the most that a node gives.
const pageSize = 1000

type keysCommand struct {
	Get  keysGetCommand  `cmd:"" help:"Show one user's keys."`
	List keysListCommand `cmd:"" help:"List users, in byte order, with their keys."`
}

type keysGetCommand struct {
	Subject string `arg:"" help:"The user."`

	connection
	format
}

func (c *keysGetCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	res, err := cluster.Get(ctx, &v1.GetRequest{Subject: c.Subject})
	if err != nil {
		return err
	}
	if c.JSON {
		return s.out.json(res)
	}
	var rows [][]string
	for _, k := range res.GetKeys() {
		rows = append(rows, []string{
			k.GetKeyId(), k.GetState().String(), stamp(k.GetCreatedAt()), stamp(k.GetEarliestExpiry()), stamp(k.GetLatestExpiry()),
		})
	}
	newTable(s.out, "KEY", "STATE", "CREATED", "FIRST EXPIRY", "LAST EXPIRY").print(rows)
	return nil
}

type keysListCommand struct {
	Limit count `percall:"" placeholder:"N" help:"Stop after this many users; 0 is all of them."`

	connection
	format
}

func (*keysListCommand) Help() string {
	return "With --json, each page of up to 1000 users is a line of its own."
}

func (c *keysListCommand) run(ctx context.Context, s *session) error {
	cluster, err := c.client()
	if err != nil {
		return err
	}
	defer cluster.Close()
	show := c.table(s.out)
	if c.JSON {
		show = func(page *v1.ListResponse) error { return s.out.json(page) }
	}
	return c.pages(ctx, cluster, show, s.out)
}

// pages reads page after page up to the limit. It stops when nobody reads what it prints, and at a page that does not
// lead on, as the list would have no end.
func (c *keysListCommand) pages(ctx context.Context, cluster *client.Client, show func(*v1.ListResponse) error, out *printer) error {
	left := int(c.Limit)
	req := &v1.ListRequest{}
	last := ""
	for {
		req.PageSize = pageSize
		if c.Limit > 0 {
			req.PageSize = int32(min(left, pageSize))
		}
		page, err := cluster.List(ctx, req)
		if err != nil {
			return err
		}
		if last, err = follow(last, page); err != nil {
			return err
		}
		if err := show(page); err != nil {
			return err
		}
		left -= len(page.GetSubjects())
		req.PageToken = page.GetNextPageToken()
		if req.GetPageToken() == "" || out.failed != nil || c.Limit > 0 && left <= 0 {
			return nil
		}
	}
}

// follow wants a page to go on behind the last subject of the one before, and gives its own last one.
func follow(last string, page *v1.ListResponse) (string, error) {
	if len(page.GetSubjects()) == 0 && page.GetNextPageToken() != "" {
		return "", fmt.Errorf("%w: a page of the list is empty, and there shall be more", errNonsense)
	}
	for _, s := range page.GetSubjects() {
		if s.GetSubject() <= last {
			return "", fmt.Errorf("%w: in the list, %s comes after %s", errNonsense, quoted(s.GetSubject()), quoted(last))
		}
		last = s.GetSubject()
	}
	return last, nil
}

// table prints a line for each user.
func (c *keysListCommand) table(out *printer) func(*v1.ListResponse) error {
	t := newTable(out, "SUBJECT", "ACTIVE KEY", "CREATED", "LAST EXPIRY", "RETIRING")
	return func(page *v1.ListResponse) error {
		var rows [][]string
		for _, subject := range page.GetSubjects() {
			rows = append(rows, userRow(subject))
		}
		t.print(rows)
		return nil
	}
}

// userRow sums a user's keys up.
func userRow(subject *v1.SubjectKeys) []string {
	active, retiring := &v1.Key{}, 0
	for _, k := range subject.GetKeys() {
		if k.GetState() == v1.Key_ACTIVE {
			active = k
		} else {
			retiring++
		}
	}
	return []string{
		subject.GetSubject(), active.GetKeyId(), stamp(active.GetCreatedAt()), stamp(active.GetLatestExpiry()), strconv.Itoa(retiring),
	}
}

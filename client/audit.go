package client

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// AuditList gives one page of audit records, as the node that answers has them in its files.
func (c *Client) AuditList(ctx context.Context, req *v1.AuditServiceListRequest) (*v1.AuditServiceListResponse, error) {
	return call(ctx, c, operation{"AuditList", repeatable, bulk}, req,
		func(n *node) procedure[v1.AuditServiceListRequest, v1.AuditServiceListResponse] { return n.audit.List })
}

// AuditHead tells how far the audit chain has come, everything that was acknowledged before the call included, and how
// far the files of the node that answers have.
func (c *Client) AuditHead(ctx context.Context) (*v1.AuditServiceHeadResponse, error) {
	return call(ctx, c, operation{"AuditHead", repeatable, quick}, &v1.AuditServiceHeadRequest{},
		func(n *node) procedure[v1.AuditServiceHeadRequest, v1.AuditServiceHeadResponse] { return n.audit.Head })
}

// AuditWatch hands each audit record from the number on to each, in order and as they come, until ctx ends or each fails.
// Where a node ends the stream it goes on at another one; it fails where none of those that it knows gives anything.
func (c *Client) AuditWatch(ctx context.Context, from uint64, each func(*v1.AuditRecord) error) error {
	c.watch()
	w := &auditWatch{next: max(1, from), each: each}
	for {
		moved := false
		var last *Error
		for _, n := range c.roster.Load().all {
			begun := time.Now()
			last = w.at(ctx, n)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if w.refused != nil {
				return w.refused
			}
			moved = moved || time.Since(begun) >= watchWorth
		}
		if !moved {
			return last
		}
	}
}

// watchWorth is how long a stream has to last for another try to be worth while.
const watchWorth = time.Second

// auditWatch is how far a watch has come.
type auditWatch struct {
	next    uint64
	each    func(*v1.AuditRecord) error
	refused error
}

var errStreamEnded = connect.NewError(connect.CodeUnavailable, errors.New("the stream has ended"))

// at watches at one node until that ends the stream.
func (w *auditWatch) at(ctx context.Context, n *node) *Error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := n.audit.Watch(ctx, connect.NewRequest(&v1.AuditServiceWatchRequest{From: w.next}))
	if err != nil {
		return explain("AuditWatch", n, err)
	}
	defer func() { _ = stream.Close() }()
	for stream.Receive() {
		for _, r := range stream.Msg().GetRecords() {
			if w.refused = w.each(r); w.refused != nil {
				return nil
			}
			w.next = r.GetSequence() + 1
		}
	}
	err = stream.Err()
	if err == nil {
		err = errStreamEnded
	}
	return explain("AuditWatch", n, err)
}

package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/fault"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Auditor gives the audit records that a node keeps.
type Auditor interface {
	AuditList(context.Context, *v1.AuditServiceListRequest) (*v1.AuditServiceListResponse, error)
	AuditHead(context.Context) (*v1.AuditServiceHeadResponse, error)
	// AuditWatch sends what there is and what comes, until ctx ends, send fails, or the node ends.
	AuditWatch(ctx context.Context, req *v1.AuditServiceWatchRequest, send func(*v1.AuditServiceWatchResponse) error) error
}

// auditService serves keyquorum.v1.AuditService.
type auditService struct{ node Node }

func (s auditService) List(ctx context.Context, req *connect.Request[v1.AuditServiceListRequest]) (*connect.Response[v1.AuditServiceListResponse], error) {
	return answer(ctx, req, checkAuditList, s.node.AuditList)
}

func (s auditService) Head(ctx context.Context, req *connect.Request[v1.AuditServiceHeadRequest]) (*connect.Response[v1.AuditServiceHeadResponse], error) {
	return answer(ctx, req, unchecked, noRequest[v1.AuditServiceHeadRequest](s.node.AuditHead))
}

// maxWatch is how long a stream lasts: who may not watch any more is found out by then.
const maxWatch = time.Hour

// Watch keeps the stream open past the limits that the server has for requests: each message has a time of its own.
func (s auditService) Watch(ctx context.Context, req *connect.Request[v1.AuditServiceWatchRequest], stream *connect.ServerStream[v1.AuditServiceWatchResponse]) error {
	if err := decodeFault(req.Msg); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, maxWatch)
	defer cancel()
	c := callOf(ctx)
	c.extend()
	err := s.node.AuditWatch(bounded, req.Msg, func(res *v1.AuditServiceWatchResponse) error {
		if c.readmit != nil {
			if err := c.readmit(); err != nil {
				return err
			}
		}
		c.extend()
		return stream.Send(res)
	})
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case bounded.Err() != nil:
		return errWatchOver
	}
	return nil
}

var errWatchOver = connect.NewError(connect.CodeUnavailable, errors.New("the stream is ended after an hour: watch again, from the record after the last"))

// watchWrite is how long a message of a stream may take to be written; an empty one is sent at least that often.
const watchWrite = 30 * time.Second

// AuditBeat is how often something is sent to who watches, be it an empty message.
const AuditBeat = watchWrite / 3

// extend gives a stream time to write its next message. It does nothing where the connection knows no such limits.
func (c *call) extend() {
	if c.writer == nil {
		return
	}
	control := http.NewResponseController(c.writer)
	_ = control.SetReadDeadline(time.Time{}) // the request was read
	_ = control.SetWriteDeadline(time.Now().Add(watchWrite))
}

func checkAuditList(req *v1.AuditServiceListRequest) error {
	if n := req.GetPageSize(); n < 0 || n > maxPage {
		return fault.Invalid("pageSize", fmt.Sprintf("must be from 0 to %d", maxPage))
	}
	return nil
}

// AuditMessages gives entries as they are sent.
func AuditMessages(entries []audit.Entry) []*v1.AuditRecord {
	messages := make([]*v1.AuditRecord, len(entries))
	for i := range entries {
		messages[i] = auditMessage(&entries[i])
	}
	return messages
}

func auditMessage(e *audit.Entry) *v1.AuditRecord {
	m := &v1.AuditRecord{
		Sequence: e.Sequence, Position: e.Position, Kind: string(e.Kind), Subject: e.Subject,
		KeyId: e.KeyID, PreviousKeyId: e.PreviousKeyID, Reason: string(e.Reason),
		Actor: e.Actor, Source: e.Source, Node: e.Node, TokenId: e.TokenID, Hash: e.Hash.String(),
	}
	if e.Time != 0 {
		m.Time = timestamppb.New(time.UnixMilli(e.Time))
	}
	if e.Expires != 0 {
		m.ExpiresAt = timestamppb.New(time.Unix(e.Expires, 0))
	}
	for _, c := range e.Changes {
		m.Changes = append(m.Changes, &v1.AuditRecord_Change{Name: c.Name, From: c.From, To: c.To})
	}
	return m
}

// AuditEntries reads what AuditMessages gives. The hashes are not looked at.
func AuditEntries(messages []*v1.AuditRecord) ([]audit.Entry, error) {
	entries := make([]audit.Entry, len(messages))
	for i, m := range messages {
		var err error
		if entries[i], err = auditEntry(m); err != nil {
			return nil, fmt.Errorf("audit record %d: %w", m.GetSequence(), err)
		}
	}
	return entries, nil
}

func auditEntry(m *v1.AuditRecord) (audit.Entry, error) {
	e := audit.Entry{Record: audit.Record{
		Sequence: m.GetSequence(), Position: m.GetPosition(), Kind: audit.Kind(m.GetKind()), Subject: m.GetSubject(),
		KeyID: m.GetKeyId(), PreviousKeyID: m.GetPreviousKeyId(), Reason: audit.Reason(m.GetReason()),
		Actor: m.GetActor(), Source: m.GetSource(), Node: m.GetNode(), TokenID: m.GetTokenId(),
	}}
	if t := m.GetTime(); t != nil {
		e.Time = t.AsTime().UnixMilli()
	}
	if t := m.GetExpiresAt(); t != nil {
		e.Expires = t.GetSeconds()
	}
	for _, c := range m.GetChanges() {
		e.Changes = append(e.Changes, audit.Change{Name: c.GetName(), From: c.GetFrom(), To: c.GetTo()})
	}
	var err error
	e.Hash, err = audit.ParseHash(m.GetHash())
	return e, err
}

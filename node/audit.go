package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"
	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/node/auditing"
	"github.com/keyquorum/keyquorum/rpc"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// auditPage bounds a page of audit records, in bytes as a file has them.
const auditPage = 128 << 10

func (n *Node) newTrail() *auditing.Trail {
	return auditing.New(auditing.Config{
		Store: n.cfg.Audit, Block: !n.cfg.AuditWarn, Peers: n.others, Ask: n.askAudit, Logger: n.log,
	})
}

// others gives the ids of the other members.
func (n *Node) others() []string {
	var ids []string
	for _, m := range n.fsm.View().Members() {
		if m.ID != n.cfg.ID {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func (n *Node) askAudit(ctx context.Context, id string, from uint64) (audit.Head, []audit.Entry, error) {
	address, ok := n.rpcAddress(id)
	if !ok {
		return audit.Head{}, nil, fmt.Errorf("no address is known for node %s", id)
	}
	res, err := n.peers.peer(address).AuditRecords(ctx, connect.NewRequest(&peerv1.AuditRecordsRequest{From: from, NodeId: n.cfg.ID}))
	if err != nil {
		return audit.Head{}, nil, err
	}
	entries, err := rpc.AuditEntries(res.Msg.GetRecords())
	if err != nil || len(entries) == 0 {
		return audit.Head{}, nil, err
	}
	hash, err := audit.ParseHash(res.Msg.GetPreviousHash())
	return audit.Head{Sequence: entries[0].Sequence - 1, Hash: hash}, entries, err
}

// propose puts a command through the log, unless it would leave an audit record that cannot be written. Ticks go on, and
// with them verification, on all nodes: they leave none.
func (n *Node) propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	if fsm.Audited(cmd.Op) {
		if err := n.trail.Failing(); err != nil {
			return fsm.Result{}, err
		}
	}
	return n.proposer.Propose(ctx, cmd)
}

// watchAudit hands leadership over where this node leads and cannot write its audit records, as long as another voter can.
// Where none can, the node stays: freshness needs a leader.
func (n *Node) watchAudit(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if n.raft.State() == raft.Leader && n.trail.Failing() != nil {
			n.yieldToAuditor(ctx)
		}
	}
}

// yieldToAuditor asks the other voters, in an order by chance, and hands over to the first that is fit.
func (n *Node) yieldToAuditor(ctx context.Context) {
	members := n.fsm.View().Members()
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] }) //nolint:gosec // no secret hangs on it
	asking, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, m := range members {
		if m.ID == n.cfg.ID || m.Replica || !n.fitToLead(asking, m) {
			continue
		}
		if err := n.handTo(ctx, m.ID); err != nil {
			n.log.Warn("leadership could not be handed over to a node that can write its audit file", "to", m.ID, "error", err)
		}
		return
	}
}

// AuditList implements rpc.Auditor.
func (n *Node) AuditList(_ context.Context, req *v1.AuditServiceListRequest) (*v1.AuditServiceListResponse, error) {
	before, entries, err := n.readAudit(req.GetFrom())
	if err != nil {
		return nil, err
	}
	if size := int(req.GetPageSize()); size > 0 && size < len(entries) {
		entries = entries[:size]
	}
	return &v1.AuditServiceListResponse{Records: rpc.AuditMessages(entries), PreviousHash: before.Hash.String()}, nil
}

// maxAuditPage bounds a page in records, whatever their size.
const maxAuditPage = 1000

func (n *Node) readAudit(from uint64) (before audit.Head, entries []audit.Entry, err error) {
	if before, entries, err = n.trail.Store().Read(max(1, from), auditPage); err != nil {
		return before, nil, fmt.Errorf("read the audit files: %w", err)
	}
	return before, entries[:min(len(entries), maxAuditPage)], nil
}

// AuditRecords implements rpc.Peers.
func (n *Node) AuditRecords(_ context.Context, req *peerv1.AuditRecordsRequest) (*peerv1.AuditRecordsResponse, error) {
	before, entries, err := n.readAudit(req.GetFrom())
	if err != nil {
		return nil, err
	}
	return &peerv1.AuditRecordsResponse{Records: rpc.AuditMessages(entries), PreviousHash: before.Hash.String()}, nil
}

// AuditHead implements rpc.Auditor. The round before it makes the chain's head one that holds all that was acknowledged.
func (n *Node) AuditHead(ctx context.Context) (*v1.AuditServiceHeadResponse, error) {
	if err := n.reading(); err != nil {
		return nil, err
	}
	if err := n.freshness.Round(ctx, true); err != nil {
		return nil, err
	}
	head, stored := n.fsm.View().AuditHead(), n.trail.Store().Head()
	return &v1.AuditServiceHeadResponse{
		Sequence: head.Sequence, Hash: head.Hash.String(), NodeId: n.cfg.ID,
		StoredSequence: stored.Sequence, StoredHash: stored.Hash.String(),
	}, nil
}

// AuditWatch implements rpc.Auditor.
func (n *Node) AuditWatch(ctx context.Context, req *v1.AuditServiceWatchRequest, send func(*v1.AuditServiceWatchResponse) error) error {
	next := req.GetFrom()
	if next == 0 {
		next = n.trail.Store().Head().Sequence + 1
	}
	beat := time.NewTicker(rpc.AuditBeat)
	defer beat.Stop()
	for {
		changed := n.trail.Changed() // before what it tells of is read
		before, entries, err := n.readAudit(next)
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			if err := send(&v1.AuditServiceWatchResponse{Records: rpc.AuditMessages(entries), PreviousHash: before.Hash.String()}); err != nil {
				return err
			}
			next = entries[len(entries)-1].Sequence + 1
			continue
		}
		select {
		case <-changed:
		case <-beat.C:
			err = send(&v1.AuditServiceWatchResponse{})
		case <-n.closing:
			err = fault.ErrShuttingDown
		case <-ctx.Done():
			return nil //nolint:nilerr // who watched has gone, or its time is over
		}
		if err != nil {
			return err
		}
	}
}

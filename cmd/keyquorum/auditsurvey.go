package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/keyquorum/keyquorum/internal/audit"
	"github.com/keyquorum/keyquorum/internal/certs"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// maxPlaces bounds the places that are asked, whatever nodes name: far more than a cluster has.
const maxPlaces = 256

// survey finds the members: it asks the nodes of --addr, and each member that one of those asked names, until nobody names
// another.
type survey struct {
	c *auditVerifyCommand
	// source is nil without TLS.
	source *certs.Source
	turns  chan struct{}
	all    sync.WaitGroup

	mu    sync.Mutex
	spots map[place]*spot
	lists []list
	// crowded says that more places were named than are asked.
	crowded bool
}

// witnesses finds the members, within the time that there is for an answer, and what each tells of the chain's head.
func (c *auditVerifyCommand) witnesses(ctx context.Context) (*witnesses, error) {
	source, err := c.source()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.wait())
	defer cancel()
	s := &survey{c: c, source: source, turns: make(chan struct{}, maxAsked), spots: map[place]*spot{}}
	faults := make([]error, len(c.nodes()))
	for i, address := range c.nodes() {
		s.all.Go(func() { faults[i] = s.begin(ctx, address) })
	}
	s.all.Wait()
	w := s.found()
	switch {
	case s.crowded:
		err = fmt.Errorf("%w: the nodes name more than %d", errNoMajority, maxPlaces)
	case len(w.members) == 0:
		err = cmp.Or(errors.Join(faults...), fmt.Errorf("%w: no node that answers is in a cluster", errNoMajority))
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// begin asks a node of --addr for the members, whoever it is.
func (s *survey) begin(ctx context.Context, address string) error {
	node, err := s.c.clientOf(address, s.c.wait())
	if err != nil {
		return err
	}
	defer node.Close()
	res, err := node.Members(ctx)
	if err != nil {
		return err
	}
	s.hear(ctx, address, res.GetMembers())
	return nil
}

// visit asks at a place. What is told there counts where it is the member that answers.
func (s *survey) visit(ctx context.Context, at *spot) error {
	s.turns <- struct{}{}
	defer func() { <-s.turns }()
	node, hangUp, err := s.c.clientOfNode(s.source, at.name, at.address)
	if err != nil {
		return err
	}
	at.node, at.hangUp = node, hangUp
	head, err := node.AuditHead(ctx)
	if err != nil {
		return err
	}
	if head.GetNodeId() != at.id {
		return fmt.Errorf("another node answers: %s", head.GetNodeId())
	}
	hash, err := audit.ParseHash(head.GetHash())
	if err != nil {
		return err
	}
	at.head = audit.Head{Sequence: head.GetSequence(), Hash: hash}
	res, err := node.Members(ctx)
	if err != nil {
		return err
	}
	s.hear(ctx, cmp.Or(at.name, at.id), res.GetMembers())
	return nil
}

// hear takes whom a node names as the members, and has those asked that nobody named before.
func (s *survey) hear(ctx context.Context, by string, members []*v1.Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, m := range members {
		ids = append(ids, m.GetNodeId())
		p := place{m.GetNodeId(), m.GetName(), m.GetRpcAddress()}
		if s.spots[p] != nil {
			continue
		}
		if len(s.spots) == maxPlaces {
			s.crowded = true
			return
		}
		at := &spot{place: p}
		s.spots[p] = at
		s.all.Go(func() { at.fault = s.visit(ctx, at) })
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if !slices.ContainsFunc(s.lists, func(l list) bool { return slices.Equal(l.ids, ids) }) {
		s.lists = append(s.lists, list{by + " names", ids})
	}
}

// found gives the members, sorted by name. A list of one has nobody else agree to anything, so it counts for nothing beside
// longer ones.
func (s *survey) found() *witnesses {
	w := &witnesses{}
	union := list{by: "the nodes name"}
	for _, at := range s.spots {
		i := slices.IndexFunc(w.members, func(m *witness) bool { return m.id == at.id })
		if i < 0 {
			i = len(w.members)
			w.members = append(w.members, &witness{id: at.id, name: at.name})
			union.ids = append(union.ids, at.id)
		}
		m := w.members[i]
		m.name = min(m.name, at.name) // which is any, and always the same
		m.spots = append(m.spots, at)
	}
	slices.SortFunc(w.members, func(a, b *witness) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.id, b.id))
	})
	slices.SortFunc(s.lists, func(a, b list) int { return cmp.Or(cmp.Compare(len(a.ids), len(b.ids)), slices.Compare(a.ids, b.ids)) })
	w.lists = []list{union}
	for _, l := range s.lists {
		if len(l.ids) > 1 {
			w.lists = append(w.lists, l)
		}
	}
	return w
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/internal/audit"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// witnesses are the members of a cluster, each asked for itself. No node is believed alone: not about the chain, as a
// majority has to tell the same, and not about who the members are, as it has to be a majority of those that each node
// names. So a node that leaves members out, or makes some up, can keep the others from being believed, which shows, and
// cannot be believed without them, as long as one honest node answers.
type witnesses struct {
	// members are all that any node names.
	members []*witness
	// lists are what the nodes name, each once, and the first all of it together.
	lists []list
}

// list is whom a node names as the members.
type list struct {
	// by says who does, and that it does.
	by  string
	ids []string
}

// witness is a member, which has one vote. Where nodes name different places for it, it counts only if all of them answer
// and tell the same: one of them may be another's.
type witness struct {
	id, name string
	spots    []*spot
}

// place is where a member is, as a node says.
type place struct{ id, name, address string }

// spot is a place that was asked.
type spot struct {
	place
	node *client.Client
	// hangUp lets go of its connections.
	hangUp func()
	// head is what the member told there, unless fault says why it did not.
	head  audit.Head
	fault error
}

func (w *witnesses) close() {
	for _, m := range w.members {
		for _, s := range m.spots {
			if s.hangUp != nil {
				s.hangUp()
			}
		}
	}
}

// String is the name, or what there is.
func (m *witness) String() string { return cmp.Or(m.name, m.id) }

// fault says why the member does not count; empty if it does.
func (m *witness) fault() string {
	for _, s := range m.spots {
		if s.fault != nil {
			return fmt.Sprintf("%s at %s: %v", m, s.address, plainly(s.fault))
		}
	}
	return ""
}

func (m *witness) answers() bool { return m.fault() == "" }

// reach is the last record that the member knows of.
func (m *witness) reach() uint64 {
	last := slices.MaxFunc(m.spots, func(a, b *spot) int { return cmp.Compare(a.head.Sequence, b.head.Sequence) })
	return last.head.Sequence
}

func naming(members []*witness) string {
	var names []string
	for _, m := range members {
		names = append(names, m.String())
	}
	return strings.Join(names, ", ")
}

// among gives those of the members that are on the list.
func (l list) among(members []*witness) []*witness {
	return slices.DeleteFunc(slices.Clone(members), func(m *witness) bool { return !slices.Contains(l.ids, m.id) })
}

// majority is how many are more than half of the list.
func (l list) majority() int { return len(l.ids)/2 + 1 }

// carry tells whether the members are a majority of the list. Those with one name are one: a certificate has a name, and no
// id.
func (l list) carry(members []*witness) bool {
	names := map[string]bool{}
	for _, m := range l.among(members) {
		names[m.String()] = true
	}
	return len(names) >= l.majority()
}

// short gives a list of which the members are no majority; false if there is none.
func (w *witnesses) short(members []*witness) (list, bool) {
	for _, l := range w.lists {
		if !l.carry(members) {
			return l, true
		}
	}
	return list{}, false
}

// head gives the last record that a majority agrees on, and who tells it. They go on while they are asked, and each tells of
// all that was acknowledged before. So it is the first record that is not before the heads of a majority: an earlier one
// could be that of a node which hides its last records, a later one could be made up.
func (w *witnesses) head(ctx context.Context) (audit.Head, ballot, error) {
	present := slices.DeleteFunc(slices.Clone(w.members), func(m *witness) bool { return !m.answers() })
	if l, short := w.short(present); short {
		return audit.Head{}, ballot{}, fmt.Errorf("%w: of %d that %s, these answered: %s%s", errNoMajority, len(l.ids), l.by,
			cmp.Or(naming(l.among(present)), "none"), w.absence(l))
	}
	head := audit.Head{}
	for _, l := range w.lists {
		there := l.among(present)
		slices.SortFunc(there, func(a, b *witness) int { return cmp.Compare(a.reach(), b.reach()) })
		head.Sequence = max(head.Sequence, there[l.majority()-1].reach())
	}
	b, err := w.settled(ctx, head.Sequence, behind)
	head.Hash = b.hash
	return head, b, err
}

// absence says why those of the list that do not count do not.
func (w *witnesses) absence(l list) string {
	var text strings.Builder
	for _, m := range l.among(w.members) {
		if fault := m.fault(); fault != "" {
			text.WriteString("; " + fault)
		}
	}
	return text.String()
}

// ballot is what a majority tells of a record.
type ballot struct {
	hash audit.Hash
	// vouching tell it. Lagging have no such record, which they may be about to write; whoever else answers tells another.
	vouching, lagging []*witness
}

// settled gives the hash of a record that a majority tells. It looks again, for as long as it has patience, where some may still
// have to write it.
func (w *witnesses) settled(ctx context.Context, sequence uint64, patience time.Duration) (ballot, error) {
	for until := time.Now().Add(patience); ; {
		votes, lagging := w.votes(ctx, sequence)
		b, err := w.count(sequence, votes)
		b.lagging = lagging
		switch {
		case ctx.Err() != nil:
			return ballot{}, ctx.Err()
		case len(lagging) == 0, time.Now().After(until):
			return b, err
		}
		if err := rest(ctx); err != nil {
			return ballot{}, err
		}
	}
}

// count gives what a majority of each list voted for.
func (w *witnesses) count(sequence uint64, votes map[audit.Hash][]*witness) (ballot, error) {
	lacking, most := w.lists[0], 0
	for hash, by := range votes {
		l, short := w.short(by)
		if !short {
			return ballot{hash: hash, vouching: by}, nil
		}
		if len(by) > most {
			lacking, most = l, len(by)
		}
	}
	return ballot{}, fmt.Errorf("%w, about record %d%s", errNoMajority, sequence, opinions(lacking, votes))
}

// opinions says who of a list tells what.
func opinions(l list, votes map[audit.Hash][]*witness) string {
	var all []string
	for hash, by := range votes {
		if there := l.among(by); len(there) > 0 {
			all = append(all, fmt.Sprintf("%s: %.16s…", naming(there), hash))
		}
	}
	if len(all) == 0 {
		return ""
	}
	slices.Sort(all)
	return fmt.Sprintf(", of %d that %s: %s", len(l.ids), l.by, strings.Join(all, "; "))
}

// unsettling gives what keeps a question from being asked: that no majority tells is an answer.
func unsettling(err error) error {
	if errors.Is(err, errNoMajority) {
		return nil
	}
	return err
}

// votes asks all for the hash of a record. Lagging have no such record.
func (w *witnesses) votes(ctx context.Context, sequence uint64) (votes map[audit.Hash][]*witness, lagging []*witness) {
	var mu sync.Mutex
	var all sync.WaitGroup
	told := map[*spot]audit.Hash{}
	turns := make(chan struct{}, maxAsked)
	for _, m := range w.members {
		if !m.answers() {
			continue
		}
		for _, s := range m.spots {
			all.Go(func() {
				turns <- struct{}{}
				defer func() { <-turns }()
				hash, err := s.hash(ctx, sequence)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					told[s] = hash
				}
				if errors.Is(err, errNoRecord) && !slices.Contains(lagging, m) {
					lagging = append(lagging, m)
				}
			})
		}
	}
	all.Wait()
	votes = map[audit.Hash][]*witness{}
	for _, m := range w.members {
		if hash, ok := m.vote(told); ok {
			votes[hash] = append(votes[hash], m)
		}
	}
	return votes, lagging
}

// vote is what all the member's places told; false where one did not, or told another.
func (m *witness) vote(told map[*spot]audit.Hash) (audit.Hash, bool) {
	first, ok := told[m.spots[0]]
	for _, s := range m.spots {
		hash, has := told[s]
		ok = ok && has && hash == first
	}
	return first, ok
}

var errNoRecord = errors.New("it has no such record")

// hash asks for that of a record, as it is in the node's files, where it is not the head that it told.
func (s *spot) hash(ctx context.Context, sequence uint64) (audit.Hash, error) {
	if s.head.Sequence == sequence {
		return s.head.Hash, nil
	}
	page, err := s.node.AuditList(ctx, &v1.AuditServiceListRequest{From: sequence, PageSize: 1})
	if err != nil {
		return audit.Hash{}, err
	}
	if len(page.GetRecords()) == 0 || page.GetRecords()[0].GetSequence() != sequence {
		return audit.Hash{}, errNoRecord
	}
	return audit.ParseHash(page.GetRecords()[0].GetHash())
}

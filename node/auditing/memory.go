package auditing

import (
	"errors"
	"slices"
	"sync"

	"github.com/keyquorum/keyquorum/internal/audit"
)

// Memory is a Store that keeps the newest records for as long as the process lives. Its zero value keeps 65536.
type Memory struct {
	// Most is how many records are kept; 65536 if zero.
	Most int

	mu   sync.Mutex
	runs []chunk
	full bool
}

func (m *Memory) most() int {
	if m.Most == 0 {
		return 65536
	}
	return m.Most
}

// Head implements Store.
func (m *Memory) Head() audit.Head {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.head()
}

func (m *Memory) head() audit.Head {
	if len(m.runs) == 0 {
		return audit.Head{}
	}
	return m.runs[len(m.runs)-1].last()
}

// Append implements Store.
func (m *Memory) Append(before audit.Head, entries []audit.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	head := m.head()
	for len(entries) > 0 && entries[0].Sequence <= head.Sequence {
		before, entries = entries[0].Head(), entries[1:]
	}
	switch {
	case len(entries) == 0:
	case len(m.runs) > 0 && before == head:
		last := &m.runs[len(m.runs)-1]
		last.entries = append(last.entries, entries...)
	default:
		m.runs = append(m.runs, chunk{before, slices.Clone(entries)})
	}
	m.trim()
	return nil
}

// trim drops the oldest.
func (m *Memory) trim() {
	n := 0
	for i := range m.runs {
		n += len(m.runs[i].entries)
	}
	for over := n - m.most(); over > 0; {
		m.full = true
		first := &m.runs[0]
		if len(first.entries) <= over {
			over -= len(first.entries)
			m.runs = m.runs[1:]
			continue
		}
		first.before = first.entries[over-1].Head()
		first.entries = slices.Clone(first.entries[over:])
		over = 0
	}
}

var errOverlap = errors.New("audit records to be filled in are there already")

// Fill implements Store.
func (m *Memory) Fill(before audit.Head, entries []audit.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := 0
	for at < len(m.runs) && m.runs[at].before.Sequence < entries[len(entries)-1].Sequence {
		at++
	}
	if at > 0 && m.runs[at-1].last().Sequence > before.Sequence {
		return errOverlap
	}
	m.runs = slices.Insert(m.runs, at, chunk{before, slices.Clone(entries)})
	m.trim()
	return nil
}

// Gaps implements Store.
func (m *Memory) Gaps() []audit.Gap {
	m.mu.Lock()
	defer m.mu.Unlock()
	var gaps []audit.Gap
	for i, run := range slices.Backward(m.runs) {
		after := uint64(0)
		if i > 0 {
			after = m.runs[i-1].last().Sequence
		}
		if before := run.before; before.Sequence > after && (i > 0 || !m.full) {
			gaps = append(gaps, audit.Gap{From: after + 1, To: before.Sequence, Last: before.Hash})
		}
	}
	return gaps
}

// Read implements Store.
func (m *Memory) Read(from uint64, most int) (before audit.Head, entries []audit.Entry, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.runs {
		run := &m.runs[i]
		if run.last().Sequence < from {
			continue
		}
		skip := int(max(from, run.before.Sequence+1) - run.before.Sequence - 1)
		if before = run.before; skip > 0 {
			before = run.entries[skip-1].Head()
		}
		n := min(max(1, most/400), len(run.entries)-skip) // a line has some 400 bytes
		return before, slices.Clone(run.entries[skip : skip+n]), nil
	}
	return audit.Head{}, nil, nil
}

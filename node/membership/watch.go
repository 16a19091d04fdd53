package membership

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// watch remembers since when each non-voter has kept up.
type watch struct {
	stable time.Duration
	since  map[raft.ServerID]time.Time
}

func newWatch(stable time.Duration) *watch {
	return &watch{stable: stable, since: make(map[raft.ServerID]time.Time)}
}

// note records whether a non-voter keeps up now.
func (w *watch) note(id raft.ServerID, keepsUp bool) {
	if !keepsUp {
		delete(w.since, id)
	} else if _, ok := w.since[id]; !ok {
		w.since[id] = time.Now()
	}
}

func (w *watch) ready(id raft.ServerID) bool {
	since, ok := w.since[id]
	return ok && time.Since(since) >= w.stable
}

// lag is how far behind the leader's commit index a node may be and still count as caught up: what is committed
// while the question is on its way.
const lag = 256

// look asks each non-voter that could become a voter how far it is, all at once.
func (m *Manager) look(ctx context.Context, w *watch, servers []raft.Server) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Interval)
	defer cancel()
	view, commit := m.cfg.View(), m.cfg.Raft.CommitIndex()
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, server := range servers {
		member, ok := view.Member(string(server.ID))
		if server.Suffrage == raft.Voter || !ok || member.Replica {
			continue
		}
		asked.Go(func() {
			applied, err := m.cfg.Applied(ctx, member.RPCAddress)
			mu.Lock()
			defer mu.Unlock()
			w.note(server.ID, err == nil && applied+lag >= commit)
		})
	}
	asked.Wait()
}

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
	// silent is the number of voters that did not answer at the last look.
	silent int
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

// look asks each voter whether it answers, and each non-voter that could become one how far it is, all at once.
func (m *Manager) look(ctx context.Context, w *watch, servers []raft.Server) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Interval)
	defer cancel()
	view, commit := m.cfg.View(), m.cfg.Raft.CommitIndex()
	var mu sync.Mutex
	var asked sync.WaitGroup
	w.silent = 0
	for _, server := range servers {
		member, ok := view.Member(string(server.ID))
		voter := server.Suffrage == raft.Voter
		if server.ID == m.cfg.Self || !voter && (!ok || member.Replica) {
			continue
		}
		asked.Go(func() {
			applied, err := m.cfg.Applied(ctx, member)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !voter:
				w.note(server.ID, err == nil && applied+lag >= commit)
			case err != nil:
				w.silent++
			}
		})
	}
	asked.Wait()
}

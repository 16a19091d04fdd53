package placement_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/node/placement"
)

// world is the cluster as its leader "eu1" sees it: who is well, and when it handed over to whom.
type world struct {
	state   *fsm.FSM
	voters  []string
	mu      sync.Mutex
	ill     map[string]bool
	handed  []string
	at      []time.Duration
	refuses error
	start   time.Time
}

func newWorld(t *testing.T, region string, members ...fsm.Member) *world {
	t.Helper()
	w := &world{
		state: fsm.New(fsm.Config{OnHalt: func(err error) { t.Error(err) }}), ill: map[string]bool{}, start: time.Now(),
	}
	settings := fsm.DefaultSettings()
	settings.LeaderRegion = region
	entry := fsm.Entry{Commands: []fsm.Command{{Op: fsm.Found{ClusterID: "c", Settings: settings, KeyringCheck: []byte("k")}}}}
	for _, m := range members {
		m.Name, m.RPCAddress, m.RaftAddress, m.Format = m.ID, m.ID+":1", m.ID+":2", fsm.Format
		entry.Commands = append(entry.Commands, fsm.Command{Op: fsm.PutMember{Member: m}})
		if !m.Replica {
			w.voters = append(w.voters, m.ID)
		}
	}
	data, err := fsm.EncodeEntry(entry)
	if err != nil {
		t.Fatal(err)
	}
	results, _ := w.state.Apply(&raft.Log{Index: 1, Term: 1, Type: raft.LogCommand, Data: data}).([]fsm.Result)
	for _, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return w
}

func (w *world) handOver(_ context.Context, id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handed, w.at = append(w.handed, id), append(w.at, time.Since(w.start))
	return w.refuses
}

func (w *world) fit(_ context.Context, m fsm.Member) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.ill[m.ID]
}

func (w *world) set(id string, ill bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ill[id] = ill
}

// lead has eu1 lead for a while.
func (w *world) lead(t *testing.T, p *placement.Placement, d time.Duration, meanwhile func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if meanwhile != nil {
		go meanwhile()
	}
	if err := p.Run(ctx); err != nil {
		t.Error(err)
	}
}

func (w *world) placement() *placement.Placement {
	return placement.New(placement.Config{
		Self: "eu1", View: w.state.View, Voters: func() []string { return w.voters }, Fit: w.fit, HandOver: w.handOver,
		Logger: slog.New(slog.DiscardHandler),
	})
}

func in(t *testing.T, test func(*testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func member(id, region string) fsm.Member { return fsm.Member{ID: id, Region: region} }

func TestOnlyAVoterOfThePreferredRegionIsHandedLeadership(t *testing.T) {
	replica := member("us2", "us")
	replica.Replica = true
	for name, tt := range map[string]struct {
		region string
		want   []string
	}{
		"none preferred":     {"", nil},
		"where it is":        {"eu", nil},
		"where nobody is":    {"mars", nil},
		"where a voter is":   {"ap", []string{"ap1"}},
		"where a replica is": {"us", nil},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				w := newWorld(t, tt.region, member("eu1", "eu"), member("eu2", "eu"), member("ap1", "ap"), replica)
				w.lead(t, w.placement(), 15*time.Second, nil)
				if !slices.Equal(w.handed, tt.want) {
					t.Errorf("handed over to %v, want %v", w.handed, tt.want)
				}
			})
		})
	}
}

func TestAVoterHasToDoWellForAWhileFirst(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, "us", member("eu1", "eu"), member("us1", "us"), member("us2", "us"))
		w.set("us1", true)
		w.set("us2", true)
		w.lead(t, w.placement(), time.Minute, func() {
			time.Sleep(20*time.Second + time.Millisecond)
			w.set("us2", false)
			time.Sleep(5 * time.Second)
			w.set("us2", true)
			time.Sleep(time.Second)
			w.set("us2", false)
		})
		if len(w.at) == 0 || w.handed[0] != "us2" || w.at[0] < 26*time.Second+placement.Patience {
			t.Errorf("handed over to %v at %v, want to us2 once it had done well for %v", w.handed, w.at, placement.Patience)
		}
	})
}

func TestAttemptsThatComeToNothingGetRarer(t *testing.T) {
	for name, refusal := range map[string]error{"refused": errors.New("no"), "lost again at once": nil} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				w := newWorld(t, "us", member("eu1", "eu"), member("us1", "us"))
				w.refuses = refusal
				p := w.placement()
				for range 60 { // it leads again and again, for a minute each
					w.lead(t, p, time.Minute, nil)
				}
				if n := len(w.at); n < 4 || n > 12 {
					t.Errorf("%d attempts within the hour, at %v", n, w.at)
				}
			})
		})
	}
}

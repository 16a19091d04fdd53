package sim

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// pair is two wires, of which the second answers each message with what it is told of it.
type pair struct {
	sky  *sky
	from *wire
	got  chan uint64 // the terms of the messages that came
}

func newPair(t *testing.T) *pair {
	t.Helper()
	_, a := raft.NewInmemTransport("a")
	_, b := raft.NewInmemTransport("b")
	a.Connect("b", b)
	p := &pair{sky: &sky{wires: make(map[raft.ServerID]*wire)}, got: make(chan uint64, 100)}
	random := rand.New(rand.NewPCG(1, 1))
	p.from = p.sky.wrap("a", random, a)
	to := p.sky.wrap("b", random, b)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case rpc := <-to.Consumer():
				if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
					p.got <- req.Term
				}
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		if err := errors.Join(p.from.Close(), to.Close()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *pair) send(term uint64) error {
	var res raft.AppendEntriesResponse
	return p.from.AppendEntries("b", "b", &raft.AppendEntriesRequest{Term: term}, &res)
}

// came gives the messages that have come by now.
func (p *pair) came() (terms []uint64) {
	synctest.Wait()
	for len(p.got) > 0 {
		terms = append(terms, <-p.got)
	}
	return terms
}

func TestWhatTheWeatherDoesToMessages(t *testing.T) {
	for name, c := range map[string]struct {
		weather weather
		fails   bool
		soon    string // the terms that have come when the sender has its answer
		later   string // and those that come after that
	}{
		"nothing": {weather{}, false, "[1]", "[]"},
		"loses":   {weather{lose: 1}, true, "[]", "[]"},
		"mutes":   {weather{mute: 1}, true, "[1]", "[]"},
		"delays":  {weather{delay: 1, most: time.Second}, false, "[1]", "[]"},
		"repeats": {weather{repeat: 1, most: time.Second}, false, "[1]", "[1]"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				p.sky.now.Store(&c.weather)
				if err := p.send(1); (err != nil) != c.fails {
					t.Errorf("the sender got %v", err)
				}
				if got := show(p.came()); got != c.soon {
					t.Errorf("%v came, want %v", got, c.soon)
				}
				time.Sleep(time.Minute)
				if got := show(p.came()); got != c.later {
					t.Errorf("%v came later, want %v", got, c.later)
				}
				if hit := p.sky.hits.Load() > 0; hit == (name == "nothing") {
					t.Errorf("hit: %v", hit)
				}
			})
		})
	}
}

func TestALateMessageComesBehindOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.sky.now.Store(&weather{late: 1, most: time.Hour})
		if err := p.send(1); err == nil {
			t.Error("the sender has an answer to a message that is late")
		}
		p.sky.now.Store(nil)
		if err := p.send(2); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if got := show(p.came()); got != "[2 1]" {
			t.Errorf("%v came, want the second before the first", got)
		}
	})
}

func show(terms []uint64) string {
	var b strings.Builder
	for i, term := range terms {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteByte(byte('0' + term))
	}
	return "[" + b.String() + "]"
}

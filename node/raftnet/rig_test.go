package raftnet

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/keyquorum/keyquorum/test/memnet"
)

// The tests of the repairs start one real Raft node, n2, and play the other members by hand: they send what a
// leader would, over the library's own transport on a network in memory. Each scenario runs with the repair and
// without, and without it the fault has to show: when the library no longer has it, the test says so.

const (
	bare     = false
	repaired = true
)

// inBubble runs f under virtual time; it fails when goroutines are left at the end.
func inBubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// open makes a host's transport, with the repairs or bare.
func open(t *testing.T, n *memnet.Net, host string, repair bool) Inner {
	t.Helper()
	l, err := n.Listen(host + ":7401")
	if err != nil {
		t.Fatal(err)
	}
	cfg := TCPConfig{Listener: l, Dial: n.Dialer(host)}
	if repair {
		trans, err := NewTCP(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return trans
	}
	cfg = cfg.withDefaults()
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger: hclog.NewNullLogger(), Stream: newStream(cfg), MaxPool: 3, MaxRPCsInFlight: 1, Timeout: cfg.Timeout,
	})
}

var cluster = raft.Configuration{Servers: []raft.Server{
	{ID: "n1", Address: "n1:7401"}, {ID: "n2", Address: "n2:7401"}, {ID: "n3", Address: "n3:7401"},
}}

// node is a real Raft node.
type node struct {
	*raft.Raft
	fsm  *words
	logs *gatedLogs
}

// start runs n2. It stays a follower unless the test takes an hour.
func start(t *testing.T, n *memnet.Net, repair bool) *node {
	t.Helper()
	return run(t, "n2", open(t, n, "n2", repair), still)
}

// still keeps a node a follower for an hour.
func still(c *raft.Config) { c.HeartbeatTimeout, c.ElectionTimeout = time.Hour, time.Hour }

// run starts a member of the cluster on a transport, and stops it at the end of the test.
func run(t *testing.T, id raft.ServerID, trans Inner, tune func(*raft.Config)) *node {
	t.Helper()
	store := raft.NewInmemStore()
	node := &node{fsm: new(words), logs: &gatedLogs{InmemStore: store}}
	c := raft.DefaultConfig()
	c.LocalID = id
	c.Logger = hclog.NewNullLogger()
	if tune != nil {
		tune(c)
	}
	snapshots := raft.NewInmemSnapshotStore()
	if err := raft.BootstrapCluster(c, node.logs, store, snapshots, trans, cluster); err != nil {
		t.Fatal(err)
	}
	var err error
	wrapped, repair := trans.(*Transport)
	var machine raft.FSM = node.fsm
	if repair {
		machine = wrapped.FSM(node.fsm)
	}
	if node.Raft, err = raft.NewRaft(c, machine, node.logs, store, snapshots, trans); err != nil {
		t.Fatal(err)
	}
	if repair {
		wrapped.BindRaft(node.Raft, node.logs)
	}
	t.Cleanup(func() {
		if err := node.Shutdown().Error(); err != nil {
			t.Error(err)
		}
	})
	return node
}

// peer is a member that is played by hand.
type peer struct {
	Inner
	t    *testing.T
	id   string
	term uint64
}

// play gives the part of the leader of a term.
func play(t *testing.T, n *memnet.Net, id string, term uint64, repair bool) *peer {
	t.Helper()
	trans := open(t, n, id, repair)
	t.Cleanup(func() { trans.Close() })
	return &peer{Inner: trans, t: t, id: id, term: term}
}

func (p *peer) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(p.id), Addr: []byte(p.LocalAddr())}
}

// append sends n2 entries that follow prev, and says what is committed.
func (p *peer) append(prev raft.Log, commit uint64, entries ...*raft.Log) raft.AppendEntriesResponse {
	p.t.Helper()
	var resp raft.AppendEntriesResponse
	req := &raft.AppendEntriesRequest{
		RPCHeader: p.header(), Term: p.term,
		PrevLogEntry: prev.Index, PrevLogTerm: prev.Term, Entries: entries, LeaderCommitIndex: commit,
	}
	if err := p.AppendEntries("n2", "n2:7401", req, &resp); err != nil {
		p.t.Errorf("%s appends: %v", p.id, err)
	}
	if req.LeaderCommitIndex != commit {
		p.t.Errorf("the caller's request was changed: commit index %d, want %d", req.LeaderCommitIndex, commit)
	}
	return resp
}

func (p *peer) heartbeat() raft.AppendEntriesResponse { return p.append(raft.Log{}, 0) }

// install sends n2 a snapshot.
func (p *peer) install(last raft.Log, content string) (raft.InstallSnapshotResponse, error) {
	var resp raft.InstallSnapshotResponse
	err := p.InstallSnapshot("n2", "n2:7401", &raft.InstallSnapshotRequest{
		RPCHeader: p.header(), SnapshotVersion: 1, Term: p.term,
		LastLogIndex: last.Index, LastLogTerm: last.Term,
		Configuration: raft.EncodeConfiguration(cluster), ConfigurationIndex: 1,
		Size: int64(len(content)),
	}, &resp, strings.NewReader(content))
	return resp, err
}

func (p *peer) mustInstall(last raft.Log, content string) raft.InstallSnapshotResponse {
	p.t.Helper()
	resp, err := p.install(last, content)
	if err != nil {
		p.t.Fatalf("%s installs a snapshot: %v", p.id, err)
	}
	return resp
}

// founding is the entry that every node has from the start.
var founding = raft.Log{Index: 1, Term: 1}

func entry(index, term uint64, word string) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: []byte(word)}
}

// words is a state machine that strings words together.
type words struct {
	mu  sync.Mutex
	all []string
	// held keeps snapshots from being written until it is closed; nil for not at all.
	held chan struct{}
}

// String waits until all is quiet and gives what was applied.
func (w *words) String() string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.all, " ")
}

func (w *words) Apply(l *raft.Log) any {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(l.Data))
	return nil
}

func (w *words) ApplyBatch(logs []*raft.Log) []any {
	for _, l := range logs {
		if l.Type == raft.LogCommand {
			w.Apply(l)
		}
	}
	return make([]any, len(logs))
}

func (w *words) Snapshot() (raft.FSMSnapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return snapshot{slices.Clone(w.all), w.held}, nil
}

func (w *words) Restore(r io.ReadCloser) error {
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = strings.Fields(b.String())
	return nil
}

type snapshot struct {
	words []string
	held  chan struct{}
}

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if s.held != nil {
		<-s.held
	}
	if _, err := fmt.Fprint(sink, strings.Join(s.words, " ")); err != nil {
		return err
	}
	return sink.Close()
}

func (snapshot) Release() {}

// gatedLogs is a log whose disk can be made to hang.
type gatedLogs struct {
	*raft.InmemStore
	mu   sync.Mutex
	gate chan struct{}
}

// hang makes appends hang until the function that it gives is called.
func (g *gatedLogs) hang() (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	gate := make(chan struct{})
	g.gate = gate
	return func() { close(gate) }
}

func (g *gatedLogs) StoreLogs(logs []*raft.Log) error {
	g.mu.Lock()
	gate := g.gate
	g.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return g.InmemStore.StoreLogs(logs)
}

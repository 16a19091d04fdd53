package gossip

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxGone bounds how many missing nodes are remembered; the longest gone are forgotten first.
const maxGone = 64

// Node is another node as gossip knows it.
type Node struct {
	// ID is the node's unique id.
	ID string
	// Name is what people call it; empty if it did not say, or said it in a way that this node cannot read.
	Name string
	// RPCAddress is the HOST:PORT at which it serves RPC; empty as above.
	RPCAddress string
	// RaftAddress is the HOST:PORT at which its Raft is; empty as above.
	RaftAddress string
	// GossipAddress is the IP:PORT at which it gossips.
	GossipAddress string
}

// roster keeps who is alive. memberlist calls its Notify methods under memberlist's own lock: they copy, note
// and return.
type roster struct {
	self    string
	log     *slog.Logger
	changed chan struct{}

	mu   sync.Mutex // nothing is called under it
	live map[string]Node
	gone map[string]missing
}

// missing is a node that was there once.
type missing struct {
	address string
	since   time.Time
}

func newRoster(self string, log *slog.Logger) *roster {
	return &roster{
		self: self, log: log, changed: make(chan struct{}, 1),
		live: make(map[string]Node), gone: make(map[string]missing),
	}
}

// NotifyJoin notes a node that is there, for the first time or again.
func (r *roster) NotifyJoin(n *memberlist.Node) { r.note(n) }

// NotifyUpdate notes that a node tells something else about itself.
func (r *roster) NotifyUpdate(n *memberlist.Node) { r.note(n) }

// NotifyLeave notes that a node left or is believed dead.
func (r *roster) NotifyLeave(n *memberlist.Node) {
	if n.Name == r.self {
		return
	}
	r.mu.Lock()
	delete(r.live, n.Name)
	r.gone[n.Name] = missing{address: n.Address(), since: time.Now()}
	r.forgetOldest()
	r.mu.Unlock()
	r.signal()
}

func (r *roster) note(n *memberlist.Node) {
	if n.Name == r.self {
		return
	}
	m, err := decodeMeta(n.Meta)
	if err != nil {
		r.log.Warn("gossip: a node is not proposed: what it tells about itself cannot be read",
			"node", n.Name, "address", n.Address(), "metadata", err)
	}
	node := Node{ID: n.Name, Name: m.Name, RPCAddress: m.RPCAddress, RaftAddress: m.RaftAddress, GossipAddress: n.Address()}
	r.mu.Lock()
	before, was := r.live[n.Name]
	r.live[n.Name] = node
	delete(r.gone, n.Name)
	r.mu.Unlock()
	if !was || before != node {
		r.signal()
	}
}

func (r *roster) signal() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *roster) forgetOldest() {
	if len(r.gone) <= maxGone {
		return
	}
	oldest := slices.MinFunc(slices.Collect(maps.Keys(r.gone)), func(a, b string) int {
		return r.gone[a].since.Compare(r.gone[b].since)
	})
	delete(r.gone, oldest)
}

func (r *roster) nodes() []Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.live), func(a, b Node) int { return strings.Compare(a.ID, b.ID) })
}

// peers leaves out own: a node that took the address over from another one is not its own peer.
func (r *roster) peers(own string) []string {
	var out []string
	for _, n := range r.nodes() {
		if n.RPCAddress != "" && n.RPCAddress != own {
			out = append(out, n.RPCAddress)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (r *roster) raftAddress(id string) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.live[id]
	return n.RaftAddress, n.RaftAddress != ""
}

func (r *roster) alone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.live) == 0
}

// missing returns the gossip addresses of nodes that were there once, sorted.
func (r *roster) missing() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, m := range r.gone {
		out = append(out, m.address)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

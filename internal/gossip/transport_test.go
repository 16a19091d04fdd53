package gossip

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"
)

// What memberlist's messages begin with.
const (
	pushPull  = 6
	encrypted = 10
	labelled  = 244
)

// Who has the label, which goes in the clear, and not the key, cannot have a node keep 20 MiB.
func TestAStreamPastItsBoundIsHungUpOn(t *testing.T) {
	a := boot(t, "a", nil)
	here, there := net.Pipe()
	defer here.Close()
	go a.transport.pass(there)
	label := a.cfg.Label
	begin := append([]byte{labelled, byte(len(label))}, label...)
	begin = append(begin, encrypted, 0x01, 0x40, 0, 0) // 20 MiB follow
	if err := here.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	sent, err := here.Write(begin)
	piece := make([]byte, 64<<10)
	for err == nil && sent < 20<<20 {
		var n int
		n, err = here.Write(piece)
		sent += n
	}
	if sent != maxStream || err != io.ErrClosedPipe {
		t.Errorf("%d bytes were read, then %v; want %d", sent, err, maxStream)
	}
}

// Whoever has the label can announce as much as they like, and hang up, as often as they like, and fills no log.
func TestWhatIsAnnouncedFillsNoLog(t *testing.T) {
	for _, line := range []string{
		"[WARN] memberlist: Remote node state size is (20971520) limit is (20971520)\n", "Err: Could not set the deadline: closed\n",
	} {
		log := &logBook{}
		w := &logWriter{log: slog.New(slog.NewTextHandler(log, nil))}
		for range 9 {
			if _, err := w.Write([]byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		if told := strings.Count(log.String(), "level=WARN"); told != 1 || strings.Count(log.String(), "\n") != 1 {
			t.Errorf("%q is told %d times", line, told)
		}
	}
}

// The state of a large cluster, with the longest metadata that there can be, is within the bound.
func TestTheStateOfALargeClusterIsWithinTheBound(t *testing.T) {
	const nodes = 390
	a := boot(t, "a", func(c *Config) { c.Key, c.Insecure, c.Label = nil, true, "" })
	here, there := net.Pipe()
	defer here.Close()
	go a.transport.pass(there)
	if err := here.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var state bytes.Buffer
	state.WriteByte(pushPull)
	enc := codec.NewEncoder(&state, new(codec.MsgpackHandle))
	put := func(v any) {
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	put(struct {
		Nodes, UserStateLen int
		Join                bool
	}{Nodes: nodes, Join: true})
	for i := range nodes {
		put(struct {
			Name        string
			Addr        []byte
			Port        uint16
			Meta        []byte
			Incarnation uint32
			State       memberlist.NodeStateType
			Vsn         []uint8
		}{fmt.Sprintf("%026d", i), net.IPv6loopback, 9999, longestMeta(), 1 << 31, memberlist.StateAlive, []uint8{1, 5, 2, 0, 0, 0}})
	}
	if _, err := here.Write(state.Bytes()); err != nil {
		t.Fatalf("of %d bytes: %v", state.Len(), err)
	}
	go func() { _, _ = io.Copy(io.Discard, here) }()
	a.awaitsThat(func() bool { return len(a.Nodes()) == nodes }, nodes)
	if each := state.Len() / nodes; each > 660 {
		t.Errorf("a node takes %d bytes", each)
	}
}

// longestMeta is what a node can tell of itself at the most.
func longestMeta() []byte {
	m := meta{RPCAddress: "node.example:7400", RaftAddress: "node.example:7401"}
	for len(m.encode()) < memberlist.MetaMaxSize {
		m.Name += rand.Text()[:1]
	}
	return m.encode()
}

package e2e_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// wire is all that goes over loopback, from newWire to stop, as whoever taps a network sees it.
type wire struct {
	fd    int
	ended atomic.Bool
	done  chan struct{}

	mu    sync.Mutex
	open  map[flowKey]*flow
	all   []*flow
	ports map[portKey]int64 // bytes of content, by the port at either end
	// odd is what was captured and is neither TCP nor UDP over IPv4.
	odd     []byte
	frames  int
	dropped uint32
	err     error
}

type portKey struct {
	udp  bool
	port uint16
}

type flowKey struct {
	udp      bool
	from, to netip.AddrPort
}

// flow is what one side of a connection says, or one address sends another by UDP.
type flow struct {
	flowKey
	next  uint32 // the sequence number that follows data
	data  []byte
	ahead map[uint32][]byte // segments that came before what goes before them
}

const (
	// wireBuffer is what the kernel keeps for the test while it does not read.
	wireBuffer = 256 << 20
	// largestFrame is more than a segment that loopback has not cut up.
	largestFrame = 1 << 18
	ethernet     = 14
)

// newWire begins the capture. It needs root.
func newWire(t *testing.T) *wire {
	t.Helper()
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8 // in the network's order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{fd: fd, done: make(chan struct{}), open: make(map[flowKey]*flow), ports: make(map[portKey]int64)}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wireBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: lo.Index}),
	)
	if err != nil {
		unix.Close(fd)
		t.Fatal(err)
	}
	go w.run()
	t.Cleanup(w.end)
	return w
}

// run takes frames until there are no more after the end was asked for.
func (w *wire) run() {
	defer close(w.done)
	buf := make([]byte, largestFrame)
	for {
		n, from, err := unix.Recvfrom(w.fd, buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			if w.ended.Load() {
				return
			}
			continue
		case err == nil && n > len(buf):
			err = fmt.Errorf("a frame of %d bytes was cut off", n)
		}
		if err != nil {
			w.err = err
			return
		}
		// Loopback shows each frame twice: as it goes out, and as it comes in.
		if link, ok := from.(*unix.SockaddrLinklayer); !ok || link.Pkttype != unix.PACKET_OUTGOING {
			w.take(buf[:n])
		}
	}
}

// end closes the capture, if it is open still.
func (w *wire) end() {
	if w.ended.Swap(true) {
		return
	}
	<-w.done
	if stats, err := unix.GetsockoptTpacketStats(w.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		w.dropped = stats.Drops
	} else {
		w.err = errors.Join(w.err, err)
	}
	unix.Close(w.fd)
}

// stop ends the capture and gives all flows. A capture with holes shows nothing, so it must have none.
func (w *wire) stop(t *testing.T) []*flow {
	t.Helper()
	w.end()
	if w.err != nil || w.dropped > 0 {
		t.Fatalf("the capture has holes: %d frames dropped, %v", w.dropped, w.err)
	}
	for _, f := range w.all {
		if len(f.ahead) > 0 {
			t.Fatalf("the capture has a hole between %s and %s", f.from, f.to)
		}
	}
	return w.all
}

func (w *wire) take(frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames++
	if !w.takeIP(frame) {
		w.odd = append(w.odd, frame...)
	}
}

// takeIP tells whether it could make something of the frame.
func (w *wire) takeIP(frame []byte) bool {
	if len(frame) < ethernet+20 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
		return false
	}
	ip := frame[ethernet:]
	header, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	fragment := binary.BigEndian.Uint16(ip[6:])&0x3fff != 0
	if total == 0 { // a segment that is larger than the field can say
		total = len(ip)
	}
	if fragment || total > len(ip) || total < header+8 {
		return false
	}
	body := ip[header:total]
	key := flowKey{
		udp:  ip[9] == unix.IPPROTO_UDP,
		from: netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:16])), binary.BigEndian.Uint16(body)),
		to:   netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:20])), binary.BigEndian.Uint16(body[2:])),
	}
	switch {
	case key.udp:
		f := w.flow(key, 0, false)
		f.data = append(f.data, body[8:]...)
		w.count(key, len(body)-8)
		return true
	case ip[9] == unix.IPPROTO_TCP && len(body) >= 20 && len(body) >= int(body[12]>>4)*4:
		const syn = 2
		opens := body[13]&syn != 0
		seq, content := binary.BigEndian.Uint32(body[4:]), body[int(body[12]>>4)*4:]
		if opens {
			seq++
		}
		w.count(key, w.flow(key, seq, opens).add(seq, content))
		return true
	}
	return false
}

// flow gives the flow with the key, a new one where a connection opens.
func (w *wire) flow(key flowKey, seq uint32, opens bool) *flow {
	f := w.open[key]
	if f == nil || opens && f.next != seq {
		f = &flow{flowKey: key, next: seq, ahead: make(map[uint32][]byte)}
		w.open[key] = f
		w.all = append(w.all, f)
	}
	return f
}

func (w *wire) count(key flowKey, n int) {
	w.ports[portKey{key.udp, key.from.Port()}] += int64(n)
	w.ports[portKey{key.udp, key.to.Port()}] += int64(n)
}

// add puts a segment where it belongs, and gives how much longer that makes what is known.
func (f *flow) add(seq uint32, content []byte) int {
	before := len(f.data)
	if !f.extend(seq, content) {
		f.ahead[seq] = append([]byte(nil), content...)
	}
	for again := true; again; {
		again = false
		for seq, content := range f.ahead {
			if f.extend(seq, content) {
				delete(f.ahead, seq)
				again = true
			}
		}
	}
	return len(f.data) - before
}

// extend tells whether the segment is no longer needed: it begins within what is known, or right after.
func (f *flow) extend(seq uint32, content []byte) bool {
	known := int(int32(f.next - seq))
	if known < 0 {
		return len(content) == 0
	}
	if known < len(content) {
		f.data = append(f.data, content[known:]...)
		f.next += uint32(len(content) - known)
	}
	return true
}

// A hole, an overlap, a repetition and a connection that takes the ports of an earlier one: the flow is what was said.
func TestAFlowIsWhatWasSaid(t *testing.T) {
	f := &flow{next: 0xffff_fffe, ahead: make(map[uint32][]byte)}
	f.add(0xffff_fffe, []byte("ab"))
	f.add(3, []byte("fgh"))
	if len(f.ahead) != 1 || string(f.data) != "ab" {
		t.Errorf("with a hole it is %q", f.data)
	}
	f.add(0xffff_ffff, []byte("bcdef"))
	f.add(0, []byte("cd"))
	if got := string(f.data); got != "abcdefgh" || len(f.ahead) != 0 {
		t.Errorf("it is %q, and %d segments wait", got, len(f.ahead))
	}
}

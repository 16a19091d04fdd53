package memnet

import (
	"sync"
	"time"
)

// window bounds what is under way in one direction of a connection, or has arrived and is not read yet. A write
// beyond it blocks.
const window = 64 << 10

// pipe is one direction of a connection. The Net's mutex guards it.
type pipe struct {
	net      *Net
	from, to string
	changed  *sync.Cond // for the one who reads and the one who writes

	queue []segment
	size  int // bytes in queue
	last  time.Time
	torn  bool // something that was sent will never arrive
	ended bool // the end was read
	deaf  bool // nobody will read any more
}

// segment is what one write sent, or the end of the stream.
type segment struct {
	data []byte
	end  bool
	due  time.Time
	held bool
}

func newPipe(n *Net, from, to string) *pipe {
	return &pipe{net: n, from: from, to: to, changed: sync.NewCond(&n.mu)}
}

// send puts s on its way, or loses it.
func (p *pipe) send(s segment) {
	size := uint64(len(s.data))
	if p.from != p.to && size > 0 {
		sent := p.net.sent[p.from]
		p.net.sent[p.from] = Sent{Writes: sent.Writes + 1, Bytes: sent.Bytes + size}
	}
	if p.torn || !p.net.reaches(p.from, p.to) {
		p.torn = true
		p.net.traffic.Dropped += size
		return
	}
	if p.deaf {
		return
	}
	s.held = !p.net.open(p.from, p.to)
	if s.held {
		p.net.traffic.Held += size
	} else {
		s.due = p.schedule()
	}
	p.queue = append(p.queue, s)
	p.size += len(s.data)
	p.changed.Broadcast()
}

// schedule gives the time when something sent now arrives: not before what was sent earlier.
func (p *pipe) schedule() time.Time {
	now := time.Now()
	due := now.Add(p.net.delay(p.from, p.to))
	if due.Before(p.last) {
		due = p.last
	}
	p.last = due
	if wait := due.Sub(now); wait > 0 {
		p.net.traffic.Slowed++
		time.AfterFunc(wait, p.wake)
	}
	return due
}

func (p *pipe) wake() {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	p.changed.Broadcast()
}

func (s *segment) arrived() bool { return !s.held && !s.due.After(time.Now()) }

// receive moves what has arrived into b. ok is false if that is nothing; n is 0 at the end of the stream.
func (p *pipe) receive(b []byte) (n int, ok bool) {
	for !p.ended && n < len(b) && len(p.queue) > 0 && p.queue[0].arrived() {
		first := &p.queue[0]
		if first.end {
			p.ended = n == 0
			break
		}
		moved := copy(b[n:], first.data)
		n += moved
		if first.data = first.data[moved:]; len(first.data) == 0 {
			p.queue = p.queue[1:]
		}
	}
	if n > 0 {
		p.size -= n
		p.changed.Broadcast()
	}
	return n, n > 0 || p.ended
}

// over tells whether the end of the stream has arrived, read or not.
func (p *pipe) over() bool {
	if p.ended {
		return true
	}
	last := len(p.queue) - 1
	return last >= 0 && p.queue[last].end && p.queue[last].arrived()
}

// settle brings a change of the link upon what is under way: it is lost, or held, or let go.
func (p *pipe) settle() {
	cut, held := !p.net.reaches(p.from, p.to), !p.net.open(p.from, p.to)
	kept := p.queue[:0:0]
	for _, s := range p.queue {
		switch {
		case s.arrived():
		case cut:
			p.torn = true
			p.size -= len(s.data)
			p.net.traffic.Dropped += uint64(len(s.data))
			continue
		case held:
			if !s.held {
				p.net.traffic.Held += uint64(len(s.data))
			}
			s.held = true
		case s.held:
			s.held, s.due = false, p.schedule()
		}
		kept = append(kept, s)
	}
	p.queue = kept
	p.changed.Broadcast()
}

// clear forgets what is under way.
func (p *pipe) clear() {
	p.queue, p.size = nil, 0
	p.changed.Broadcast()
}

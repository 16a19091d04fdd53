package memnet

import "time"

// link leads from one host to another, one way.
type link struct{ from, to string }

type state struct {
	cut, held bool
	delay     time.Duration
}

// Cut cuts the links between two hosts, both ways.
func (n *Net) Cut(a, b string) {
	n.update(func() { n.link(a, b).cut, n.link(b, a).cut = true, true })
}

// CutOneWay cuts the link that leads from one host to another. What comes the other way still arrives.
func (n *Net) CutOneWay(from, to string) {
	n.update(func() { n.link(from, to).cut = true })
}

// Hold holds back, both ways, what two hosts send each other, until the links are healed.
func (n *Net) Hold(a, b string) {
	n.update(func() { n.link(a, b).held, n.link(b, a).held = true, true })
}

// HoldOneWay holds back what one host sends another, until the link is healed.
func (n *Net) HoldOneWay(from, to string) {
	n.update(func() { n.link(from, to).held = true })
}

// Isolate cuts host off from all others, also from those that come to be later.
func (n *Net) Isolate(host string) {
	n.update(func() { n.isolated[host] = true })
}

// Rejoin undoes Isolate, and only that.
func (n *Net) Rejoin(host string) {
	n.update(func() { delete(n.isolated, host) })
}

// Freeze holds back all that host and others send each other, until it thaws.
func (n *Net) Freeze(host string) {
	n.update(func() { n.frozen[host] = true })
}

// Thaw undoes Freeze, and only that.
func (n *Net) Thaw(host string) {
	n.update(func() { delete(n.frozen, host) })
}

// Traffic counts what became of what was sent, in bytes.
type Traffic struct {
	// Dropped was lost at a link that was cut, Held was held back for a while.
	Dropped, Held uint64
	// Slowed counts writes that a slow link delayed.
	Slowed uint64
	// Reset counts connections that were reset.
	Reset uint64
}

// Sent counts what a host has written to other hosts, whether it arrived or not.
type Sent struct{ Writes, Bytes uint64 }

// SentBy gives what host has sent so far.
func (n *Net) SentBy(host string) Sent {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent[host]
}

// Traffic gives what has become of the network's traffic so far.
func (n *Net) Traffic() Traffic {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.traffic
}

// HealLink undoes what was cut or held between two hosts, both ways; not Isolate.
func (n *Net) HealLink(a, b string) {
	n.update(func() { n.link(a, b).heal(); n.link(b, a).heal() })
}

// Heal undoes all that was cut, held, isolated or frozen. Delays stay, and what was stopped.
func (n *Net) Heal() {
	n.update(func() {
		clear(n.isolated)
		clear(n.frozen)
		for _, s := range n.links {
			s.heal()
		}
	})
}

// Delay makes what two hosts send each other take d longer, each way; 0 makes it quick again. What is on its way
// is not affected.
func (n *Net) Delay(a, b string, d time.Duration) {
	n.update(func() { n.link(a, b).delay, n.link(b, a).delay = d, d })
}

// Reset resets all connections between two hosts, at both ends, whatever the links between them let through.
func (n *Net) Reset(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.between(a, b) {
		c.abort()
	}
}

// Stop ends host's present life as a killed process ends: its listeners, connections and Dialers are gone. It
// starts anew when it listens again or gets a new Dialer.
func (n *Net) Stop(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lives[host]++
	for _, l := range n.listeners {
		if l.addr.host() == host {
			l.shut()
		}
	}
	for _, c := range append([]*conn(nil), n.conns...) {
		if c.local.host() == host {
			c.die()
		}
	}
	n.changed.Broadcast()
}

// update makes a change to the links, and brings it upon the connections.
func (n *Net) update(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	for _, c := range append([]*conn(nil), n.conns...) {
		c.out.settle()
		if c.torn() && n.open(c.local.host(), c.remote.host()) && n.open(c.remote.host(), c.local.host()) {
			c.abort()
		}
	}
	n.changed.Broadcast()
}

func (n *Net) link(from, to string) *state {
	l := link{from, to}
	if n.links[l] == nil {
		n.links[l] = new(state)
	}
	return n.links[l]
}

func (s *state) heal() { s.cut, s.held = false, false }

// reaches tells whether what is sent from one host arrives at another, be it late.
func (n *Net) reaches(from, to string) bool {
	return from == to || !n.isolated[from] && !n.isolated[to] && !n.link(from, to).cut
}

// open tells whether it arrives without being held back.
func (n *Net) open(from, to string) bool {
	return from == to || n.reaches(from, to) && !n.link(from, to).held && !n.frozen[from] && !n.frozen[to]
}

func (n *Net) delay(from, to string) time.Duration {
	if from == to {
		return 0
	}
	return n.link(from, to).delay
}

// between gives one end of each connection between two hosts.
func (n *Net) between(a, b string) []*conn {
	var all []*conn
	for _, c := range n.conns {
		if c.dialled && (c.local.host() == a && c.remote.host() == b || c.local.host() == b && c.remote.host() == a) {
			all = append(all, c)
		}
	}
	return all
}

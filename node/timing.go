package node

import "time"

// Timing is Raft's and the leader's. Zero fields take those of LAN.
type Timing struct {
	// Heartbeat is how long a follower waits for its leader before it stands itself, and then for votes. It must leave
	// time for a follower's fsync, since heartbeats wait for it, and for ten round trips: the leader sends a heartbeat
	// a tenth to a fifth of it after the last was answered.
	Heartbeat time.Duration
	// Lease is how long a leader goes on without hearing from a majority; as Heartbeat. Nothing is committed without one in
	// any case, and a machine that is short of processor time should not depose its leader.
	Lease time.Duration
	// Stable is how long a new member must have kept up before it becomes a voter; 2 s.
	Stable time.Duration
	// Drain bounds how long Run finishes what is in flight at the end; 10 s.
	Drain time.Duration
}

// LAN is for voters of which a majority is within 50 ms of each other: a leader that is lost is missed after half a
// second to one and a half.
func LAN() Timing { return Timing{Heartbeat: 500 * time.Millisecond}.withDefaults() }

// WAN is for voters that are further apart. A round trip of 250 ms fits eight times into its heartbeat, so one that is
// lost and sent again deposes nobody; a leader that is lost is missed after two to six seconds. All else is as in a LAN:
// how soon followers hear of a commit does not depend on how far they are.
func WAN() Timing { return Timing{Heartbeat: 2 * time.Second}.withDefaults() }

func (t Timing) withDefaults() Timing {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&t.Heartbeat, 500*time.Millisecond)
	set(&t.Lease, t.Heartbeat)
	set(&t.Stable, 2*time.Second)
	set(&t.Drain, 10*time.Second)
	return t
}

// name is the setting that the timing comes of, or is closest to.
func (t Timing) name() string {
	if t.Heartbeat >= WAN().Heartbeat {
		return "wan"
	}
	return "lan"
}

const (
	// heartbeats is how many of them fit at least into the bound on staleness, so that losing a leader interrupts no
	// verification.
	heartbeats = 10
	// tripsPerHeartbeat is how many round trips are to fit into a heartbeat.
	tripsPerHeartbeat = 10
	// near is a round trip for which WAN's heartbeat is needlessly long.
	near = 10 * time.Millisecond
)

// staleness is the least bound on staleness that goes with the timing.
func (t Timing) staleness() time.Duration { return heartbeats * t.Heartbeat }

// fit is how a timing goes with the distance between the voters.
type fit int

const (
	fits fit = iota
	tooShort
	tooLong
	// outlasts is a timing with which a lost leader can outlast the bound on staleness.
	outlasts
)

// suits judges the timing by the round trip to the voter that completes a majority.
func (t Timing) suits(trip time.Duration) fit {
	switch {
	case t.name() == "lan" && trip > t.Heartbeat/tripsPerHeartbeat:
		return tooShort
	case t.name() == "wan" && trip < near:
		return tooLong
	}
	return fits
}

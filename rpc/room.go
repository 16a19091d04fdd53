package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Limits bound the requests that a handler has at a time, each kind by itself, so that none takes another's place.
// A request counts from its first byte until its answer is on the connection, so that answers which nobody reads are
// bounded too. Zero fields take their defaults.
type Limits struct {
	// Reads are Verify, Get, Status, Members, GetSettings and AuditService's Head; 2048.
	Reads int
	// Writes are those that callers send; 1024.
	Writes int
	// Revocations are Revoke and Delete, which can take long; 512.
	Revocations int
	// Bulk are VerifyBatch, List and KeyringStatus; 64. Past it they are refused.
	Bulk int
	// Turns are those of Bulk that are carried out at a time, while the others wait; 8. They take the most memory.
	Turns int
	// Watches are streams of audit records; 64.
	Watches int
	// Forwards are writes that other nodes pass on; 1024.
	Forwards int
	// Peers are what else nodes ask of each other; 256. Ticks and Applied, which freshness and revocation hang on, have
	// as many places of their own each.
	Peers int
	// CallerRate is how often in a second each known caller may ask, a second's worth ahead at most; any number if zero.
	CallerRate int
	// CallerRequests are those that each known caller can have at a time, of each kind; three quarters of the kind's if zero.
	CallerRequests int
}

func (l Limits) validate() error {
	if min(l.Reads, l.Writes, l.Revocations, l.Bulk, l.Turns, l.Watches, l.Forwards, l.Peers, l.CallerRate, l.CallerRequests) < 0 {
		return errors.New("rpc: Config.Limits must not be negative")
	}
	return nil
}

func (l Limits) withDefaults() Limits {
	set := func(n *int, to int) {
		if *n == 0 {
			*n = to
		}
	}
	set(&l.Reads, 2048)
	set(&l.Writes, 1024)
	set(&l.Revocations, 512)
	set(&l.Bulk, 64)
	set(&l.Turns, 8)
	set(&l.Watches, 64)
	set(&l.Forwards, 1024)
	set(&l.Peers, 256)
	return l
}

// maxRefusals bounds the requests that are being told that there are too many.
const maxRefusals = 1024

// room bounds the requests of a kind. It has no lock: verifications of all cores pass here.
type room struct {
	kind  string
	index int
	most  int64
	taken atomic.Int64
	// told is when the log was last told that the room was full.
	told seldom
}

func newRoom(kind string, most int) *room { return &room{kind: kind, most: int64(most)} }

// roomKinds is how many kinds of requests there are.
const roomKinds = 9

// numbered gives each room its index.
func numbered(rooms ...*room) {
	for i, r := range rooms {
		r.index = i
	}
}

// enter takes a place. Where it gives true, leave must follow.
func (r *room) enter() bool {
	if r.taken.Add(1) <= r.most {
		return true
	}
	r.taken.Add(-1)
	return false
}

func (r *room) leave() { r.taken.Add(-1) }

// turns are had by a few requests at a time. Nil turns are had by all.
type turns chan struct{}

// turnTimeout is how long a request waits for its turn.
const turnTimeout = 10 * time.Second

// take waits for a turn. Where it gives nil, giveBack must follow.
func (t turns) take(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no turn within %s", turnTimeout)
	}
}

func (t turns) giveBack() {
	if t != nil {
		<-t
	}
}

// seldom tells when to log again what can happen often.
type seldom struct{ last atomic.Int64 }

const seldomness = 10 * time.Second

// again tells, to one caller in a while, that it is time.
func (s *seldom) again() bool {
	now, last := time.Now().UnixNano(), s.last.Load()
	return now-last >= int64(seldomness) && s.last.CompareAndSwap(last, now)
}

package rpc

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyquorum/keyquorum/internal/pki"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// callers keeps each known caller within its share, so that one of them, gone astray, leaves room for the others. Members of
// the cluster and callers that are not told apart have no share of their own.
type callers struct {
	// rate is requests in a second; zero for any number.
	rate int64
	// most is the requests at a time, of each kind; zero for a share of the places that the kind has.
	most int64

	// known has a *usage for each actor. It is read without a lock.
	known sync.Map
	count atomic.Int64
	tidy  sync.Mutex
}

// maxUsages is the number of callers of which usage is kept at a time. Past it, those that ask for nothing now are
// forgotten.
const maxUsages = 4096

// usage is what one caller uses.
type usage struct {
	// taken has a count for each kind of room.
	taken [roomKinds]atomic.Int64
	// paid is the time, in nanoseconds since the epoch, up to which the caller's requests have used its rate (GCRA, the
	// generic cell rate algorithm, ITU-T I.371).
	paid atomic.Int64
}

// burst is how far ahead of its rate a caller can be.
const burst = time.Second

// enter takes a place of the caller's own share. Where it gives no error, leave must follow; it takes nil.
func (c *callers) enter(who *identity, in *room) (*usage, *connect.Error) {
	if !who.known() || who.may(nodesOnly) {
		return nil, nil
	}
	u := c.usageOf(who.actor)
	if wait := u.spend(c.rate, time.Now().UnixNano()); wait > 0 {
		return nil, overShare(fmt.Sprintf("%s asks more than %d times in a second", who.actor, c.rate), wait)
	}
	most := c.most
	if most == 0 {
		most = in.most - in.most/4
	}
	if u.taken[in.index].Add(1) > most {
		u.taken[in.index].Add(-1)
		return nil, overShare(fmt.Sprintf("%s has %d %s requests here already", who.actor, most, in.kind), shareWait)
	}
	return u, nil
}

// shareWait is when it is worth asking again where too many requests are on their way.
const shareWait = 100 * time.Millisecond

var nodesOnly = []pki.Role{pki.Node}

func (u *usage) leave(in *room) {
	if u != nil {
		u.taken[in.index].Add(-1)
	}
}

// spend takes one request of the caller's rate; where there is none left, it gives the time until there is.
func (u *usage) spend(rate, now int64) (wait time.Duration) {
	if rate == 0 {
		return 0
	}
	each := int64(time.Second) / rate
	for {
		paid := u.paid.Load()
		next := max(paid, now) + each
		if ahead := next - now - int64(burst); ahead > 0 {
			return time.Duration(ahead)
		}
		if u.paid.CompareAndSwap(paid, next) {
			return 0
		}
	}
}

func (c *callers) usageOf(actor string) *usage {
	if u, ok := c.known.Load(actor); ok {
		return u.(*usage) //nolint:forcetypeassert // there is nothing else in it
	}
	u, there := c.known.LoadOrStore(actor, new(usage))
	if !there && c.count.Add(1) > maxUsages {
		c.forget()
	}
	return u.(*usage) //nolint:forcetypeassert // as above
}

// forget drops those that use nothing.
func (c *callers) forget() {
	if !c.tidy.TryLock() {
		return
	}
	defer c.tidy.Unlock()
	now := time.Now().UnixNano()
	c.known.Range(func(actor, it any) bool {
		if it.(*usage).idle(now) { //nolint:forcetypeassert // as above
			c.known.Delete(actor)
			c.count.Add(-1)
		}
		return true
	})
}

func (u *usage) idle(now int64) bool {
	for i := range u.taken {
		if u.taken[i].Load() != 0 {
			return false
		}
	}
	return u.paid.Load() < now
}

// overShare says that a caller has had its share, and when to ask again.
func overShare(why string, wait time.Duration) *connect.Error {
	err := connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("%s: ask again later", why))
	addDetail(err, &v1.RetryAt{Time: timestamppb.New(time.Now().Add(wait))})
	return err
}

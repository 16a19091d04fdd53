package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// slack is how far the cluster's time may be from the true one: the walls of a majority are right to within 150 ms, a
// monotonic clock that is off by a tenth carries the time on for seconds, and slow links blur measurements.
const slack = 1500 * time.Millisecond

// keys is a user's keys as the sequential model has them. Keys are told by the revision at which they were made. An
// operation whose outcome is open returns at the end of time: placed there, it had no effect, so that the model has to
// think only of the case that it had.
type keys struct {
	status status
	// active is the active key, where it is known.
	active uint64
	// floor is a revision that the user's keys of now are not older than, the active one aside.
	floor uint64
	// may and must bound the earliest expiry of the active key's tokens, in milliseconds: it can be due from may on, and
	// is from must on. Zero for never.
	may, must int64
	// retired are the retiring keys, as text: states are compared.
	retired string
	// touched is when a token was last issued, for what is forgotten: no other change of the keys puts that off.
	touched int64
}

type status uint8

const (
	nobody  status = iota // the user has no keys
	known                 // the active key is known
	unknown               // there is one, newer than floor, that nobody has been told of
)

// model is the sequential model of one user.
type model struct {
	overlap     bool
	forgetAfter time.Duration
}

func (m model) porcupine() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return keys{} },
		Step: func(state, input, _ any) (bool, any) {
			next, ok := m.step(state.(keys), input.(*Op))
			return ok, next
		},
		DescribeOperation: func(input, _ any) string { return input.(*Op).String() },
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state.(keys)) },
	}
}

// due tells whether the active key may be due by the time that o is over.
func (k keys) due(o *Op) bool {
	return k.may != 0 && (o.Outcome == Open || k.may <= o.Ended.Add(slack).UnixMilli())
}

// overdue tells whether the active key was certainly due when o began.
func (k keys) overdue(o *Op) bool { return k.must != 0 && k.must <= o.Began.Add(-slack).UnixMilli() }

// gone tells whether the user may have been forgotten by the time that o is over.
func (m model) gone(k keys, o *Op) bool {
	if m.forgetAfter == 0 {
		return false
	}
	return o.Outcome == Open || k.touched+m.forgetAfter.Milliseconds() <= o.Ended.Add(slack).UnixMilli()
}

func earlier(a, b int64) int64 {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// retire moves the active key away.
func (m model) retire(k keys) keys {
	if k.status == known {
		if m.overlap {
			k.retired += fmt.Sprintf("%d,", k.active)
		}
		k.floor = max(k.floor, k.active)
	}
	k.status, k.active, k.may, k.must = unknown, 0, 0, 0
	return k
}

func (k keys) isRetired(key uint64) bool {
	return slices.Contains(strings.Split(k.retired, ","), fmt.Sprint(key))
}

// fresh makes key the active one.
func (k keys) fresh(key uint64) keys {
	k.status, k.active, k.floor, k.may, k.must = known, key, max(k.floor, key), 0, 0
	return k
}

func (m model) step(k keys, o *Op) (keys, bool) {
	switch o.Kind {
	case Issue:
		return m.issue(k, o)
	case Verify:
		return m.verify(k, o)
	case Get:
		return m.get(k, o)
	default:
		return m.change(k, o)
	}
}

func (m model) issue(k keys, o *Op) (keys, bool) {
	if o.Outcome == Open {
		return m.issueOpen(k, o), true
	}
	key, expires := o.Key.Revision, o.Expires.UnixMilli()
	switch {
	case k.status == known && key == k.active:
		if k.overdue(o) {
			return k, false
		}
	case key <= k.floor:
		return k, false
	case k.status == known && !k.due(o) && !m.gone(k, o):
		return k, false
	default:
		k = m.meet(k, key)
	}
	k.may, k.must = earlier(k.may, expires), earlier(k.must, expires)
	k.touched = max(k.touched, o.Began.UnixMilli())
	return k, true
}

func (m model) issueOpen(k keys, o *Op) keys {
	if k.status == nobody {
		k.status = unknown
	}
	k.may = earlier(k.may, o.Began.Add(o.TTL-slack).UnixMilli())
	return k
}

// meet finds that key is the active one. If nobody had been told which one that is, tokens of open outcome may be of it.
func (m model) meet(k keys, key uint64) keys {
	may := k.may
	if k.status == known {
		may = 0
	}
	k = m.retire(k).fresh(key)
	k.may = may
	return k
}

// named tells whether a change that names the key it expects, if it does, can be carried out.
func (k keys) named(o *Op) bool {
	expected := o.Expected.Revision
	switch {
	case k.status == nobody:
		return false
	case o.Expected.IsZero():
		return true
	case k.status == known && expected == k.active:
		return true
	case k.status == known && !k.due(o):
		return false
	}
	return expected > k.floor
}

func (m model) change(k keys, o *Op) (keys, bool) {
	switch o.Outcome {
	case NotFound:
		if k.status == nobody {
			return k, true
		}
		return keys{floor: max(k.floor, k.active)}, m.gone(k, o)
	case Conflict:
		return m.conflict(k, o)
	case Open:
		if !k.named(o) {
			return k, true
		}
		return m.apply(k, o), true
	default:
		if !k.named(o) || o.Kind != Delete && o.Key.Revision <= k.floor {
			return k, false
		}
		return m.apply(k, o), true
	}
}

// conflict is a change that found another active key than it expected.
func (m model) conflict(k keys, o *Op) (keys, bool) {
	switch {
	case k.status == nobody:
		return k, false
	case k.status == known && o.Expected.Revision == k.active:
		return m.retire(k), k.due(o)
	}
	return k, true
}

// apply makes a change.
func (m model) apply(k keys, o *Op) keys {
	if o.Kind == Delete {
		return keys{floor: max(k.floor, k.active, o.Revision)}
	}
	k = m.retire(k)
	if o.Kind == Revoke {
		k.retired = ""
	}
	if o.Outcome == OK {
		return k.fresh(o.Key.Revision)
	}
	return k
}

// get is a read of the newest state.
func (m model) get(k keys, o *Op) (keys, bool) {
	key := o.Key.Revision
	switch {
	case o.Outcome == NotFound && k.status == nobody:
		return k, true
	case o.Outcome == NotFound:
		return keys{floor: max(k.floor, k.active)}, m.gone(k, o)
	case k.status == known && key == k.active:
		return k, true
	case k.status == nobody || key <= k.floor || k.status == known && !k.due(o):
		return k, false
	}
	return m.meet(k, key), true
}

// verify is a verification on the newest state, of a token that has not expired.
func (m model) verify(k keys, o *Op) (keys, bool) {
	key := o.Key.Revision
	active := k.status == known && key == k.active
	if o.Reason == v1.VerifyResponse_NONE {
		return k, active || k.isRetired(key)
	}
	switch {
	case active && !m.overlap && k.due(o):
		return m.retire(k), true
	case (active || k.isRetired(key)) && m.gone(k, o):
		return keys{floor: max(k.floor, k.active)}, true
	}
	return k, !active && !k.isRetired(key)
}

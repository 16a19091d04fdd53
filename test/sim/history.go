package sim

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyquorum/keyquorum/fsm"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Kind is what an operation asks for.
type Kind string

// The operations.
const (
	Issue  Kind = "issue"
	Verify Kind = "verify"
	Rotate Kind = "rotate"
	Revoke Kind = "revoke"
	Delete Kind = "delete"
	Get    Kind = "get"
)

// Outcome is what a caller knows of an operation once it is over.
type Outcome string

// The outcomes. Failed operations changed nothing; Open ones may have taken effect, or may yet.
const (
	OK        Outcome = "ok"
	NotFound  Outcome = "not found"
	Conflict  Outcome = "conflict"
	Exhausted Outcome = "exhausted"
	Failed    Outcome = "failed"
	Open      Outcome = "open"
)

// Op is one operation as its caller saw it. Invoked and Returned are numbers that grow with each call and each return,
// so that the order is strict even at the same virtual instant; Began and Ended are the true times.
type Op struct {
	Kind     Kind
	User     string
	Invoked  int64
	Returned int64
	Began    time.Time
	Ended    time.Time
	// Process is the one that answered, where that is known; Direct tells that it was called without a network.
	Process string
	Direct  bool
	Outcome Outcome
	// Err says why an operation failed.
	Err string
	// Expected is the key that a change named; zero for none.
	Expected fsm.KeyID
	// Key is the key that an Issue signed with, a change made, a Get found active, or a token names.
	Key fsm.KeyID
	// Revision is that of a change, or of the state that was read.
	Revision uint64
	// TTL and Expires are a token's.
	TTL     time.Duration
	Expires time.Time
	// Level is the consistency that a Verify asked for.
	Level Level
	// Reason is a verdict; NONE for a valid token.
	Reason v1.VerifyResponse_Reason
	// Early and Late are how long before its expiry a token may be called expired, and how long after be accepted: as far as
	// the clocks of that moment were off, but at least their bound.
	Early, Late time.Duration
	// Staleness is how old a Verify's answer says that its state was.
	Staleness time.Duration
	// Hidden tells that an Issue was sent more than once, so that it may have taken effect more than once.
	Hidden bool
}

func (o *Op) String() string {
	s := fmt.Sprintf("[%d,%d] %s…%s %s %s", o.Invoked, o.Returned, o.Began.Format("04:05.000"), o.Ended.Format("04:05.000"), o.Kind, o.User)
	if o.Process != "" {
		s += " at " + o.Process
	}
	if !o.Expected.IsZero() {
		s += fmt.Sprintf(" expecting key %d", o.Expected.Revision)
	}
	s += fmt.Sprintf(": %s, key %d, revision %d", o.Outcome, o.Key.Revision, o.Revision)
	if o.Kind == Verify {
		s += fmt.Sprintf(", %s, %s, stale by %v", o.Level, o.Reason, o.Staleness)
	}
	if !o.Expires.IsZero() {
		s += ", expires " + o.Expires.Format("04:05")
	}
	if o.Err != "" {
		s += ", " + o.Err
	}
	return s
}

// Level is a consistency level of Verify.
type Level string

// The levels.
const (
	Bounded      Level = "BOUNDED"
	Linearizable Level = "LINEARIZABLE"
	StaleOK      Level = "STALE_OK"
)

// history is all that callers saw.
type history struct {
	seq atomic.Int64
	mu  sync.Mutex
	ops []*Op
}

// begin notes that an operation starts.
func (h *history) begin(kind Kind, user string) *Op {
	return &Op{Kind: kind, User: user, Began: time.Now(), Invoked: h.seq.Add(1)}
}

// end notes that it is over.
func (h *history) end(ops ...*Op) {
	seq, now := h.seq.Add(1), time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range ops {
		o.Returned, o.Ended = seq, now
		h.ops = append(h.ops, o)
	}
}

func (h *history) all() []*Op {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ops
}

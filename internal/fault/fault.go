// Package fault names the ways in which a node can fail a request. Every room of the node reports them by these
// sentinels, wrapped with what it knows, and rpc maps each to its wire code, so that neither has to know the other.
//
// What the replicated state refuses is not here: those are fsm.Refusal.
package fault

import "errors"

// Retryable failures: nothing was changed, and another node, or mostly the same one a little later, may succeed.
var (
	// ErrNotLeader says that the node is not the leader (any more) and that nothing was proposed.
	ErrNotLeader = errors.New("not the leader")
	// ErrNoLeader says that no leader is known.
	ErrNoLeader = errors.New("the cluster has no leader")
	// ErrTimeUnknown says that no majority of the voters' clocks agrees, so that nothing can be dated.
	ErrTimeUnknown = errors.New("the cluster's time is unknown")
	// ErrAhead says that a token names a change that the node has not got, and that no leader could be asked about it.
	ErrAhead = errors.New("the token is ahead of this node's state")
	// ErrBehind says that the node has not caught up with what the request names.
	ErrBehind = errors.New("this node is behind")
	// ErrStale says that the node cannot prove that its state is young enough to verify on.
	ErrStale = errors.New("this node's state may be too old")
	// ErrClockOff says that the node's own wall clock is wrong.
	ErrClockOff = errors.New("this node's wall clock is off by more than 500 ms: set it right")
	// ErrNotFounded says that the node belongs to no cluster yet.
	ErrNotFounded = errors.New("this node is in no cluster yet")
	// ErrRemoved says that the node was a member and is none any more. It does not come back under that identity; the
	// other members answer.
	ErrRemoved = errors.New("this node was removed from its cluster: stop it, empty its data directory, and let it join as a new member")
	// ErrTwin says that another process runs under the node's identity.
	ErrTwin = errors.New("another process runs under this node's identity: if its data directory was copied, stop one of the two for good and empty that one's directory")
	// ErrOverloaded says that a bounded queue of the node is full.
	ErrOverloaded = errors.New("this node is overloaded")
	// ErrAudit says that the leader's audit file cannot be written, so that it changes nothing that would leave no record.
	ErrAudit = errors.New("the leader's audit file cannot be written")
	// ErrShuttingDown says that the node takes no more requests.
	ErrShuttingDown = errors.New("this node is shutting down")
	// ErrFormat says that a member cannot read the entry that the request needs.
	ErrFormat = errors.New("not all members can read this kind of entry yet: finish the upgrade")
	// ErrChallenge says that what a node showed is bound to a challenge that is not good any more.
	ErrChallenge = errors.New("the challenge is not good")
	// ErrQuorumAtRisk says that a removal would leave too few voters that answer.
	ErrQuorumAtRisk = errors.New("the removal would cost the cluster its quorum")
	// ErrUnauthenticated says that it is not known who calls.
	ErrUnauthenticated = errors.New("the caller is not known")
	// ErrPermissionDenied says that the caller is known, and may not.
	ErrPermissionDenied = errors.New("the caller may not do this")
	// ErrHalted says that the node found its state unsafe and serves no more.
	ErrHalted = errors.New("this node has halted")
)

// ErrOutcomeUnknown says that a write was proposed and that its outcome is open: it may still be applied.
var ErrOutcomeUnknown = errors.New("the outcome of the write is unknown: it may have happened")

// ErrNoSuchMember says that a named node is no member of the cluster.
var ErrNoSuchMember = errors.New("no such member")

// ErrNotVoter says that a named node cannot lead.
var ErrNotVoter = errors.New("not a voter")

// ErrLastVoter says that a removal would leave the cluster without a voter.
var ErrLastVoter = errors.New("the last voter cannot be removed")

// ErrMasterKey says that a node lacks a master key that the cluster uses: others may have it.
var ErrMasterKey = errors.New("this node lacks a master key of the cluster's")

// ErrKeyring says that a node does not hold the cluster's master keyring.
var ErrKeyring = errors.New("the master keyring is not this cluster's")

// InvalidError is a request refused before anything was done. Field is the path of the field at fault in its
// JSON spelling.
type InvalidError struct {
	Field  string
	Reason string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Reason }

// Invalid says that field is at fault, and why.
func Invalid(field, reason string) error { return &InvalidError{Field: field, Reason: reason} }

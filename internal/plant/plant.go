// Package plant names the faults that can be planted in the real code, one at a time, to see that a check catches them:
// the simulation in test/sim, or the model in test/model. Only a build with the tag planted has them; in any other, On is
// the constant false, and the compiler leaves the fault out.
package plant

// Fault is one of the mistakes that somebody could make in this code.
type Fault string

// The faults of freshness and verification.
const (
	// VerifyLeader proves freshness by Raft's VerifyLeader and commit index.
	VerifyLeader Fault = "freshness-by-verify-leader"
	// LastContact proves freshness by the time of the leader's last message.
	LastContact Fault = "freshness-by-last-contact"
	// AppliedIndex takes what Raft calls applied for what the state machine has applied.
	AppliedIndex Fault = "freshness-by-applied-index"
	// EarlyTick answers with a tick that was proposed before the question came.
	EarlyTick Fault = "tick-before-the-question"
	// UncommittedTick answers before the tick is committed.
	UncommittedTick Fault = "answer-before-commit"
	// LateWaiter joins a round that had asked already.
	LateWaiter Fault = "waiter-joins-a-round-already-asked"
	// EarlyState reads the state before its freshness is checked.
	EarlyState Fault = "state-read-before-the-check"
	// EarlyKey reads the key before the revision.
	EarlyKey Fault = "key-read-before-the-revision"
	// RestoredFreshness keeps freshness over a restore that goes back.
	RestoredFreshness Fault = "freshness-kept-over-a-restore"
	// RestartedFreshness has a node that starts go on with the freshness of its process before.
	RestartedFreshness Fault = "freshness-kept-over-a-restart"
	// StoppingClock tells the age by a clock that stops while the machine is paused.
	StoppingClock Fault = "age-from-a-clock-that-stops"
)

// The faults of revocation.
const (
	// RevokeMajority waits for a majority of the holders only.
	RevokeMajority Fault = "revoke-waits-for-a-majority"
	// RevokeVoters does not wait for replicas.
	RevokeVoters Fault = "replicas-not-waited-for"
	// ForgottenMember counts no former members.
	ForgottenMember Fault = "former-member-forgotten"
	// ForgetfulLeader has a new leader forget former members at once.
	ForgetfulLeader Fault = "former-member-forgotten-by-a-new-leader"
	// LateHearing notes a question for a tick only when it is answered.
	LateHearing Fault = "question-noted-when-answered"
	// ForgottenTicks does not count the ticks that earlier leaders gave.
	ForgottenTicks Fault = "ticks-of-earlier-leaders-forgotten"
	// StaleReign takes the reign of an earlier term for the present one.
	StaleReign Fault = "reign-of-an-earlier-term"
	// IdleRevoke returns at once where a revoke finds nothing to do.
	IdleRevoke Fault = "revoke-finds-nothing-to-do-and-returns"
)

// The faults of Raft's surroundings and of the rest.
const (
	// OldSnapshot lets a snapshot through that is older than the state.
	OldSnapshot Fault = "old-snapshot-let-through"
	// CommitIndex passes the leader's commit index on as it is.
	CommitIndex Fault = "commit-index-not-lowered"
	// LostSync acknowledges what is not on the disk yet.
	LostSync Fault = "sync-lost"
	// TimeInApply has the state machine read the clock.
	TimeInApply Fault = "time-in-apply"
	// BlindRotation rotates in Apply without looking whether the key is due.
	BlindRotation Fault = "rotation-unchecked-in-apply"
	// LateRotation has what falls due wait for two seconds more.
	LateRotation Fault = "rotation-two-seconds-late"
	// Leeway accepts tokens for a second after their expiry.
	Leeway Fault = "expiry-with-leeway"
	// BlindRetry sends a write of open outcome again without its guard.
	BlindRetry Fault = "retry-without-its-guard"
	// LeanSnapshot leaves the retiring keys out of snapshots.
	LeanSnapshot Fault = "snapshot-without-retiring-keys"
	// AuditGap leaves the audit records missing that came with no log entry, as to a node that took a snapshot.
	AuditGap Fault = "audit-gap-not-filled"
)

// All gives all faults.
func All() []Fault {
	return []Fault{
		VerifyLeader, LastContact, AppliedIndex, EarlyTick, UncommittedTick, LateWaiter, EarlyState, EarlyKey,
		RestoredFreshness, RestartedFreshness, StoppingClock, RevokeMajority, RevokeVoters, ForgottenMember, ForgetfulLeader, LateHearing,
		ForgottenTicks, StaleReign, IdleRevoke,
		OldSnapshot, CommitIndex, LostSync, TimeInApply, BlindRotation, LateRotation, Leeway, BlindRetry,
		LeanSnapshot, AuditGap,
	}
}

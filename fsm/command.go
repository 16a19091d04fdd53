package fsm

import "time"

// Format is the highest entry and snapshot format that this build reads, and the one it writes.
const Format = 1

// Limits of what a command may carry.
const (
	// MaxSealed is the longest sealed key in bytes.
	MaxSealed = 512
)

// Entry is one command entry of the log: the commands that a group commit gathered, with one time for all.
type Entry struct {
	// Time is the cluster's time; zero where the proposer did not know it, and then only commands that need
	// no time are applied. It is kept to the millisecond.
	Time     time.Time
	Commands []Command
}

// Command asks for one change. Whether it is made is decided when it is applied.
type Command struct {
	Origin Origin
	Op     Op
}

// Origin says who asked for a command, from where, and through which node. It is for the record only.
type Origin struct {
	Actor  string
	Source string
	Node   string
}

// Op is one of Found, Issue, Rotate, Revoke, Delete, Expire, UpdateSettings, PutMember, RemoveMember, Tick,
// ForgetMembers, PutAPIToken, RevokeAPIToken, UseMasterKey, Rewrap and RetireMasterKey.
type Op interface{ op() }

// Candidate is a new key: random bits for its id, and its material, sealed by the proposer.
type Candidate struct {
	Random uint64
	Sealed []byte
}

// Found founds the cluster. It is refused once there is one.
type Found struct {
	ClusterID string
	Settings  Settings
	// KeyringCheck is a known text sealed under the master keyring.
	KeyringCheck []byte
	// Operator is the first operator's API token; nil for none.
	Operator *APIToken
}

// Issue records a token's expiry on the subject's active key. It needs a time.
//
// The candidate counts only if the subject has no active key, or one that is due, when the entry is applied;
// where it is needed and missing, the refusal is CodeNeedCandidate.
type Issue struct {
	Subject string
	// TTL is the token's lifetime; zero for the default in Settings.
	TTL       time.Duration
	Candidate *Candidate
	// TokenID is the token's jti, for the audit record.
	TokenID string
}

// Rotate makes the candidate the subject's active key.
type Rotate struct {
	Subject string
	// Expected is the active key that the caller saw; the zero KeyID for any.
	Expected  KeyID
	Candidate Candidate
}

// Revoke deletes all keys of the subject and makes the candidate its active one.
type Revoke struct {
	Subject   string
	Expected  KeyID
	Candidate Candidate
}

// Delete forgets the subject.
type Delete struct {
	Subject  string
	Expected KeyID
}

// Expire carries what the proposer saw fall due; each item is checked again when it is applied. It needs a time.
type Expire struct {
	Items []ExpireItem
}

// ExpireItem names what is due: an active key (with the candidate to follow it), a retiring key, or, with the
// zero KeyID, a subject to be forgotten.
type ExpireItem struct {
	Subject   string
	Key       KeyID
	Candidate *Candidate
}

// UpdateSettings changes the settings that are not nil, all or none.
type UpdateSettings struct {
	Mode         *Mode
	ForgetAfter  *time.Duration
	Issuer       *string
	MinTTL       *time.Duration
	DefaultTTL   *time.Duration
	MaxTTL       *time.Duration
	MaxRetiring  *int
	WantedVoters *int
	LeaderRegion *string
	AuditIssued  *bool
}

// PutMember makes or replaces a member's record. Once a member was removed, its id has none again.
type PutMember struct{ Member Member }

// RemoveMember takes the member with the id out for good, whether it has a record or not (yet). One that has is a former
// member until ForgetMembers.
type RemoveMember struct{ ID string }

// Tick changes nothing: it is for its position. Who has applied it has all that was committed before it was proposed.
type Tick struct{}

// ForgetMembers ends the counting of former members; ids that are none are passed over. Only a leader that knows that
// none of them can hold a fresh state any more may propose it.
type ForgetMembers struct{ IDs []string }

// UseMasterKey makes a master key the primary one. It is refused unless each member is among those that said that they
// hold it: a key is never sealed under what a member lacks.
type UseMasterKey struct {
	// ID is the one that SealedBy reads. A key that was the primary one before, or is retired, does not become it again.
	ID uint32
	// KeyringCheck is the known text of Found, sealed under this key.
	KeyringCheck []byte
	// Holders are the ids of the members that hold the key.
	Holders []string
}

// Rewrap puts keys that the proposer sealed anew, under the primary master key, in the place of the same keys; each item
// is checked again when it is applied. It makes no key, and ends none.
type Rewrap struct {
	Items []RewrapItem
}

// RewrapItem is one key as it is to be kept from now on.
type RewrapItem struct {
	Subject string
	Key     KeyID
	Sealed  []byte
}

// RetireMasterKey ends the use of a master key: candidates that are sealed under it are refused from then on. It is
// refused for the primary one, and while a key is sealed under it.
type RetireMasterKey struct{ ID uint32 }

func (Found) op()          {}
func (Issue) op()          {}
func (Rotate) op()         {}
func (Revoke) op()         {}
func (Delete) op()         {}
func (Expire) op()         {}
func (UpdateSettings) op() {}
func (PutMember) op()      {}
func (RemoveMember) op()   {}
func (Tick) op()           {}
func (ForgetMembers) op()  {}

func (UseMasterKey) op()    {}
func (Rewrap) op()          {}
func (RetireMasterKey) op() {}

// NeedsTime tells whether op is refused in an entry without a time.
func NeedsTime(op Op) bool {
	switch op.(type) {
	case Issue, Expire:
		return true
	}
	return false
}

// Result is what applying one command gave.
type Result struct {
	// Err is a *Refusal, or nil.
	Err error
	// Position is the command's in the log: the Raft index of its entry.
	Position uint64
	// Revision is that of the state after the command.
	Revision uint64
	// Holders may hold the state from before the command as fresh. They are told of a Tick, a Revoke and a Delete, also of
	// one that was refused.
	Holders Holders
	// Key is the subject's active key after Issue, Rotate and Revoke.
	Key Key
	// IssuedAt and ExpiresAt are an issued token's times, in whole seconds.
	IssuedAt, ExpiresAt time.Time
	// Issuer is the setting at the time of an Issue.
	Issuer string
	// Settings are those after Found and UpdateSettings.
	Settings Settings
	// Expired tells what an Expire did.
	Expired Expired
	// Rewrapped is the number of keys that a Rewrap changed.
	Rewrapped int
}

// Holders are the nodes that a state counts as able to hold it, or one before it, as fresh. They are not to be changed.
type Holders struct {
	// Members by ID.
	Members []Member
	// Former members, which were removed lately, by their sorted ids.
	Former []string
}

// Member tells whether the node with the id is a member.
func (h Holders) Member(id string) bool {
	_, ok := findMember(h.Members, id)
	return ok
}

// Expired counts what one Expire did.
type Expired struct {
	// Rotated active keys, and the time each was late by.
	Rotated int
	Lag     []time.Duration
	// Deleted retiring keys.
	Deleted int
	// Forgotten subjects.
	Forgotten int
	// Skipped items were not due, or gone.
	Skipped int
}

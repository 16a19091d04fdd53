package fsm

import "time"

// Code says why a command was refused.
type Code uint8

const (
	// CodeInvalid is for a field that no state would accept; Refusal.Field names it.
	CodeInvalid Code = iota + 1
	// CodeUnknownSubject is for a subject without a key.
	CodeUnknownSubject
	// CodeKeyMismatch is for an active key that is not the expected one.
	CodeKeyMismatch
	// CodeNeedCandidate is for an Issue that needs a candidate and has none: propose it again with one.
	CodeNeedCandidate
	// CodeTooManyRetiring is for an Issue or a Rotate that would leave one retiring key too many behind;
	// Refusal.RetryAt is when the next one goes.
	CodeTooManyRetiring
	// CodeNeedTime is for a command that needs a time, in an entry without one.
	CodeNeedTime
	// CodeFounded is for founding a cluster a second time.
	CodeFounded
	// CodeNotFounded is for any other command before the founding.
	CodeNotFounded
	// CodeUnknownMember is for removing who was removed before.
	CodeUnknownMember
	// CodeRemovedMember is for a record of a member that was removed.
	CodeRemovedMember
	// CodeAPITokenExists is for an API token whose id is taken.
	CodeAPITokenExists
	// CodeTooManyAPITokens is for one too many.
	CodeTooManyAPITokens
	// CodeUnknownAPIToken is for revoking one that is not there.
	CodeUnknownAPIToken
	// CodeMasterKeyRetired is for a candidate that is sealed under a retired master key: seal another one under the primary
	// and propose it again.
	CodeMasterKeyRetired
	// CodeMasterKeyInUse is for retiring a master key that is the primary one, or under which keys are sealed.
	CodeMasterKeyInUse
	// CodeMasterKeyUsed is for using a master key that is the primary one, or was it before, or is retired.
	CodeMasterKeyUsed
	// CodeMasterKeyLacking is for using a master key of which it is not known that each member holds it.
	CodeMasterKeyLacking
)

// Refusal is a command's ordinary, final outcome where it changed nothing. It is the same on every node.
type Refusal struct {
	Code Code
	// Field is the path of the field at fault in its JSON spelling, or empty.
	Field string
	// Message says what is wrong, in words for the caller.
	Message string
	// RetryAt is when the same command can succeed, or zero.
	RetryAt time.Time
}

func (r *Refusal) Error() string {
	if r.Field != "" {
		return r.Field + ": " + r.Message
	}
	return r.Message
}

// Is makes errors.Is compare refusals by code alone: errors.Is(err, &Refusal{Code: CodeKeyMismatch}).
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Code == r.Code
}

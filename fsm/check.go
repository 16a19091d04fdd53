package fsm

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/keyquorum/keyquorum/internal/subject"
)

// Limits of what commands may carry, beside MaxSealed and that of subject.Max.
const (
	// maxText is for names, addresses, and what an Origin says.
	maxText = 256
	// maxCheck is for the keyring check.
	maxCheck = 1024
)

// Validate tells what no state would accept in c, as a *Refusal with CodeInvalid; nil if it depends on the state.
// Apply refuses the same; a proposer that asks first spares the log, and the commands that would share an entry:
// EncodeEntry fails as a whole.
func (c Command) Validate() error {
	if c.Op == nil {
		return errors.New("a command without an operation")
	}
	if r := c.check(); r != nil {
		return r
	}
	return nil
}

func (c *Command) check() *Refusal {
	if r := c.Origin.check(); r != nil {
		return r
	}
	switch op := c.Op.(type) {
	case Found:
		return op.check()
	case Issue:
		return cmp.Or(checkSubject(op.Subject), op.Candidate.check("candidate"), checkText("tokenId", op.TokenID, false))
	case Rotate:
		return cmp.Or(checkSubject(op.Subject), op.Candidate.check("candidate"))
	case Revoke:
		return cmp.Or(checkSubject(op.Subject), op.Candidate.check("candidate"))
	case Delete:
		return checkSubject(op.Subject)
	case Expire:
		return op.check()
	case UpdateSettings:
		return op.check()
	case PutMember:
		return op.Member.check()
	case RemoveMember:
		return checkText("id", op.ID, true)
	case ForgetMembers:
		return op.check()
	case PutAPIToken:
		return op.Token.check()
	case RevokeAPIToken:
		return checkText("id", op.ID, true)
	case UseMasterKey:
		return op.check()
	case Rewrap:
		return op.check()
	case RetireMasterKey:
		return checkMasterKey(op.ID)
	case Tick:
	}
	return nil
}

func (o *Origin) check() *Refusal {
	return cmp.Or(
		checkText("origin.actor", o.Actor, false),
		checkText("origin.source", o.Source, false),
		checkText("origin.node", o.Node, false),
	)
}

func (op *Found) check() *Refusal {
	if len(op.KeyringCheck) == 0 || len(op.KeyringCheck) > maxCheck {
		return invalid("keyringCheck", "must have 1 to %d bytes", maxCheck)
	}
	if op.Operator != nil {
		if r := op.Operator.check(); r != nil {
			return r
		}
	}
	return cmp.Or(checkText("clusterId", op.ClusterID, true), op.Settings.check())
}

func (op *Expire) check() *Refusal {
	for i := range op.Items {
		item := &op.Items[i]
		if r := cmp.Or(checkSubject(item.Subject), item.Candidate.check("candidate")); r != nil {
			r.Field = fmt.Sprintf("items[%d].%s", i, r.Field)
			return r
		}
	}
	return nil
}

// check judges each field by itself: what is not given is taken from settings that are good.
func (op *UpdateSettings) check() *Refusal {
	s := DefaultSettings().With(*op)
	if op.MinTTL == nil {
		s.MinTTL = MinLifetime
	}
	if op.MaxTTL == nil {
		s.MaxTTL = MaxLifetime
	}
	if op.DefaultTTL == nil {
		s.DefaultTTL = s.MinTTL
	}
	return s.check()
}

func (op *ForgetMembers) check() *Refusal {
	for _, id := range op.IDs {
		if r := checkText("ids", id, true); r != nil {
			return r
		}
	}
	return nil
}

func (m *Member) check() *Refusal {
	if m.Format < 1 || m.Format > math.MaxInt32 {
		return invalid("format", "must be 1 or more")
	}
	return cmp.Or(
		checkText("id", m.ID, true),
		checkText("name", m.Name, false),
		checkText("region", m.Region, false),
		checkText("rpcAddress", m.RPCAddress, false),
		checkText("raftAddress", m.RaftAddress, false),
		checkText("version", m.Version, false),
	)
}

// check accepts nil: whether a candidate is needed depends on the state.
func (c *Candidate) check(field string) *Refusal {
	switch {
	case c == nil:
		return nil
	case c.Random == 0:
		return invalid(field, "has no random bits")
	case len(c.Sealed) == 0 || len(c.Sealed) > MaxSealed:
		return invalid(field, "must have 1 to %d sealed bytes", MaxSealed)
	}
	return nil
}

func checkSubject(s string) *Refusal {
	if err := subject.Check(s); err != nil {
		return invalid("subject", "%v", err)
	}
	return nil
}

func checkText(field, s string, required bool) *Refusal {
	switch {
	case required && s == "":
		return invalid(field, "must not be empty")
	case len(s) > maxText:
		return invalid(field, "must not be longer than %d bytes", maxText)
	case !utf8.ValidString(s):
		return invalid(field, "must be valid UTF-8")
	}
	return nil
}

func invalid(field, format string, args ...any) *Refusal {
	return &Refusal{Code: CodeInvalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

package fsm

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/keyquorum/keyquorum/fsm/internal/logpb"
)

// maxTime is the end of the year 9999 in milliseconds since the Unix epoch: the latest time that RFC 3339 can
// write, and early enough for every sum of times to fit.
const maxTime = 253402300799999

// EntryFormat is the lowest entry format that a member must read for c to be proposed.
func EntryFormat(Command) int { return 1 }

// EncodeEntry gives the bytes of a log entry. It fails on what the format cannot hold, such as text that is not
// UTF-8; all of it is what Command.Validate and Settings.Validate find fault with, but for a time before the Unix
// epoch or after the year 9999, and an entry without commands. A lifetime is rounded up to milliseconds.
func EncodeEntry(e Entry) ([]byte, error) {
	m, err := e.proto()
	if err != nil {
		return nil, err
	}
	// What no one can decode would halt every node.
	if _, err := entryOf(m); err != nil {
		return nil, fmt.Errorf("encode entry: %w", err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode entry: %w", err)
	}
	return b, nil
}

func (e *Entry) proto() (*logpb.Entry, error) {
	if len(e.Commands) == 0 {
		return nil, errors.New("an entry without commands")
	}
	m := &logpb.Entry{Format: 1, Commands: make([]*logpb.Command, len(e.Commands))}
	if !e.Time.IsZero() {
		m.TimeMs = e.Time.UnixMilli()
		if m.TimeMs <= 0 || m.TimeMs > maxTime {
			return nil, fmt.Errorf("an entry cannot be of %v", e.Time)
		}
	}
	for i := range e.Commands {
		c := &e.Commands[i]
		m.Format = max(m.Format, uint32(EntryFormat(*c)))
		var err error
		if m.Commands[i], err = c.proto(); err != nil {
			return nil, fmt.Errorf("commands[%d]: %w", i, err)
		}
	}
	return m, nil
}

func (c *Command) proto() (*logpb.Command, error) {
	m := &logpb.Command{Origin: c.Origin.proto()}
	var err error
	switch op := c.Op.(type) {
	case Found:
		err = op.into(m)
	case Issue:
		m.Op = &logpb.Command_Issue{Issue: &logpb.Issue{
			Subject: op.Subject, TtlMs: roundUp(op.TTL), Candidate: op.Candidate.proto(), TokenId: op.TokenID,
		}}
	case Rotate:
		m.Op = &logpb.Command_Rotate{Rotate: &logpb.Rotate{
			Subject: op.Subject, Expected: op.Expected.proto(), Candidate: op.Candidate.proto(),
		}}
	case Revoke:
		m.Op = &logpb.Command_Revoke{Revoke: &logpb.Revoke{
			Subject: op.Subject, Expected: op.Expected.proto(), Candidate: op.Candidate.proto(),
		}}
	case Delete:
		m.Op = &logpb.Command_Delete{Delete: &logpb.Delete{Subject: op.Subject, Expected: op.Expected.proto()}}
	case Expire:
		op.into(m)
	case UpdateSettings:
		err = op.into(m)
	case PutMember:
		err = op.into(m)
	case RemoveMember:
		m.Op = &logpb.Command_RemoveMember{RemoveMember: &logpb.RemoveMember{Id: op.ID}}
	case Tick:
		m.Op = &logpb.Command_Tick{Tick: &logpb.Tick{}}
	case ForgetMembers:
		m.Op = &logpb.Command_ForgetMembers{ForgetMembers: &logpb.ForgetMembers{Ids: op.IDs}}
	case PutAPIToken:
		m.Op = &logpb.Command_PutApiToken{PutApiToken: &logpb.PutAPIToken{Token: op.Token.proto()}}
	case RevokeAPIToken:
		m.Op = &logpb.Command_RevokeApiToken{RevokeApiToken: &logpb.RevokeAPIToken{Id: op.ID}}
	case UseMasterKey:
		m.Op = &logpb.Command_UseMasterKey{UseMasterKey: &logpb.UseMasterKey{
			Id: op.ID, KeyringCheck: op.KeyringCheck, Holders: op.Holders,
		}}
	case Rewrap:
		op.into(m)
	case RetireMasterKey:
		m.Op = &logpb.Command_RetireMasterKey{RetireMasterKey: &logpb.RetireMasterKey{Id: op.ID}}
	default:
		err = fmt.Errorf("unknown operation %T", c.Op)
	}
	return m, err
}

func (o Origin) proto() *logpb.Origin {
	if o == (Origin{}) {
		return nil
	}
	return &logpb.Origin{Actor: o.Actor, Source: o.Source, Node: o.Node}
}

func (id KeyID) proto() *logpb.KeyID {
	if id.IsZero() {
		return nil
	}
	return &logpb.KeyID{Revision: id.Revision, Random: id.Random}
}

func (c *Candidate) proto() *logpb.Candidate {
	if c == nil {
		return nil
	}
	return &logpb.Candidate{Random: c.Random, Sealed: c.Sealed}
}

func (op *Found) into(m *logpb.Command) error {
	settings, err := op.Settings.proto()
	m.Op = &logpb.Command_Found{Found: &logpb.Found{
		ClusterId: op.ClusterID, Settings: settings, KeyringCheck: op.KeyringCheck, Operator: op.Operator.proto(),
	}}
	return err
}

func (op *Expire) into(m *logpb.Command) {
	items := make([]*logpb.Expire_Item, len(op.Items))
	for i := range op.Items {
		item := &op.Items[i]
		items[i] = &logpb.Expire_Item{
			Subject: item.Subject, Key: item.Key.proto(), Candidate: item.Candidate.proto(),
		}
	}
	m.Op = &logpb.Command_Expire{Expire: &logpb.Expire{Items: items}}
}

func (op *Rewrap) into(m *logpb.Command) {
	items := make([]*logpb.Rewrap_Item, len(op.Items))
	for i := range op.Items {
		item := &op.Items[i]
		items[i] = &logpb.Rewrap_Item{Subject: item.Subject, Key: item.Key.proto(), Sealed: item.Sealed}
	}
	m.Op = &logpb.Command_Rewrap{Rewrap: &logpb.Rewrap{Items: items}}
}

func (op *UpdateSettings) into(m *logpb.Command) error {
	var e encoder
	m.Op = &logpb.Command_UpdateSettings{UpdateSettings: &logpb.UpdateSettings{
		Mode:          optional(op.Mode, e.mode),
		ForgetAfterMs: optional(op.ForgetAfter, e.millis),
		Issuer:        op.Issuer,
		MinTtlMs:      optional(op.MinTTL, e.millis),
		DefaultTtlMs:  optional(op.DefaultTTL, e.millis),
		MaxTtlMs:      optional(op.MaxTTL, e.millis),
		MaxRetiring:   optional(op.MaxRetiring, e.count),
		WantedVoters:  optional(op.WantedVoters, e.count),
		LeaderRegion:  op.LeaderRegion,
		AuditIssued:   op.AuditIssued,
	}}
	return e.err
}

func optional[A, B any](a *A, convert func(A) B) *B {
	if a == nil {
		return nil
	}
	b := convert(*a)
	return &b
}

func (s *Settings) proto() (*logpb.Settings, error) {
	var e encoder
	m := &logpb.Settings{
		Mode:           e.mode(s.Mode),
		ForgetAfterMs:  e.millis(s.ForgetAfter),
		Issuer:         s.Issuer,
		MinTtlMs:       e.millis(s.MinTTL),
		DefaultTtlMs:   e.millis(s.DefaultTTL),
		MaxTtlMs:       e.millis(s.MaxTTL),
		MaxRetiring:    e.count(s.MaxRetiring),
		WantedVoters:   e.count(s.WantedVoters),
		LeaderRegion:   s.LeaderRegion,
		MaxStalenessMs: e.millis(s.MaxStaleness),
		AuditIssued:    s.AuditIssued,
	}
	return m, e.err
}

func (op *PutMember) into(m *logpb.Command) error {
	member, err := op.Member.proto()
	m.Op = &logpb.Command_PutMember{PutMember: &logpb.PutMember{Member: member}}
	return err
}

func (m *Member) proto() (*logpb.Member, error) {
	var e encoder
	return &logpb.Member{
		Id:          m.ID,
		Name:        m.Name,
		Region:      m.Region,
		RpcAddress:  m.RPCAddress,
		RaftAddress: m.RaftAddress,
		Version:     m.Version,
		Format:      e.count(m.Format),
		Replica:     m.Replica,
	}, e.err
}

// encoder converts values and keeps the error of one that the format cannot hold.
type encoder struct{ err error }

func (e *encoder) mode(m Mode) logpb.Mode {
	if m != Overlap && m != Strict {
		e.err = fmt.Errorf("unknown mode %d", m)
	}
	return logpb.Mode(m)
}

func (e *encoder) millis(d time.Duration) int64 {
	if d%time.Millisecond != 0 {
		e.err = fmt.Errorf("%v is not in whole milliseconds", d)
	}
	return d.Milliseconds()
}

func (e *encoder) count(n int) uint32 {
	if n < 0 || n > math.MaxInt32 {
		e.err = fmt.Errorf("%d is out of range", n)
	}
	return uint32(n)
}

// maxMillis is the longest time.Duration.
const maxMillis = math.MaxInt64 / int64(time.Millisecond)

// roundUp gives whole milliseconds, away from zero, so that no lifetime becomes the one that means the default.
func roundUp(d time.Duration) int64 {
	ms := d.Milliseconds()
	switch rest := d % time.Millisecond; {
	case rest > 0:
		ms++
	case rest < 0:
		ms--
	}
	return max(-maxMillis, min(ms, maxMillis))
}

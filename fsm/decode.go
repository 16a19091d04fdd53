package fsm

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/keyquorum/keyquorum/fsm/internal/logpb"
)

// ErrNewerFormat says that an entry or a snapshot was written by a newer build, in a format that this one does
// not read.
var ErrNewerFormat = errors.New("written in a newer format: this build is too old for it")

// DecodeEntry reads a log entry. It fails on everything that EncodeEntry would not have written: a newer format,
// unknown fields, fields given twice, padded numbers, missing parts. Where nodes of different builds could read
// different things, none of them goes on.
func DecodeEntry(b []byte) (Entry, error) {
	var m logpb.Entry
	if err := unmarshal(b, &m); err != nil {
		if m.Format > Format {
			err = newer(m.Format)
		}
		return Entry{}, fmt.Errorf("decode entry: %w", err)
	}
	e, err := entryOf(&m)
	if err != nil {
		return Entry{}, fmt.Errorf("decode entry: %w", err)
	}
	return e, nil
}

func newer(format uint32) error {
	return fmt.Errorf("%w (it is of format %d, and formats up to %d are read)", ErrNewerFormat, format, Format)
}

// unmarshal reads m, and refuses bytes that say more than m holds, in whatever way: the encoding of what was
// understood is the shortest one that there is, so then it is shorter than b. Field order is left free, since
// protobuf does not promise one.
func unmarshal(b []byte, m proto.Message) error {
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return err
	}
	if proto.Size(m) != len(b) {
		return errors.New("it has unknown fields, or fields given twice")
	}
	return nil
}

func entryOf(m *logpb.Entry) (Entry, error) {
	if m.Format == 0 || m.Format > Format {
		return Entry{}, formatError(m.Format)
	}
	if len(m.Commands) == 0 {
		return Entry{}, errors.New("it has no commands")
	}
	if m.TimeMs < 0 || m.TimeMs > maxTime {
		return Entry{}, fmt.Errorf("its time, %d ms, is out of range", m.TimeMs)
	}
	e := Entry{Commands: make([]Command, len(m.Commands))}
	if m.TimeMs != 0 {
		e.Time = time.UnixMilli(m.TimeMs)
	}
	for i, c := range m.Commands {
		var d decoder
		e.Commands[i] = Command{Origin: d.origin(c.Origin), Op: d.op(c)}
		if d.err != nil {
			return Entry{}, fmt.Errorf("commands[%d]: %w", i, d.err)
		}
	}
	return e, nil
}

func formatError(format uint32) error {
	if format == 0 {
		return errors.New("it names no format")
	}
	return newer(format)
}

// decoder converts messages and keeps an error found on the way.
type decoder struct{ err error }

func (d *decoder) fail(format string, args ...any) { d.err = fmt.Errorf(format, args...) }

func (d *decoder) op(c *logpb.Command) Op {
	switch m := c.Op.(type) {
	case *logpb.Command_Found:
		found := Found{
			ClusterID:    m.Found.ClusterId,
			Settings:     d.settings(m.Found.Settings),
			KeyringCheck: m.Found.KeyringCheck,
		}
		if m.Found.Operator != nil {
			token := d.apiToken(m.Found.Operator)
			found.Operator = &token
		}
		return found
	case *logpb.Command_Issue:
		return Issue{
			Subject:   m.Issue.Subject,
			TTL:       d.duration(m.Issue.TtlMs),
			Candidate: candidateOf(m.Issue.Candidate),
			TokenID:   m.Issue.TokenId,
		}
	case *logpb.Command_Rotate:
		return Rotate{m.Rotate.Subject, d.keyID(m.Rotate.Expected), d.candidate(m.Rotate.Candidate)}
	case *logpb.Command_Revoke:
		return Revoke{m.Revoke.Subject, d.keyID(m.Revoke.Expected), d.candidate(m.Revoke.Candidate)}
	case *logpb.Command_Delete:
		return Delete{m.Delete.Subject, d.keyID(m.Delete.Expected)}
	case *logpb.Command_Expire:
		return d.expire(m.Expire)
	case *logpb.Command_UpdateSettings:
		return d.updateSettings(m.UpdateSettings)
	case *logpb.Command_PutMember:
		return PutMember{d.member(m.PutMember.Member)}
	case *logpb.Command_RemoveMember:
		return RemoveMember{m.RemoveMember.Id}
	case *logpb.Command_Tick:
		return Tick{}
	case *logpb.Command_ForgetMembers:
		return ForgetMembers{m.ForgetMembers.Ids}
	case *logpb.Command_PutApiToken:
		return PutAPIToken{d.apiToken(m.PutApiToken.Token)}
	case *logpb.Command_RevokeApiToken:
		return RevokeAPIToken{m.RevokeApiToken.Id}
	case *logpb.Command_UseMasterKey:
		return UseMasterKey{m.UseMasterKey.Id, m.UseMasterKey.KeyringCheck, m.UseMasterKey.Holders}
	case *logpb.Command_Rewrap:
		return d.rewrap(m.Rewrap)
	case *logpb.Command_RetireMasterKey:
		return RetireMasterKey{m.RetireMasterKey.Id}
	}
	d.fail("it has no operation")
	return nil
}

func (d *decoder) origin(m *logpb.Origin) Origin {
	if m == nil {
		return Origin{}
	}
	o := Origin{Actor: m.Actor, Source: m.Source, Node: m.Node}
	if o == (Origin{}) {
		d.fail("an origin says nothing")
	}
	return o
}

func (d *decoder) keyID(m *logpb.KeyID) KeyID {
	if m == nil {
		return KeyID{}
	}
	id := KeyID{Revision: m.Revision, Random: m.Random}
	if id.IsZero() {
		d.fail("a key id is zero")
	}
	return id
}

func candidateOf(m *logpb.Candidate) *Candidate {
	if m == nil {
		return nil
	}
	return &Candidate{Random: m.Random, Sealed: m.Sealed}
}

func (d *decoder) candidate(m *logpb.Candidate) Candidate {
	if m == nil {
		d.fail("the new key is missing")
		return Candidate{}
	}
	return *candidateOf(m)
}

func (d *decoder) expire(m *logpb.Expire) Expire {
	items := make([]ExpireItem, len(m.Items))
	for i, item := range m.Items {
		items[i] = ExpireItem{item.Subject, d.keyID(item.Key), candidateOf(item.Candidate)}
	}
	return Expire{Items: items}
}

func (d *decoder) rewrap(m *logpb.Rewrap) Rewrap {
	items := make([]RewrapItem, len(m.Items))
	for i, item := range m.Items {
		items[i] = RewrapItem{item.Subject, d.keyID(item.Key), item.Sealed}
	}
	return Rewrap{Items: items}
}

func (d *decoder) settings(m *logpb.Settings) Settings {
	if m == nil {
		d.fail("the settings are missing")
		return Settings{}
	}
	return Settings{
		Mode:         d.mode(m.Mode),
		ForgetAfter:  d.duration(m.ForgetAfterMs),
		Issuer:       m.Issuer,
		MinTTL:       d.duration(m.MinTtlMs),
		DefaultTTL:   d.duration(m.DefaultTtlMs),
		MaxTTL:       d.duration(m.MaxTtlMs),
		MaxRetiring:  d.count(m.MaxRetiring),
		WantedVoters: d.count(m.WantedVoters),
		LeaderRegion: m.LeaderRegion,
		MaxStaleness: d.duration(m.MaxStalenessMs),
		AuditIssued:  m.AuditIssued,
	}
}

func (d *decoder) updateSettings(m *logpb.UpdateSettings) UpdateSettings {
	return UpdateSettings{
		Mode:         optional(m.Mode, d.mode),
		ForgetAfter:  optional(m.ForgetAfterMs, d.duration),
		Issuer:       m.Issuer,
		MinTTL:       optional(m.MinTtlMs, d.duration),
		DefaultTTL:   optional(m.DefaultTtlMs, d.duration),
		MaxTTL:       optional(m.MaxTtlMs, d.duration),
		MaxRetiring:  optional(m.MaxRetiring, d.count),
		WantedVoters: optional(m.WantedVoters, d.count),
		LeaderRegion: m.LeaderRegion,
		AuditIssued:  m.AuditIssued,
	}
}

func (d *decoder) member(m *logpb.Member) Member {
	if m == nil {
		d.fail("the member is missing")
		return Member{}
	}
	return Member{
		ID:          m.Id,
		Name:        m.Name,
		Region:      m.Region,
		RPCAddress:  m.RpcAddress,
		RaftAddress: m.RaftAddress,
		Version:     m.Version,
		Format:      d.count(m.Format),
		Replica:     m.Replica,
	}
}

func (d *decoder) mode(m logpb.Mode) Mode {
	if m != logpb.Mode_MODE_OVERLAP && m != logpb.Mode_MODE_STRICT {
		d.fail("unknown mode %d", m)
	}
	return Mode(m)
}

func (d *decoder) duration(ms int64) time.Duration {
	if ms < -maxMillis || ms > maxMillis {
		d.fail("a duration of %d ms is out of range", ms)
	}
	return time.Duration(ms) * time.Millisecond
}

func (d *decoder) count(n uint32) int {
	if n > math.MaxInt32 {
		d.fail("a count of %d is out of range", n)
	}
	return int(n)
}

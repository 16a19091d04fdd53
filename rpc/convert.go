package rpc

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/fsm"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// MemberMessage gives a member's record as it is sent. Role and leadership are not part of it.
func MemberMessage(m fsm.Member) *v1.Member {
	return &v1.Member{
		NodeId: m.ID, Name: m.Name, Region: m.Region, RpcAddress: m.RPCAddress, RaftAddress: m.RaftAddress,
		Version: m.Version, Format: uint32(m.Format), Replica: m.Replica,
	}
}

// MemberRecord reads a member's record.
func MemberRecord(m *v1.Member) fsm.Member {
	return fsm.Member{
		ID: m.GetNodeId(), Name: m.GetName(), Region: m.GetRegion(), RPCAddress: m.GetRpcAddress(),
		RaftAddress: m.GetRaftAddress(), Version: m.GetVersion(), Format: int(m.GetFormat()), Replica: m.GetReplica(),
	}
}

// SettingsMessage gives the settings as they are sent, every field present.
func SettingsMessage(s fsm.Settings) *v1.Settings {
	retiring, voters := uint32(s.MaxRetiring), uint32(s.WantedVoters)
	mode := v1.Settings_OVERLAP
	if s.Mode == fsm.Strict {
		mode = v1.Settings_STRICT
	}
	return &v1.Settings{
		Mode: mode, ForgetAfter: durationpb.New(s.ForgetAfter), Issuer: &s.Issuer, MinTtl: durationpb.New(s.MinTTL),
		DefaultTtl: durationpb.New(s.DefaultTTL), MaxTtl: durationpb.New(s.MaxTTL),
		MaxRetiringKeys: &retiring, WantedVoters: &voters, LeaderRegion: &s.LeaderRegion,
		MaxStaleness: durationpb.New(s.MaxStaleness), AuditIssued: &s.AuditIssued,
	}
}

// FoundingSettings gives the settings of a cluster that is founded with the fields that are present in place of the
// defaults.
func FoundingSettings(m *v1.Settings, defaults fsm.Settings) fsm.Settings {
	s := defaults.With(SettingsChange(m))
	if d := m.GetMaxStaleness(); d != nil {
		s.MaxStaleness = d.AsDuration()
	}
	return s
}

// SettingsChange reads the fields that are present, of those that can change.
func SettingsChange(m *v1.Settings) fsm.UpdateSettings {
	c := fsm.UpdateSettings{
		ForgetAfter: duration(m.GetForgetAfter()), MinTTL: duration(m.GetMinTtl()),
		DefaultTTL: duration(m.GetDefaultTtl()), MaxTTL: duration(m.GetMaxTtl()),
	}
	switch m.GetMode() {
	case v1.Settings_OVERLAP:
		c.Mode = new(fsm.Overlap)
	case v1.Settings_STRICT:
		c.Mode = new(fsm.Strict)
	case v1.Settings_UNSPECIFIED: // stays as it is
	}
	if m != nil {
		c.Issuer, c.LeaderRegion, c.AuditIssued = m.Issuer, m.LeaderRegion, m.AuditIssued
	}
	if m != nil && m.MaxRetiringKeys != nil {
		c.MaxRetiring = new(int(m.GetMaxRetiringKeys()))
	}
	if m != nil && m.WantedVoters != nil {
		c.WantedVoters = new(int(m.GetWantedVoters()))
	}
	return c
}

func duration(d *durationpb.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	return new(d.AsDuration())
}

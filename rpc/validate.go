package rpc

import (
	"cmp"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/fault"
	"github.com/keyquorum/keyquorum/internal/subject"
	"github.com/keyquorum/keyquorum/internal/token"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Limits on requests. Those on lifetimes are settings, which the replicated state checks.
const (
	maxToken     = token.MaxLen
	maxBatch     = 256
	maxText      = subject.Max
	maxPage      = 1000
	maxPageToken = 512
	maxProof     = 4 << 10
)

func checkIssue(req *v1.IssueRequest) error {
	if err := checkSubject(req.GetSubject()); err != nil {
		return err
	}
	if err := checkTTL(req.GetTtl()); err != nil {
		return err
	}
	if err := token.CheckAudience("audience", req.GetAudience()); err != nil {
		return err
	}
	return checkClaims(req.GetClaims())
}

func checkSubject(s string) error { return token.CheckSubject("subject", s) }

func checkTTL(d *durationpb.Duration) error {
	if d == nil {
		return nil
	}
	return checkDuration("ttl", d, time.Millisecond)
}

// checkDuration refuses what is not a whole number of milliseconds, or less than least.
func checkDuration(field string, d *durationpb.Duration, least time.Duration) error {
	switch v := d.AsDuration(); {
	case d.CheckValid() != nil:
		return fault.Invalid(field, "is not a valid duration")
	case v < 0:
		return fault.Invalid(field, "must not be negative")
	case v < least && v == 0:
		return fault.Invalid(field, "must not be zero")
	case durationpb.New(v).GetSeconds() != d.GetSeconds():
		return fault.Invalid(field, "is too long to be reckoned with")
	case v%time.Millisecond != 0:
		return fault.Invalid(field, "must be a whole number of milliseconds")
	}
	return nil
}

func checkVerify(req *v1.VerifyRequest) error {
	return cmp.Or(checkAskedAudience(req.GetAudience()), checkConsistency(req.GetConsistency()))
}

func checkConsistency(c v1.VerifyRequest_Consistency) error {
	if _, known := v1.VerifyRequest_Consistency_name[int32(c)]; !known {
		return fault.Invalid("consistency", "must be BOUNDED, LINEARIZABLE or STALE_OK")
	}
	return nil
}

func checkVerifyBatch(req *v1.VerifyBatchRequest) error {
	if n := len(req.GetTokens()); n > maxBatch {
		return fault.Invalid("tokens", fmt.Sprintf("has %d: the most is %d at a time", n, maxBatch))
	}
	return cmp.Or(checkAskedAudience(req.GetAudience()), checkConsistency(req.GetConsistency()))
}

func checkAskedAudience(audience string) error {
	if len(audience) > maxText {
		return tooLong("audience", maxText)
	}
	return nil
}

func tooLong(field string, most int) error {
	return fault.Invalid(field, fmt.Sprintf("must not be longer than %d bytes", most))
}

// keyChange is Rotate, Revoke or Delete.
type keyChange interface {
	GetSubject() string
	GetExpectedKeyId() string
}

func checkKeyChange[Req any, P interface {
	*Req
	keyChange
}](req P) error {
	if err := checkSubject(req.GetSubject()); err != nil {
		return err
	}
	if id := req.GetExpectedKeyId(); id != "" {
		if _, err := fsm.ParseKeyID(id); err != nil {
			return fault.Invalid("expectedKeyId", err.Error())
		}
	}
	return nil
}

func checkGet(req *v1.GetRequest) error { return checkSubject(req.GetSubject()) }

func checkList(req *v1.ListRequest) error {
	switch {
	case req.GetPageSize() < 0:
		return fault.Invalid("pageSize", "must not be negative")
	case req.GetPageSize() > maxPage:
		return fault.Invalid("pageSize", fmt.Sprintf("must not be more than %d", maxPage))
	case len(req.GetPageToken()) > maxPageToken:
		return fault.Invalid("pageToken", "is not one that List gave")
	}
	return nil
}

func checkInit(req *v1.InitRequest) error { return checkSettings(req.GetSettings()) }

func checkUpdateSettings(req *v1.UpdateSettingsRequest) error {
	if req.GetSettings().GetMaxStaleness() != nil {
		return fault.Invalid("settings.maxStaleness", "is set when the cluster is founded, and cannot be changed")
	}
	if SettingsChange(req.GetSettings()) == (fsm.UpdateSettings{}) {
		return fault.Invalid("settings", "must name at least one setting to change")
	}
	return checkSettings(req.GetSettings())
}

// checkSettings checks the form of the fields that are present; the replicated state checks what they may be.
func checkSettings(s *v1.Settings) error {
	if _, known := v1.Settings_Mode_name[int32(s.GetMode())]; !known {
		return fault.Invalid("settings.mode", "must be OVERLAP or STRICT")
	}
	for _, d := range []struct {
		field string
		value *durationpb.Duration
		least time.Duration
	}{
		{"settings.forgetAfter", s.GetForgetAfter(), 0},
		{"settings.minTtl", s.GetMinTtl(), time.Millisecond},
		{"settings.defaultTtl", s.GetDefaultTtl(), time.Millisecond},
		{"settings.maxTtl", s.GetMaxTtl(), time.Millisecond},
		{"settings.maxStaleness", s.GetMaxStaleness(), time.Millisecond},
	} {
		if d.value == nil {
			continue
		}
		if err := checkDuration(d.field, d.value, d.least); err != nil {
			return err
		}
	}
	return nil
}

func checkRemove(req *v1.RemoveRequest) error { return checkName("node", req.GetNode()) }

func checkTransfer(req *v1.TransferLeadershipRequest) error {
	if req.GetNode() == "" {
		return nil
	}
	return checkName("node", req.GetNode())
}

func checkRetireMasterKey(req *v1.RetireMasterKeyRequest) error {
	if req.GetMasterKey() == 0 {
		return fault.Invalid("masterKey", "must be the id of a master key")
	}
	return nil
}

// checkName is for what names something in logs and records: it has the form of a subject.
func checkName(field, s string) error { return token.CheckSubject(field, s) }

// checkForward checks what came with a forwarded write; the write itself is checked as one that came directly.
func checkForward(req *peerv1.ForwardRequest) error {
	for _, name := range []struct{ field, value string }{
		{"actor", req.GetActor()}, {"node", req.GetNode()}, {"nodeId", req.GetNodeId()}, {"source", req.GetSource()},
	} {
		if err := checkName(name.field, name.value); err != nil {
			return err
		}
	}
	return nil
}

func checkAuditRecords(req *peerv1.AuditRecordsRequest) error {
	return checkName("nodeId", req.GetNodeId())
}

func checkTick(req *peerv1.TickRequest) error { return checkName("nodeId", req.GetNodeId()) }

func checkJoin(req *peerv1.JoinRequest) error {
	m := req.GetMember()
	for _, name := range []struct{ field, value string }{
		{"member.nodeId", m.GetNodeId()},
		{"member.name", m.GetName()},
		{"member.rpcAddress", m.GetRpcAddress()},
		{"member.raftAddress", m.GetRaftAddress()},
	} {
		if err := checkName(name.field, name.value); err != nil {
			return err
		}
	}
	for _, text := range []struct{ field, value string }{
		{"clusterId", req.GetClusterId()}, {"member.region", m.GetRegion()}, {"member.version", m.GetVersion()},
	} {
		if text.value == "" {
			continue
		}
		if err := checkName(text.field, text.value); err != nil {
			return err
		}
	}
	return cmp.Or(
		checkSecret("keyringProof", req.GetKeyringProof()),
		checkSecret("challenge", req.GetChallenge()),
		checkSecret("nonce", req.GetNonce()),
	)
}

func checkLeave(req *peerv1.LeaveRequest) error {
	return cmp.Or(
		checkName("nodeId", req.GetNodeId()),
		checkSecret("keyringProof", req.GetKeyringProof()),
		checkSecret("challenge", req.GetChallenge()),
	)
}

// checkSecret is for what nodes show each other.
func checkSecret(field string, b []byte) error {
	if len(b) > maxProof {
		return tooLong(field, maxProof)
	}
	return nil
}

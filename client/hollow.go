package client

import (
	"errors"
	"slices"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

var errHollow = errors.New("the answer does not say what was asked for: is there a Keyquorum node at this address?")

// hollow reports whether an answer lacks what no node leaves out. A body of no bytes is a message too, and would pass
// for a token that is not valid, or for a key that was revoked.
func hollow(answer any) bool {
	switch m := answer.(type) {
	case *v1.IssueResponse:
		return m.GetToken() == ""
	case *v1.VerifyResponse:
		return !m.GetValid() && m.GetReason() == v1.VerifyResponse_NONE
	case *v1.VerifyBatchResponse:
		return slices.ContainsFunc(m.GetVerdicts(), func(v *v1.VerifyResponse) bool { return hollow(v) })
	case *v1.RotateResponse:
		return m.GetKeyId() == ""
	case *v1.RevokeResponse:
		return m.GetKeyId() == ""
	case *v1.DeleteResponse:
		return m.GetRevision() == 0
	case *v1.InitResponse:
		return m.GetClusterId() == ""
	case *v1.GetSettingsResponse:
		return m.GetSettings() == nil
	case *v1.UpdateSettingsResponse:
		return m.GetSettings() == nil
	case *v1.RetireMasterKeyResponse:
		return m.GetMasterKey() == nil
	case *v1.CreateTokenResponse:
		return m.GetToken() == ""
	case *v1.AuditServiceHeadResponse:
		return m.GetNodeId() == ""
	}
	return false
}

package cluster

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// The operations below are asked of one member, as a caller on that machine would.

// Caller is who asks.
var Caller = rpc.Caller{Actor: "test", Source: "127.0.0.1", Node: "test"}

// Issue makes a token that lives for ttl.
func (m *Member) Issue(ctx context.Context, subject string, ttl time.Duration) (*v1.IssueResponse, error) {
	return m.Node().Issue(ctx, Caller, &v1.IssueRequest{Subject: subject, Ttl: durationpb.New(ttl)})
}

// MustIssue is Issue for when it must succeed.
func (m *Member) MustIssue(t testing.TB, subject string, ttl time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	res, err := m.Issue(ctx, subject, ttl)
	if err != nil {
		t.Fatalf("issue a token for %s at %s: %v", subject, m.Host, err)
	}
	return res.GetToken()
}

// Verify judges a token.
func (m *Member) Verify(ctx context.Context, token string) (*v1.VerifyResponse, error) {
	return m.Node().Verify(ctx, &v1.VerifyRequest{Token: token})
}

// VerifyAt judges a token at a level, within a minute.
func (m *Member) VerifyAt(level v1.VerifyRequest_Consistency, token string) (*v1.VerifyResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return m.Node().Verify(ctx, &v1.VerifyRequest{Token: token, Consistency: level})
}

// MustVerify judges a token within a second, for when the member must be able to; NONE is for a valid one.
func (m *Member) MustVerify(t testing.TB, token string) v1.VerifyResponse_Reason {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	res, err := m.Verify(ctx, token)
	if err != nil {
		t.Fatalf("verify at %s: %v", m.Host, err)
	}
	if res.GetValid() != (res.GetReason() == v1.VerifyResponse_NONE) {
		t.Fatalf("a verdict that contradicts itself: %v", res)
	}
	return res.GetReason()
}

// Rotate makes the subject a new active key.
func (m *Member) Rotate(ctx context.Context, subject string) (*v1.RotateResponse, error) {
	return m.Node().Rotate(ctx, Caller, &v1.RotateRequest{Subject: subject})
}

// Revoke deletes all of the subject's keys.
func (m *Member) Revoke(ctx context.Context, subject string) (*v1.RevokeResponse, error) {
	return m.Node().Revoke(ctx, Caller, &v1.RevokeRequest{Subject: subject})
}

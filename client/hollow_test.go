package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// Something that answers 200 and says nothing is no node, whatever it is asked; and it may have passed a write on.
func TestAnAnswerOfNoBytesIsNoSuccess(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	}))
	t.Cleanup(server.Close)
	c, err := client.New([]string{server.URL}, client.WithoutDiscovery())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx := t.Context()
	for name, call := range map[string]func(context.Context) error{
		"Issue": func(ctx context.Context) error { _, err := c.Issue(ctx, &v1.IssueRequest{Subject: "ada"}); return err },
		"Verify": func(ctx context.Context) error {
			_, err := c.Verify(ctx, &v1.VerifyRequest{Token: "a.b.c"})
			return err
		},
		"VerifyBatch": func(ctx context.Context) error {
			_, err := c.VerifyBatch(ctx, &v1.VerifyBatchRequest{Tokens: []string{"a.b.c"}})
			return err
		},
		"Rotate": func(ctx context.Context) error {
			_, err := c.Rotate(ctx, &v1.RotateRequest{Subject: "ada"})
			return err
		},
		"Revoke": func(ctx context.Context) error {
			_, err := c.Revoke(ctx, &v1.RevokeRequest{Subject: "ada"})
			return err
		},
		"Delete": func(ctx context.Context) error {
			_, err := c.Delete(ctx, &v1.DeleteRequest{Subject: "ada"})
			return err
		},
		"Init":        func(ctx context.Context) error { _, err := c.Init(ctx, &v1.InitRequest{}); return err },
		"GetSettings": func(ctx context.Context) error { _, err := c.GetSettings(ctx); return err },
		"UpdateSettings": func(ctx context.Context) error {
			_, err := c.UpdateSettings(ctx, &v1.UpdateSettingsRequest{})
			return err
		},
		"RetireMasterKey": func(ctx context.Context) error {
			_, err := c.RetireMasterKey(ctx, &v1.RetireMasterKeyRequest{})
			return err
		},
		"CreateToken": func(ctx context.Context) error { _, err := c.CreateToken(ctx, &v1.CreateTokenRequest{}); return err },
		"AuditHead":   func(ctx context.Context) error { _, err := c.AuditHead(ctx); return err },
	} {
		want := client.ErrOutcomeUnknown
		if slices.Contains([]string{"Issue", "Verify", "VerifyBatch", "GetSettings", "AuditHead"}, name) {
			want = client.ErrInternal
		}
		if err := call(ctx); !errors.Is(err, want) {
			t.Errorf("%s says %v, want %v", name, err, want)
		}
	}
}

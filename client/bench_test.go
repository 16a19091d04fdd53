package client_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// BenchmarkVerify is what a call costs besides the verification: loopback, a handler that does nothing, and the generated
// client as it is, or this one in front of it.
func BenchmarkVerify(b *testing.B) {
	s := httptest.NewServer((&fake{}).handler())
	defer s.Close()
	h := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer h.CloseIdleConnections()
	plain := keyquorumv1connect.NewTokenServiceClient(h, s.URL)
	b.Run("generated", func(b *testing.B) {
		measure(b, func(ctx context.Context, req *v1.VerifyRequest) error {
			ctx, cancel := context.WithTimeout(ctx, client.DefaultTimeout) // as every caller should
			defer cancel()
			_, err := plain.Verify(ctx, connect.NewRequest(req))
			return err
		})
	})
	for name, opts := range map[string][]client.Option{
		"client": nil, "client in order": {client.InOrder()}, "client hedging": {client.WithHedging(time.Second)},
	} {
		c, err := client.New([]string{s.URL}, append(opts, client.WithHTTPClient(h))...)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(c.Close)
		b.Run(name, func(b *testing.B) {
			measure(b, func(ctx context.Context, req *v1.VerifyRequest) error {
				_, err := c.Verify(ctx, req)
				return err
			})
		})
	}
}

func measure(b *testing.B, verify func(context.Context, *v1.VerifyRequest) error) {
	b.Helper()
	req := &v1.VerifyRequest{Token: "good"}
	b.ReportAllocs()
	for b.Loop() {
		if err := verify(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}

package client_test

import (
	"net/http/httptest"
	"testing"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// BenchmarkVerify is what a call costs besides the verification: client, loopback, and a handler that does nothing.
func BenchmarkVerify(b *testing.B) {
	s := httptest.NewServer((&fake{}).handler())
	defer s.Close()
	c, err := client.New([]string{s.URL})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	req := &v1.VerifyRequest{Token: "good"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Verify(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}

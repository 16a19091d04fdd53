package tokens

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/internal/secret"
	"github.com/keyquorum/keyquorum/internal/token"
)

// TestASampleOfRefusalsIsLogged: so many in a time, whatever comes, and never the token.
func TestASampleOfRefusalsIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := secret.NewKey(bytes.Repeat([]byte{7}, secret.KeySize))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := token.Sign(token.Spec{
			Issuer: "keyquorum", Subject: "ada", IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute),
			ID: token.NewID(), KeyID: "AAAAAAAAAAEAAAAAAAAAAQ",
		}, key)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		r := refusals{log: slog.New(slog.NewTextHandler(&log, nil))}
		for range 1000 {
			r.tell(t.Context(), raw, token.KeyNotFound)
			r.tell(t.Context(), "rub\nbish", token.Malformed)
			r.tell(t.Context(), raw, token.Expired)
		}
		if n := strings.Count(log.String(), "\n"); n != sampleMost {
			t.Errorf("%d lines", n)
		}
		time.Sleep(sampleEvery)
		r.tell(t.Context(), raw, token.KeyNotFound)
		text := log.String()
		if !strings.Contains(text, "reason=KEY_NOT_FOUND claimed_subject=ada refused_untold=1990") || !strings.Contains(text, "reason=MALFORMED") {
			t.Errorf("the log says\n%s", text)
		}
		if strings.Contains(text, "EXPIRED") || strings.Contains(text, "rub") || strings.Contains(text, raw) || strings.Contains(text, raw[len(raw)-20:]) {
			t.Error("the log says too much")
		}
	})
}

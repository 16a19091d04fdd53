package tokens_test

import (
	"bytes"
	"testing"

	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/internal/secret"
	"github.com/keyquorum/keyquorum/node/tokens"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// lender keeps hold of the keys that it opened.
type lender struct {
	*seal.Keyring
	t      *testing.T
	opened []*secret.Key
}

func (l *lender) Open(subject string, random uint64, sealed []byte) (*secret.Key, error) {
	key, err := l.Keyring.Open(subject, random, sealed)
	if err != nil {
		return nil, err
	}
	if isWiped(key) {
		l.t.Error("the key has no material")
	}
	l.opened = append(l.opened, key)
	return key, nil
}

func isWiped(key *secret.Key) bool { return bytes.Equal(key.Bytes(), make([]byte, secret.KeySize)) }

// Whoever reads the memory later finds no key there that has signed a token or verified one, whatever the verdict was.
func TestOpenedKeysAreWiped(t *testing.T) {
	keyring, err := seal.NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	l := &lender{Keyring: keyring, t: t}
	r := newRig(t, func(c *tokens.Config) { c.Keyring = l })
	wiped := func(what string) {
		t.Helper()
		if len(l.opened) == 0 {
			t.Errorf("%s opened no key", what)
		}
		for _, key := range l.opened {
			if !isWiped(key) {
				t.Errorf("after %s a key is there still", what)
			}
		}
		l.opened = nil
	}
	issued, err := r.Issue(t.Context(), fsm.Origin{}, &v1.IssueRequest{Subject: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	wiped("issuing")
	good := issued.GetToken()
	forged := good[:len(good)-43] + string(bytes.Repeat([]byte{'A'}, 43))
	for token, want := range map[string]v1.VerifyResponse_Reason{good: v1.VerifyResponse_NONE, forged: v1.VerifyResponse_SIGNATURE_INVALID} {
		res, err := r.Verify(t.Context(), &v1.VerifyRequest{Token: token})
		if err != nil || res.GetReason() != want {
			t.Fatalf("%v, %v; want %s", res, err, want)
		}
		wiped("the verdict " + want.String())
	}
	if _, err := r.VerifyBatch(t.Context(), &v1.VerifyBatchRequest{Tokens: []string{good, forged, good}}); err != nil {
		t.Fatal(err)
	}
	wiped("verifying several")
}

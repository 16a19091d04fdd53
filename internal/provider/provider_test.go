package provider_test

import (
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/internal/provider"
)

func TestOpen(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	for spec, want := range map[string]string{
		"/etc/keyring":                "keyring /etc/keyring",
		"keyring":                     "keyring keyring",
		"file:/etc/keyring":           "keyring /etc/keyring",
		"file:keyring":                "keyring keyring",
		"file:///etc/keyring":         "keyring /etc/keyring",
		"env:KEYRING":                 "the keyring in environment variable KEYRING",
		"odd:name":                    "keyring odd:name",
		"vault+https://h/t/k?file=/f": "keyring /f, encrypted by t/k of https://h,",
	} {
		store, err := provider.Open(spec, none)
		if err != nil || store.String() != want {
			t.Errorf("%s: %v, %v; want %s", spec, store, err, want)
		}
	}
	for spec, word := range map[string]string{
		"":                     "must name a file",
		"file:":                "must name a file",
		"env:":                 "name of an environment variable",
		"file://host/keyring":  `no provider "file"`,
		"vault://h/t/k?file=f": `no provider "vault"`,
		"awskms://key":         `no provider "awskms"`,
		"vault+https://h/t/k":  "in which file",
	} {
		if _, err := provider.Open(spec, none); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, want one with %q", spec, err, word)
		}
	}
}

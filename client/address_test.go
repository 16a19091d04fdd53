package client_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/client"
)

func TestAddressesAreTakenInEachSpelling(t *testing.T) {
	for in, want := range map[string]string{
		"localhost:7500":        "http://localhost:7500",
		"localhost":             "http://localhost:7400",
		"10.0.0.1":              "http://10.0.0.1:7400",
		"[::1]:7500":            "http://[::1]:7500",
		"[::1]":                 "http://[::1]:7400",
		"::1":                   "http://[::1]:7400",
		"http://node-1:7400":    "http://node-1:7400",
		"http://node-1:7400/":   "http://node-1:7400",
		"https://auth.internal": "https://auth.internal",
		"https://[::1]":         "https://[::1]",
	} {
		if got, err := client.ParseAddress(in); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestBadAddressesAreNamedAllAtOnce(t *testing.T) {
	bad := []string{
		"", ":7400", "host:", "host:0", "host:99999", "host:http", "a b:1", "ftp://host", "http://", "http://host/path",
		"http://host?x=1", "http://host:port", "1:2:3:x", "http://%zz",
	}
	_, err := client.New(append([]string{"fine:7400"}, bad...))
	if err == nil {
		t.Fatal("all were taken")
	}
	if told := strings.Count(err.Error(), "\n") + 1; told != len(bad) {
		t.Errorf("%d of %d faults told:\n%v", told, len(bad), err)
	}
	if _, err := client.New(nil); err == nil {
		t.Error("no address was taken")
	}
}

func TestAPasswordInAnAddressIsNotRepeated(t *testing.T) {
	for _, address := range []string{
		"http://admin:hunter2@host:7400", "http://admin:hunter2@host:port", "https://admin:hunter2@host/%zz", "ftp://admin:hunter2@host",
		"http://admin:hunter2/@host", "http://admin:hunter2%@host", "admin:hunter2@host", "admin:hunter2@host:7400", "admin:@hunter2@host",
	} {
		_, err := client.ParseAddress(address)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "host") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestRepeatedAddressesCountOnce(t *testing.T) {
	c := newClient(t, "b:7400", "a:7400", "http://b:7400", "b")
	if got := c.Addresses(); !slices.Equal(got, []string{"http://b:7400", "http://a:7400"}) {
		t.Error(got)
	}
}

package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/pki"
)

// certificate reads the one in a file.
func certificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatalf("%s holds no PEM", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// untold wants none of what a command printed to be of a key's file.
func untold(t *testing.T, r result, keys ...string) {
	t.Helper()
	for _, path := range keys {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if strings.Contains(r.out+r.errors, strings.TrimSpace(line)) {
				t.Errorf("%s was printed: %+v", path, r)
			}
		}
	}
}

func TestACAAndItsCertificates(t *testing.T) {
	sh := &shell{t: t}
	dir := filepath.Join(t.TempDir(), "ca")
	file := func(name string) string { return filepath.Join(dir, name) }

	r := sh.must(0, "ca", "init", dir)
	ca := certificate(t, file("ca.crt"))
	wants(t, r.out, file("ca.crt"), file("ca.key"), "secret, and off the nodes", "runs out    "+instant(ca.NotAfter), "ca issue-node "+dir, "ca issue-client "+dir)
	untold(t, r, file("ca.key"))

	r = sh.must(0, "ca", "issue-node", dir, "n1", "--host", "n1.example.org, 10.0.0.1", "--host", "::1", "--valid-for", "720h")
	n1 := certificate(t, file("n1.crt"))
	wants(t, r.out, "certificate of n1 to "+file("n1.crt"), file("n1.key"), "roles       node", "hosts       n1.example.org, 10.0.0.1, ::1",
		"runs out    "+instant(n1.NotAfter), "secret", "never the CA's key")
	untold(t, r, file("n1.key"), file("ca.key"))
	if err := n1.CheckSignatureFrom(ca); err != nil || n1.NotAfter.Sub(n1.NotBefore).Round(time.Hour) != 720*time.Hour {
		t.Error(err, n1.NotBefore, n1.NotAfter)
	}
	for _, host := range []string{"n1.example.org", "10.0.0.1", "::1"} {
		if err := n1.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	wants(t, sh.must(0, "ca", "issue-client", dir, "ops", "--role", "operator,auditor", "--role=verifier").out, "roles       verifier, operator, auditor")
	if id, err := pki.Identify(certificate(t, file("ops.crt"))); err != nil || id.Name != "ops" || len(id.Roles) != 3 {
		t.Error(id, err)
	}
}

func TestCertificatesForMachines(t *testing.T) {
	sh := &shell{t: t}
	dir, out := filepath.Join(t.TempDir(), "ca"), filepath.Join(t.TempDir(), "out")
	type answer struct {
		Name, CA, Certificate, Key, Serial string
		Roles, Hosts                       []string
		NotBefore, NotAfter                time.Time
	}
	read := func(r result) (a answer) {
		t.Helper()
		if err := json.Unmarshal([]byte(r.out), &a); err != nil || strings.Count(r.out, "\n") != 1 {
			t.Fatal(err, r)
		}
		return a
	}
	ca := read(sh.must(0, "ca", "init", dir, "--json"))
	if ca.Certificate != filepath.Join(dir, "ca.crt") || ca.Key != filepath.Join(dir, "ca.key") || len(ca.Serial) != 32 || ca.NotAfter.Before(time.Now()) {
		t.Errorf("%+v", ca)
	}
	// The name is no path, and steers no terminal.
	r := sh.must(0, "ca", "issue-client", dir, "../a\u202eb", "--role", "issuer", "--out", out, "--json")
	wants(t, r.out, `"name":"../a\u202eb"`)
	client := read(r)
	if client.Certificate != filepath.Join(out, "..%2Fa%E2%80%AEb.crt") || client.CA != ca.Certificate || !slices.Equal(client.Roles, []string{"issuer"}) {
		t.Errorf("%+v", client)
	}
	if info, err := os.Stat(client.Key); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info, err)
	}
	if !certificate(t, client.Certificate).NotAfter.Equal(client.NotAfter) {
		t.Error(client)
	}
}

func TestBadCertificatesAreUsageErrorsAndNothingIsWritten(t *testing.T) {
	sh := &shell{t: t}
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		told []string
	}{
		{[]string{"init", dir, "--valid-for", "1s"}, []string{"--valid-for: must not be shorter than 1m"}},
		{[]string{"init", dir, "--valid-for", "10y"}, []string{`--valid-for: "10y" is not a duration`}},
		{[]string{"init", ""}, []string{"DIR: must not be empty"}},
		{[]string{"issue-node", dir, "n1"}, []string{"--host: say at which"}},
		{[]string{"issue-node", "", "n\n1", "--host", "a:1,", "--valid-for=-1h"}, []string{
			"DIR: must not be empty", "NAME: must not contain control characters", `--host: "a:1" has a port`, `--host: "" is neither`, "--valid-for: must not be",
		}},
		{[]string{"issue-client", dir, "c"}, []string{"--role: say what the client may be"}},
		{[]string{"issue-client", dir, "c", "--role", "node,root"}, []string{"--role: a client is no node", `--role: "root" is none of verifier`}},
	} {
		r := sh.must(2, append([]string{"ca"}, c.args...)...)
		wants(t, r.errors, c.told...)
		if strings.Contains(r.errors, "say at which") && len(c.args) > 3 {
			t.Errorf("what was given is asked for: %s", r.errors)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Error(entries, err)
	}
}

func TestTheCARefusesAndLeavesWhatIsThere(t *testing.T) {
	sh := &shell{t: t}
	dir := t.TempDir()
	wants(t, sh.must(1, "ca", "issue-node", dir, "n1", "--host", "n1").errors, "there is no CA", "keyquorum ca init", dir)
	sh.must(0, "ca", "init", dir, "--valid-for", "1h")
	before, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	wants(t, sh.must(1, "ca", "init", dir).errors, dir, "was left as it is")
	wants(t, sh.must(1, "ca", "issue-node", dir, "n1", "--host", "n1").errors, "would outlive its CA", "give a shorter --valid-for")
	wants(t, sh.must(1, "ca", "issue-node", dir, "ca", "--host", "n1", "--valid-for", "1m").errors, "ca.crt or", "was left as it is", "--out")
	sh.must(0, "ca", "issue-node", dir, "n1", "--host", "n1", "--valid-for", "1m")
	wants(t, sh.must(1, "ca", "issue-client", dir, "n1", "--role", "issuer", "--valid-for", "1m").errors, "n1.crt or", "was left as it is")
	if after, err := os.ReadFile(filepath.Join(dir, "ca.key")); err != nil || !bytes.Equal(after, before) {
		t.Error("the CA's key was changed", err)
	}
	if err := os.Chmod(filepath.Join(dir, "ca.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := sh.must(1, "ca", "issue-node", dir, "n2", "--host", "n2", "--valid-for", "1m")
	wants(t, r.errors, "ca.key has mode 0644", "chmod 600")
	untold(t, r, filepath.Join(dir, "ca.key"))
	if _, err := os.Stat(filepath.Join(dir, "n2.crt")); err == nil {
		t.Error("a certificate was issued")
	}
}

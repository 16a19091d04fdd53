package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/internal/vault/vaulttest"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// A whole rotation, as an operator does it.
func TestKeyringIsRotatedByHand(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "keyring")
	here := &shell{t: t}
	here.must(0, "keyring", "init", file)
	n1 := serveNode(t, dir, "n1", "--keyring-interval", "1s")
	n2 := serveNode(t, dir, "n2", "--keyring-interval", "1s", "--join", n1.gossip)
	first, second := at(t, n1.rpc), at(t, n2.rpc)
	first.must(0, "cluster", "init", "--wait", "20s")
	second.must(0, "cluster", "init", "--wait", "20s")
	token := strings.TrimSpace(first.must(0, "issue", "ada").out)
	old := regexp.MustCompile(`(?m)^(\d+) +primary +1 +2 of 2$`).FindStringSubmatch(first.must(0, "keyring", "status").out)
	if old == nil {
		t.Fatal("the status does not show the master key")
	}
	wants(t, first.must(1, "keyring", "retire", "--master-key", old[1]).errors, "is the primary one")
	wants(t, first.must(1, "keyring", "drop", file, "--master-key", old[1]).errors, "it is the primary one")

	r := second.must(0, "keyring", "rotate", file, "--wait")
	wants(t, r.out, "Added master key ", "Back this file up", "All keys are sealed under master key ")
	wants(t, r.errors, "held by ")
	next := regexp.MustCompile(`Added master key (\d+)`).FindStringSubmatch(r.out)[1]
	wants(t, second.must(0, "keyring", "status", file).out, "IN FILE", "older", "primary", next)
	wants(t, second.must(1, "keyring", "drop", file, "--master-key", old[1]).errors, "it is not retired")
	wants(t, second.must(0, "keyring", "retire", "--master-key", old[1]).out, "is retired")
	wants(t, first.must(0, "keyring", "drop", file, "--master-key", old[1]).out, "Dropped master key "+old[1])
	n1.log.await(t, `a retired master key was dropped from the keyring"? node=n1 master_key=(`+old[1]+`)`)
	n2.log.await(t, `a retired master key was dropped from the keyring"? node=n2 master_key=(`+old[1]+`)`)
	wants(t, first.must(0, "keyring", "status", "--json").out, `"state":"RETIRED","keys":"0","holders":[]`, `"keysToRewrap":"0"`)
	awaitVerdict(t, second, token, 0)
	n1.end(t)
	n1 = serveNode(t, dir, "n1", "--join", n2.gossip)
	at(t, n1.rpc).must(0, "cluster", "init", "--wait", "20s")
	awaitVerdict(t, at(t, n1.rpc), token, 0)
}

func TestKeyringCommandsSayWhatIsMissing(t *testing.T) {
	here := &shell{t: t}
	wants(t, here.must(2, "keyring", "retire").errors, "--master-key: say which")
	wants(t, here.must(2, "keyring", "drop", "file").errors, "--master-key: say which")
	wants(t, here.must(2, "keyring", "rotate", "vault+http://vault/transit/k?file=f").errors, "KEYRING: the URL is without TLS")
	wants(t, here.must(2, "keyring", "init", "awskms://key").errors, `there is no provider "awskms"`)
	wants(t, here.must(1, "keyring", "rotate", filepath.Join(t.TempDir(), "none")).errors, "there is no keyring at")
	wants(t, here.must(1, "keyring", "rotate", "env:NOTHING_HERE").errors, "NOTHING_HERE is empty or not set")
	file := filepath.Join(t.TempDir(), "keyring")
	here.must(0, "keyring", "init", file)
	before, _ := os.ReadFile(file)
	wants(t, at(t, nobody(t)).must(3, "keyring", "drop", file, "--master-key", "7").errors, "connection refused")
	if after, _ := os.ReadFile(file); !bytes.Equal(before, after) {
		t.Error("a key was dropped though no node said that it is retired")
	}
	wants(t, here.must(3, "keyring", "init", "vault+"+strings.Replace(nobody(t), "https", "http", 1)+"/transit/k?file="+file+".vault").errors, "is not available")
}

func TestWhatMayBeDropped(t *testing.T) {
	status := &v1.KeyringStatusResponse{MasterKeys: []*v1.MasterKey{
		{Id: 1, State: v1.MasterKey_RETIRED},
		{Id: 2, State: v1.MasterKey_OLDER, Keys: 3},
		{Id: 3, State: v1.MasterKey_OLDER},
		{Id: 4, State: v1.MasterKey_PRIMARY, Keys: 9},
		{Id: 5, State: v1.MasterKey_NEXT},
		{Id: 6, State: v1.MasterKey_UNUSED},
	}}
	for id, word := range map[uint32]string{
		1: "", 2: "3 of the users' keys", 3: "keyring retire --master-key 3", 4: "is the primary", 5: "not retired", 6: "not retired", 7: "no such master key",
	} {
		primary, err := droppable(status, id)
		if word == "" && (err != nil || primary != 4) || word != "" && (err == nil || !strings.Contains(err.Error(), word)) {
			t.Errorf("%d: %d, %v; want %q", id, primary, err, word)
		}
	}
	if _, err := droppable(&v1.KeyringStatusResponse{MasterKeys: status.GetMasterKeys()[:1]}, 1); exitCode(err) != exitUnreachable {
		t.Errorf("an answer without a primary key: %v", err)
	}
}

func TestWhoHoldsAMasterKey(t *testing.T) {
	status := &v1.KeyringStatusResponse{Members: []*v1.Holder{
		{NodeId: "a", Name: "n1", Answered: true}, {NodeId: "b", Name: "n2", Answered: true}, {NodeId: "c", Name: "n3"},
	}}
	if got := holders(status, &v1.MasterKey{Holders: []string{"a"}}); got != "1 of 3; not by n2; no answer from n3" {
		t.Error(got)
	}
	if got := holders(status, &v1.MasterKey{State: v1.MasterKey_RETIRED}); got != "0 of 3; no answer from n3" {
		t.Error(got)
	}
}

// A node whose keyring Vault encrypted waits for Vault when it starts, and needs it no more then.
func TestNodeWithAKeyringInVault(t *testing.T) {
	fake := &vaulttest.Server{Mount: "transit", Key: "keyquorum"}
	server := httptest.NewServer(http.Handler(fake))
	defer server.Close()
	dir := t.TempDir()
	spec := "vault+" + server.URL + "/transit/keyquorum?file=" + filepath.Join(dir, "keyring.vault")
	here := &shell{t: t}
	wants(t, here.must(0, "keyring", "init", spec).out, "Wrote the master keyring")
	fake.Seal(true)
	ctx, stop := context.WithCancel(t.Context())
	n := &served{log: newLines(), stop: stop, exit: make(chan int, 1)}
	args := []string{
		"serve", "--insecure", "--name", "n1", "--data-dir", filepath.Join(dir, "n1"), "--keyring", spec, "--keyring-interval", "1s",
		"--listen", "127.0.0.1:0", "--raft-listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0", "--probe-listen", "127.0.0.1:0",
	}
	none := func(string) (string, bool) { return "", false }
	go func() { n.exit <- run(ctx, args, strings.NewReader(""), new(bytes.Buffer), n.log, none) }()
	t.Cleanup(func() { n.end(t) })
	n.log.await(t, `waits for the provider of its master keyring.*(Vault is sealed)`)
	fake.Seal(false)
	found := n.log.await(t, `"?keyquorum starts"? .* rpc=(\S+) .* probes=(\S+)`)
	sh := at(t, found[0])
	sh.must(0, "cluster", "init", "--wait", "20s")
	token := strings.TrimSpace(sh.must(0, "issue", "ada").out)

	fake.Seal(true)
	n.log.await(t, `(what was loaded stays in use).*Vault is sealed`)
	awaitVerdict(t, sh, token, 0)
	sh.must(0, "issue", "bob")
	wants(t, at(t, found[1]).must(0, "health").out, "ok")
	wants(t, get(t, found[1]+"/metrics"), "keyquorum_keyring_provider_up 0")
	for asked := len(fake.Requests()); len(fake.Requests()) < asked+3; { // two looks more at least: it is said once
		<-time.After(50 * time.Millisecond)
	}
	if said := strings.Count(fmt.Sprint(n.log), "what was loaded stays in use"); said != 1 {
		t.Errorf("it was said %d times", said)
	}
	fake.Seal(false)
	n.log.await(t, `(the master keyring is all right again)`)
	wants(t, sh.must(0, "keyring", "rotate", spec, "--wait").out, "All keys are sealed under master key")
	awaitVerdict(t, sh, token, 0)
}

func get(t *testing.T, address string) string {
	t.Helper()
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

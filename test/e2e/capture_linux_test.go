package e2e_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/fsm"
	"github.com/keyquorum/keyquorum/internal/boltstore"
	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/internal/seal"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/e2e"
)

var capture = flag.Bool("capture", false, "capture all traffic of a cluster and search it; `make capture` gives the network for that")

// needsCapture skips, or sees that the network is the test's own.
func needsCapture(t *testing.T) {
	t.Helper()
	if !*capture {
		t.Skip("it needs root and a network of its own: run `make capture`")
	}
	onlyLoopback(t, "make capture")
}

// A cluster does all that it can do, and neither what goes over the network, nor what is on its disks, nor what it prints
// has anything in it that lets somebody be a user, a caller or a node.
func TestACaptureHoldsNoSecret(t *testing.T) {
	needsCapture(t)
	w := newWire(t)
	c := e2e.New(t, 3)
	for _, n := range c.Nodes {
		n.Flags = []string{"--keyring-interval", "1s", "--log-level", "debug"}
	}
	for _, n := range c.Nodes[1:] { // the first keeps all of its log, to be read at the end
		n.Flags = append(n.Flags, "--snapshot-threshold", "40", "--trailing-logs", "5", "--snapshot-interval", "1s")
	}
	c.Found()
	s := &story{c: c, secrets: newSecrets(), copies: t.TempDir()}
	s.tell(t)
	for _, n := range c.Nodes {
		n.Terminate()
	}
	flows := w.stop(t)
	s.knows(t)
	checkPorts(t, w, c)
	seen := len(w.odd)
	for _, f := range flows {
		seen += len(f.data)
		for _, what := range s.secrets.in(f.data) {
			t.Errorf("what %s says to %s holds %s", f.from, f.to, what)
		}
	}
	for _, what := range s.secrets.in(w.odd) {
		t.Errorf("a frame that is neither TCP nor UDP holds %s", what)
	}
	for _, what := range s.secrets.in(s.printed) {
		t.Errorf("the command line prints %s", what)
	}
	t.Logf("the capture: %d frames, %d flows, %d bytes", w.frames, len(flows), seen)
	var disks, logs int
	for _, n := range c.Nodes {
		disks += s.secrets.files(t, n.Dir)
		logs += s.secrets.files(t, n.LogFile())
		if !strings.Contains(n.Log(), "leader") {
			t.Errorf("the log of %s has nothing in it", n.Name)
		}
	}
	disks += s.secrets.files(t, s.copies)
	t.Logf("data directories: %d bytes; logs: %d bytes", disks, logs)
	s.finds(t)
}

// story is what the cluster does, and what is secret of it.
type story struct {
	c       *e2e.Cluster
	secrets *secrets
	tokens  []string // of users
	api     []string // of callers
	copies  string   // what data directories held in between
	printed []byte   // by the command line
}

func (s *story) tell(t *testing.T) {
	t.Helper()
	api := s.c.Client()
	watched := s.watchAudit(t)
	s.work(t, api)
	s.apiTokens(t, api)
	s.expiry(t, api)
	s.behind(t, api)
	s.rotateMaster(t, api)
	leader := s.c.Leader()
	leader.Kill()
	s.keep(t, leader)
	s.work(t, api)
	leader.Start()
	for _, n := range s.c.Nodes {
		n.AwaitReady()
	}
	s.cli(t, "audit", "tail", "--once")
	s.cli(t, "cluster", "status")
	if n := watched(); n < 100 {
		t.Errorf("who watched the audit chain saw %d records", n)
	}
}

// cli has the command line call the cluster.
func (s *story) cli(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), e2e.Binary(t), append(args, "--addr", s.c.Leader().Addr())...)
	for name, value := range s.c.Env() {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) == 0 {
		t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	s.printed = append(s.printed, out...)
}

// keep copies what is on a node's disk now, as later it may be overwritten. The node must not run.
func (s *story) keep(t *testing.T, n *e2e.Node) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(s.copies, n.Name), os.DirFS(n.Dir)); err != nil {
		t.Fatal(err)
	}
}

// watchAudit follows the audit chain until the function that it gives is called, which tells how many records came.
func (s *story) watchAudit(t *testing.T) func() int {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	records, done := 0, make(chan struct{})
	api := s.c.Client()
	go func() {
		defer close(done)
		e2e.Within(e2e.Patience, func() bool { // anew where a node has gone
			_ = api.AuditWatch(ctx, uint64(records+1), func(*v1.AuditRecord) error { records++; return nil })
			return ctx.Err() != nil
		})
	}()
	t.Cleanup(func() { stop(); <-done })
	return func() int { stop(); <-done; return records }
}

// issue issues a token and has every node that runs judge it.
func (s *story) issue(t *testing.T, api *client.Client, subject string) {
	t.Helper()
	token := issue(t, api, subject)
	s.tokens = append(s.tokens, token)
	for _, n := range s.c.Running() {
		e2e.Await(t, n.Name+" to accept a token", func() bool {
			res, err := n.API().Verify(t.Context(), &v1.VerifyRequest{Token: token})
			return err == nil && res.GetValid()
		})
	}
}

// work is what applications do, at each node.
func (s *story) work(t *testing.T, api *client.Client) {
	t.Helper()
	round := len(s.tokens)
	subject := func(i int) string { return fmt.Sprintf("user-%d-%d", round, i) }
	for i := range 12 {
		running := s.c.Running()
		s.issue(t, running[i%len(running)].API(), subject(i))
	}
	s.issue(t, api, subject(0))
	ctx := t.Context()
	var err error
	e2e.Await(t, "keys to be rotated, revoked and deleted", func() bool {
		_, err = api.Rotate(ctx, &v1.RotateRequest{Subject: subject(1)})
		if err == nil {
			_, err = api.Revoke(ctx, &v1.RevokeRequest{Subject: subject(2)})
		}
		if err == nil {
			_, err = api.Delete(ctx, &v1.DeleteRequest{Subject: subject(3)})
		}
		if err == nil {
			_, err = api.VerifyBatch(ctx, &v1.VerifyBatchRequest{Tokens: s.tokens})
		}
		return err == nil
	})
	for i := range 4 {
		s.issue(t, api, subject(i))
	}
}

// apiTokens has one made, used at each node in the place of a certificate, and revoked; and the operator's used.
func (s *story) apiTokens(t *testing.T, api *client.Client) {
	t.Helper()
	made, err := api.CreateToken(t.Context(), &v1.CreateTokenRequest{
		Name: "a gateway's", Roles: []v1.ApiToken_Role{v1.ApiToken_VERIFIER, v1.ApiToken_ISSUER},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.api = append(s.api, made.GetToken(), s.c.Operator)
	onlyCA := client.WithTLS(client.TLSFiles{CA: s.c.CA().File})
	for i, n := range s.c.Nodes {
		bearer := s.c.ClientOf([]string{n.Addr()}, onlyCA, client.WithAPIToken(made.GetToken()), client.InOrder())
		s.issue(t, bearer, fmt.Sprint("bearer-", i))
		if _, err := bearer.Verify(t.Context(), &v1.VerifyRequest{Token: s.tokens[0]}); err != nil {
			t.Error(err)
		}
		bearer.Close()
	}
	operator := s.c.ClientOf([]string{s.c.Nodes[0].Addr()}, onlyCA, client.WithAPIToken(s.c.Operator))
	defer operator.Close()
	if _, err := operator.RevokeToken(t.Context(), &v1.RevokeTokenRequest{Id: made.GetId()}); err != nil {
		t.Error(err)
	}
}

// expiry has a key be rotated because what it signed has expired.
func (s *story) expiry(t *testing.T, api *client.Client) {
	t.Helper()
	res, err := api.Issue(t.Context(), &v1.IssueRequest{Subject: "brief", Ttl: durationpb.New(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	s.tokens = append(s.tokens, res.GetToken())
	first := s.activeKey(t, api, "brief")
	e2e.Await(t, "a key to be rotated at an expiry", func() bool { return s.activeKey(t, api, "brief") != first })
}

func (s *story) activeKey(t *testing.T, api *client.Client, subject string) string {
	t.Helper()
	var id string
	e2e.Await(t, "the keys of "+subject, func() bool { // the node that is asked may be a little behind
		res, err := api.Get(t.Context(), &v1.GetRequest{Subject: subject})
		if err == nil && len(res.GetKeys()) > 0 {
			id = res.GetKeys()[0].GetKeyId()
		}
		return err == nil
	})
	return id
}

// behind has a node miss so much that it is sent a snapshot.
func (s *story) behind(t *testing.T, api *client.Client) {
	t.Helper()
	leader, behind := s.c.Nodes[1], s.c.Nodes[2]
	e2e.Await(t, leader.Name+" to lead", func() bool {
		_, _ = api.TransferLeadership(t.Context(), &v1.TransferLeadershipRequest{Node: leader.Name})
		return s.c.Leader() == leader
	})
	behind.Kill()
	s.keep(t, behind)
	before, had := newestSnapshot(t, leader), newestSnapshot(t, behind)
	missed := 0
	e2e.Await(t, "the log to be compacted", func() bool {
		s.issue(t, api, fmt.Sprint("missed-", missed))
		missed++
		return missed > 45 && newestSnapshot(t, leader) > before
	})
	behind.Start()
	behind.AwaitReady()
	e2e.Await(t, behind.Name+" to be sent a snapshot", func() bool { return newestSnapshot(t, behind) > had })
	if !strings.Contains(behind.Log(), "nstalled remote snapshot") {
		t.Errorf("%s was not sent a snapshot", behind.Name)
	}
}

// rotateMaster has all keys sealed anew, and the old master key retired.
func (s *story) rotateMaster(t *testing.T, api *client.Client) {
	t.Helper()
	before, err := api.KeyringStatus(t.Context())
	if err != nil || len(before.GetMasterKeys()) != 1 {
		t.Fatalf("the keyring is %v, %v", before, err)
	}
	old := before.GetMasterKeys()[0].GetId()
	s.cli(t, "keyring", "rotate", s.c.Keyring())
	e2e.Await(t, "all keys to be sealed anew", func() bool {
		status, err := api.KeyringStatus(t.Context())
		if err != nil || status.GetKeysToRewrap() > 0 || len(status.GetMasterKeys()) != 2 {
			return false
		}
		return !slices.ContainsFunc(status.GetMasterKeys(), func(k *v1.MasterKey) bool { return k.GetId() == old && k.GetKeys() > 0 }) &&
			slices.ContainsFunc(status.GetMasterKeys(), func(k *v1.MasterKey) bool { return k.GetId() != old && k.GetKeys() > 0 })
	})
	if _, err := api.RetireMasterKey(t.Context(), &v1.RetireMasterKeyRequest{MasterKey: old}); err != nil {
		t.Error(err)
	}
}

// knows gathers all that is secret. The nodes have ended.
func (s *story) knows(t *testing.T) {
	t.Helper()
	for _, token := range s.tokens {
		s.secrets.text(t, "a user's token", token)
		s.secrets.text(t, "a user's token's signature", token[strings.LastIndex(token, ".")+1:])
	}
	for _, token := range s.api {
		encoded := token[len(token)-base64.RawURLEncoding.EncodedLen(32):]
		raw, err := base64.RawURLEncoding.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		s.secrets.text(t, "an API token", token)
		s.secrets.bytes(t, "an API token's secret", raw)
	}
	s.knowsKeyring(t)
	s.knowsTLSKeys(t)
	keys := s.userKeys(t)
	for _, key := range keys {
		s.secrets.bytes(t, "a user's key", key)
	}
	s.checkSigned(t, keys)
	t.Logf("searched for: %d tokens, %d API tokens, %d users' keys; in all %d texts", len(s.tokens), len(s.api), len(keys), len(s.secrets.what))
}

func (s *story) knowsKeyring(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(s.c.Keyring())
	var file struct {
		Keyset struct {
			Key []struct {
				KeyData struct{ Value []byte } `json:"keyData"`
			} `json:"key"`
		} `json:"keyset"`
		GossipKey []byte `json:"gossipKey"`
	}
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil || len(file.Keyset.Key) != 2 || len(file.GossipKey) != seal.GossipKeySize {
		t.Fatalf("the keyring has %d master keys and a gossip key of %d bytes: %v", len(file.Keyset.Key), len(file.GossipKey), err)
	}
	for _, k := range file.Keyset.Key {
		master := leaves(k.KeyData.Value, 32)
		if len(master) != 1 {
			t.Fatalf("a master key has %d parts of 32 bytes", len(master))
		}
		s.secrets.bytes(t, "a master key", master[0])
	}
	s.secrets.bytes(t, "the gossip key", file.GossipKey)
}

// leaves gives the fields of that length in a message of protobuf, and in those within it.
func leaves(b []byte, length int) [][]byte {
	var found [][]byte
	for len(b) > 0 {
		_, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(1, kind, b); n < 0 {
			return nil
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(b)
			if len(value) == length {
				found = append(found, value)
			} else {
				found = append(found, leaves(value, length)...)
			}
		}
		b = b[n:]
	}
	return found
}

func (s *story) knowsTLSKeys(t *testing.T) {
	t.Helper()
	files := []string{filepath.Join(filepath.Dir(s.c.CA().File), pki.CAKeyFile), s.c.Env()["KEYQUORUM_TLS_KEY"]}
	for _, n := range s.c.Nodes {
		files = append(files, n.Certificate().Key)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := parsed.(*ecdsa.PrivateKey).Bytes()
		if err != nil {
			t.Fatal(err)
		}
		s.secrets.bytes(t, "a private key of TLS", raw)
		for _, line := range strings.Split(string(text), "\n")[1:3] { // the third has the public key alone
			s.secrets.text(t, "a private key of TLS, in PEM", line)
		}
	}
}

// userKeys gives all keys that users ever had, in the open: those of the whole log, and those of the snapshots.
func (s *story) userKeys(t *testing.T) [][]byte {
	t.Helper()
	keyring, err := seal.File(s.c.Keyring()).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]bool)
	open := func(subject string, random uint64, sealed []byte) {
		key, err := keyring.Open(subject, random, sealed)
		if err != nil {
			t.Fatal(err)
		}
		all[string(key.Bytes())] = true
	}
	logged := s.logged(t, open)
	for _, n := range s.c.Nodes[1:] {
		f, err := os.Open(newestSnapshot(t, n))
		if err != nil {
			t.Fatal(err)
		}
		view, err := fsm.ReadSnapshot(f)
		f.Close()
		if err != nil || view.UserCount() == 0 {
			t.Fatalf("the snapshot of %s: %v", n.Name, err)
		}
		for _, u := range view.Users("", view.UserCount()) {
			for _, k := range append(u.Retiring, u.Active) {
				open(u.Subject, k.ID.Random, k.Sealed)
			}
		}
	}
	if len(all) != logged {
		t.Errorf("the snapshots have %d keys that the log has not", len(all)-logged)
	}
	var keys [][]byte
	for key := range all {
		keys = append(keys, []byte(key))
	}
	return keys
}

// logged opens all keys in the log of the first node, which has forgotten nothing, and gives how many there are.
func (s *story) logged(t *testing.T, open func(subject string, random uint64, sealed []byte)) int {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(s.c.Nodes[0].Dir, "raft.db"))
	path := filepath.Join(t.TempDir(), "raft.db")
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	store, err := boltstore.Open(path, boltstore.Options{MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	first, err1 := store.FirstIndex()
	last, err2 := store.LastIndex()
	if err1 != nil || err2 != nil || first != 1 {
		t.Fatalf("the log is from %d to %d: %v, %v", first, last, err1, err2)
	}
	seen := make(map[uint64]bool)
	take := func(subject string, c *fsm.Candidate) {
		if c != nil {
			seen[c.Random] = true
			open(subject, c.Random, c.Sealed)
		}
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := store.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		if l.Type != raft.LogCommand {
			continue
		}
		entry, err := fsm.DecodeEntry(l.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range entry.Commands {
			switch op := command.Op.(type) {
			case fsm.Issue:
				take(op.Subject, op.Candidate)
			case fsm.Rotate:
				take(op.Subject, &op.Candidate)
			case fsm.Revoke:
				take(op.Subject, &op.Candidate)
			case fsm.Expire:
				for _, item := range op.Items {
					take(item.Subject, item.Candidate)
				}
			case fsm.Rewrap:
				for _, item := range op.Items {
					take(item.Subject, &fsm.Candidate{Random: item.Key.Random, Sealed: item.Sealed})
				}
			}
		}
	}
	return len(seen)
}

// checkSigned sees that what was opened is what tokens are signed with.
func (s *story) checkSigned(t *testing.T, keys [][]byte) {
	t.Helper()
	for _, token := range s.tokens {
		dot := strings.LastIndex(token, ".")
		signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
		if err != nil || !slices.ContainsFunc(keys, func(key []byte) bool {
			mac := hmac.New(sha256.New, key)
			mac.Write([]byte(token[:dot]))
			return hmac.Equal(mac.Sum(nil), signature)
		}) {
			t.Fatalf("none of %d keys has signed a token: %v", len(keys), err)
		}
	}
}

// checkPorts sees that the capture has all that the nodes' ports said and heard.
func checkPorts(t *testing.T, w *wire, c *e2e.Cluster) {
	t.Helper()
	for _, p := range []struct {
		kind    string
		udp     bool
		address func(*e2e.Node) string
	}{
		{"RPC", false, (*e2e.Node).Addr},
		{"Raft", false, (*e2e.Node).RaftAddr},
		{"gossip by TCP", false, (*e2e.Node).GossipAddr},
		{"gossip by UDP", true, (*e2e.Node).GossipAddr},
	} {
		var sum int64
		for _, n := range c.Nodes {
			port := netip.MustParseAddrPort(p.address(n)).Port()
			if w.ports[portKey{p.udp, port}] == 0 {
				t.Errorf("the capture has nothing of the port of %s for %s", n.Name, p.kind)
			}
			sum += w.ports[portKey{p.udp, port}]
		}
		t.Logf("%-14s %9d bytes", p.kind, sum)
	}
}

// finds plants each secret: on the network, cut in two, and in a file. The search has to find all of them.
func (s *story) finds(t *testing.T) {
	t.Helper()
	var texts []string
	for text := range s.secrets.what {
		texts = append(texts, text)
	}
	slices.Sort(texts)
	w := newWire(t)
	sendInHalves(t, texts)
	onWire := make(map[string]bool)
	for _, f := range w.stop(t) {
		for _, what := range s.secrets.in(f.data) {
			onWire[what] = true
		}
	}
	planted := []byte("....")
	kinds := make(map[string]bool)
	for _, text := range texts {
		kinds[s.secrets.what[text]] = true
		planted = append(append(planted, text...), '.')
		if n := len(s.secrets.in([]byte("." + text + "."))); n == 0 {
			t.Errorf("%s, planted, is not found", s.secrets.what[text])
		}
	}
	if len(onWire) != len(kinds) {
		t.Errorf("of %d kinds of planted secrets, %d are found in a capture", len(kinds), len(onWire))
	}
	if n := len(s.secrets.in(planted)); n < len(texts) {
		t.Errorf("of %d planted secrets, %d are found in a file", len(texts), n)
	}
}

// sendInHalves has each text go over a connection in two segments.
func sendInHalves(t *testing.T, texts []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan int64, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			got <- 0
			return
		}
		defer conn.Close()
		n, _ := new(bytes.Buffer).ReadFrom(conn)
		got <- n
	}()
	conn, err := net.Dial("tcp", l.Addr().String()) // without delay, unless it is told otherwise
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		half := len(text) / 2
		conn.Write([]byte(text[:half]))
		conn.Write([]byte(text[half:]))
	}
	conn.Close()
	if n := <-got; n == 0 {
		t.Fatal("nothing was received")
	}
}

// The same capture of nodes without TLS shows tokens: what the other test does not find would have been seen.
func TestACaptureOfInsecureNodesShowsTokens(t *testing.T) {
	needsCapture(t)
	w := newWire(t)
	c := e2e.NewInsecure(t, 3)
	c.Found()
	s := newSecrets()
	for i, n := range c.Nodes {
		token := issue(t, n.API(), fmt.Sprint("user-", i))
		s.text(t, "a user's token", token)
		s.text(t, fmt.Sprintf("the signature of what n%d issued", i+1), token[strings.LastIndex(token, ".")+1:])
		for _, n := range c.Nodes {
			n.API().Verify(t.Context(), &v1.VerifyRequest{Token: token})
		}
	}
	for _, n := range c.Nodes {
		n.Kill()
	}
	found := make(map[string]bool)
	for _, f := range w.stop(t) {
		for _, what := range s.in(f.data) {
			found[what] = true
		}
	}
	if len(found) != 1+len(c.Nodes) {
		t.Errorf("the capture shows %v", found)
	}
}

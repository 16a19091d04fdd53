package e2e_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/certs/certstest"
	"github.com/keyquorum/keyquorum/internal/member"
	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/internal/seal"
	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1/peerv1connect"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/e2e"
)

var abuse = flag.Duration("abuse", 2*time.Second, "how long each port is abused; `make abuse` takes a minute")

const (
	// memoryBound is how much more a node may have resident at any time of the abuse than it had before.
	memoryBound = 128 << 20
	// spareFiles is how many more files a node may have open afterwards: connections of the callers that it serves.
	spareFiles = 32
)

// Whoever reaches a port, and is nobody, gets nowhere, and is in nobody's way.
func TestAbusedPortsServeOn(t *testing.T) {
	c := e2e.Start(t, 3)
	api := c.Client()
	token := issue(t, api, "ada")
	load := e2e.StartLoad(t, 2, func(ctx context.Context, _, _ int) error {
		res, err := api.Verify(ctx, &v1.VerifyRequest{Token: token})
		if err == nil && !res.GetValid() {
			err = fmt.Errorf("it is not valid: %s", res.GetReason())
		}
		return err
	})
	load.Await(50)
	before := measureNodes(t, c)
	members := memberList(c)
	a := &attacker{c: c, strangers: strangers(t, c), label: gossipLabel(t, c)}
	for _, p := range []struct {
		name    string
		udp     bool
		address func(*e2e.Node) string
		knock   func(t *testing.T, leader *e2e.Node, as *tls.Config) error
		also    abuseOf
	}{
		{"RPC", false, (*e2e.Node).Addr, knockRPC, a.insideTLS},
		{"Raft", false, (*e2e.Node).RaftAddr, knockRaft, nil},
		{"gossip by TCP", false, (*e2e.Node).GossipAddr, knockGossip, a.announceMuch},
		{"gossip by UDP", true, (*e2e.Node).GossipAddr, nil, nil},
	} {
		load.Phase(p.name)
		leader := c.Leader()
		strangers := func() {
			if p.knock == nil {
				return
			}
			for name, as := range a.strangers {
				if err := p.knock(t, leader, as); err == nil {
					t.Errorf("%s: %s is not refused", p.name, name)
				}
			}
			plaintext(t, p.address(leader))
		}
		sent := a.attack(t, p.udp, p.address(leader), p.also, strangers)
		strangers() // and again, with nothing else in their way
		load.Await(10)
		for _, n := range c.Nodes {
			n.AwaitReady()
			e2e.Await(t, n.Name+" to have closed its files", func() bool { return openFiles(t, n) <= before[n].files+spareFiles })
		}
		a.join(t, leader)
		if after := memberList(c); !slices.Equal(members, after) {
			t.Errorf("%s: the members were %q, and are %q", p.name, members, after)
		}
		t.Logf("%-14s %s", p.name, sent)
		tell(t, c, before)
	}
	for _, n := range c.Nodes {
		if more := memory(t, n, "VmHWM") - before[n].resident; more > memoryBound {
			t.Errorf("%s had %d MiB more resident, want %d at most", n.Name, more>>20, memoryBound>>20)
		}
	}
	// That they are refused means something only if a member, and a caller with the role, are not.
	leader, member := c.Leader(), c.Followers()[0]
	if err := knockRaft(t, leader, tlsConfig(t, member.Certificate())); err != nil {
		t.Errorf("a member is refused at the Raft port: %v", err)
	}
	// A host says where a node is reached, so it counts for who is called: of who calls, the role does.
	if err := knockRaft(t, leader, tlsConfig(t, c.CA().Node(t, "n2", "elsewhere.example"))); err != nil {
		t.Errorf("a member with a certificate for another host is refused at the Raft port: %v", err)
	}
	verifier := tlsConfig(t, c.CA().Client(t, "a gateway", pki.Verifier))
	if err := knockRPC(t, leader, verifier); err != nil {
		t.Errorf("a verifier is refused at the RPC port: %v", err)
	}
	load.Stop()
}

// measured is what a node took before.
type measured struct {
	resident, log int64
	files         int
}

func measureNodes(t *testing.T, c *e2e.Cluster) map[*e2e.Node]measured {
	t.Helper()
	all := make(map[*e2e.Node]measured)
	for _, n := range c.Nodes {
		all[n] = measured{resident: memory(t, n, "VmRSS"), log: size(t, n.LogFile()), files: openFiles(t, n)}
	}
	return all
}

func tell(t *testing.T, c *e2e.Cluster, before map[*e2e.Node]measured) {
	t.Helper()
	for _, n := range c.Nodes {
		b := before[n]
		t.Logf("  %s: resident %d MiB, at the most %d, before %d; files %d, before %d; log %d KiB more", n.Name,
			memory(t, n, "VmRSS")>>20, memory(t, n, "VmHWM")>>20, b.resident>>20, openFiles(t, n), b.files, (size(t, n.LogFile())-b.log)>>10)
	}
}

func openFiles(t *testing.T, n *e2e.Node) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.PID()))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// memberList is who is in the cluster, as what, and where.
func memberList(c *e2e.Cluster) []string {
	var list []string
	for _, m := range c.Members() {
		list = append(list, strings.Join([]string{m.GetNodeId(), m.GetName(), m.GetRole().String(), m.GetRpcAddress(), m.GetRaftAddress()}, " "))
	}
	slices.Sort(list)
	return list
}

// attacker abuses ports, with what no member has.
type attacker struct {
	c         *e2e.Cluster
	strangers map[string]*tls.Config
	label     string // what the cluster's gossip begins with, in the clear
}

// gossipLabel is what anybody can overhear.
func gossipLabel(t *testing.T, c *e2e.Cluster) string {
	t.Helper()
	keyring, err := seal.File(c.Keyring()).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	label := member.GossipLabel(keyring.GossipKey())
	return string(append([]byte{0xf4, byte(len(label))}, label...))
}

// strangers are those whom neither port may do anything for.
func strangers(t *testing.T, c *e2e.Cluster) map[string]*tls.Config {
	t.Helper()
	at := func(off time.Duration) *certstest.CA {
		ca, err := pki.OpenCA(filepath.Dir(c.CA().File), func() time.Time { return time.Now().Add(off) })
		if err != nil {
			t.Fatal(err)
		}
		return &certstest.CA{CA: ca, File: c.CA().File}
	}
	node := func(ca *certstest.CA, validFor time.Duration) certs.Files {
		leaf, err := ca.IssueNode(pki.NodeRequest{Name: "n2", Hosts: []string{"127.0.0.1"}, ValidFor: validFor})
		dir := t.TempDir()
		files := certs.Files{Certificate: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "key"), CA: c.CA().File}
		if err == nil {
			err = leaf.Write(files.Certificate, files.Key)
		}
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	older := tlsConfig(t, c.Nodes[1].Certificate())
	older.MinVersion, older.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	nobody := tlsConfig(t, c.Nodes[1].Certificate())
	nobody.Certificates = nil
	return map[string]*tls.Config{
		"a node whose certificate has expired":        tlsConfig(t, node(at(-4*time.Minute), time.Minute)),
		"a node whose certificate is not valid yet":   tlsConfig(t, node(at(time.Hour), time.Hour)),
		"a node of another CA":                        tlsConfig(t, node(certstest.New(t), 0)),
		"a caller with the role operator and no more": tlsConfig(t, c.CA().Client(t, "ada", pki.Operator)),
		"a node that speaks TLS 1.2":                  older,
		"nobody":                                      nobody,
	}
}

// tlsConfig shows a certificate whatever is wrong with it.
func tlsConfig(t *testing.T, files certs.Files) *tls.Config {
	t.Helper()
	own, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(files.CA)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("%s has no certificates: %v", files.CA, err)
	}
	return &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13}
}

const knockTime = 10 * time.Second

// secured dials and shakes hands.
func secured(t *testing.T, address string, as *tls.Config) (*tls.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), knockTime)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	raw.SetDeadline(time.Now().Add(knockTime))
	conn := tls.Client(raw, as)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// knockRaft greets the Raft port as a member does, and asks for a vote with a term of 0, which is answered by a refusal.
func knockRaft(t *testing.T, n *e2e.Node, as *tls.Config) error {
	t.Helper()
	id := n.AwaitReady().GetNode().GetNodeId()
	conn, err := secured(t, n.RaftAddr(), as)
	if err != nil {
		return err
	}
	defer conn.Close()
	const requestVote, noFields = 1, 0x80
	if _, err := conn.Write(append(append([]byte{byte(len(id))}, id...), requestVote, noFields)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// knockRPC asks for a verdict.
func knockRPC(t *testing.T, n *e2e.Node, as *tls.Config) error {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: as}
	defer transport.CloseIdleConnections()
	caller := &http.Client{Transport: transport, Timeout: knockTime}
	res, err := caller.Post("https://"+n.Addr()+"/keyquorum.v1.TokenService/Verify", "application/json", strings.NewReader(`{"token":"x"}`))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP status %d", res.StatusCode)
	}
	return nil
}

// knockGossip shakes hands, which nobody does there.
func knockGossip(t *testing.T, n *e2e.Node, as *tls.Config) error {
	t.Helper()
	conn, err := secured(t, n.GossipAddr(), as)
	if err == nil {
		conn.Close()
	}
	return err
}

// plaintext asks by HTTP without TLS. It may be told that this is wrong, and nothing else.
func plaintext(t *testing.T, address string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: n\r\n\r\n")
	line, _ := bufio.NewReader(conn).ReadString('\n')
	if strings.HasPrefix(line, "HTTP/") && !strings.Contains(line, " 400 ") {
		t.Errorf("%s answers %q in plaintext", address, line)
	}
}

// join has a node of the right CA ask to be taken in under a member's name, and under its own without the keyring.
func (a *attacker) join(t *testing.T, leader *e2e.Node) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: tlsConfig(t, a.c.CA().Node(t, "stranger", "127.0.0.1")), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	peers := peerv1connect.NewPeerServiceClient(&http.Client{Transport: transport, Timeout: knockTime}, "https://"+leader.Addr())
	status := leader.AwaitReady()
	for _, name := range []string{"n2", "stranger"} {
		member := &v1.Member{
			NodeId: "00000000000000000000000001", Name: name, RpcAddress: "127.0.0.1:1", RaftAddress: "127.0.0.1:2", Version: "x", Format: 1,
		}
		_, err := peers.Join(t.Context(), connect.NewRequest(&peerv1.JoinRequest{ClusterId: status.GetClusterId(), Member: member}))
		if err == nil {
			t.Errorf("a node called stranger has joined as %s", name)
		}
		if code := connect.CodeOf(err); name == "n2" && code != connect.CodePermissionDenied {
			t.Errorf("a node called stranger that says that it is n2 gets %v", err)
		}
	}
}

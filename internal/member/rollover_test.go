package member_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/certs/certstest"
	"github.com/keyquorum/keyquorum/internal/pki"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1/keyquorumv1connect"
)

// holder is somebody's certificate files in a folder of their own, with the source that reads them.
type holder struct {
	t      *testing.T
	files  certs.Files
	source *certs.Source
}

func hold(t *testing.T, made certs.Files) *holder {
	t.Helper()
	dir := t.TempDir()
	h := &holder{t: t, files: certs.Files{
		Certificate: filepath.Join(dir, "own.crt"), Key: filepath.Join(dir, "own.key"), CA: filepath.Join(dir, "ca.crt"),
	}}
	h.put(made)
	h.trust(made.CA)
	h.source = certstest.Open(t, h.files)
	return h
}

func (h *holder) copy(from, to string) {
	h.t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// put changes the certificate and its key.
func (h *holder) put(made certs.Files) {
	h.t.Helper()
	h.copy(made.Certificate, h.files.Certificate)
	h.copy(made.Key, h.files.Key)
}

// trust changes the CAs.
func (h *holder) trust(cas ...string) {
	h.t.Helper()
	var bundle []byte
	for _, path := range cas {
		text, err := os.ReadFile(path)
		if err != nil {
			h.t.Fatal(err)
		}
		bundle = append(bundle, text...)
	}
	if err := os.WriteFile(h.files.CA, bundle, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *holder) reload() {
	h.t.Helper()
	if err := h.source.Reload(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// http gives a client whose connections are made with what counts at the time.
func (h *holder) http() *http.Client {
	transport := &http.Transport{
		DialTLSContext: h.source.Dialer(new(net.Dialer).DialContext, "h2"), Protocols: new(http.Protocols),
	}
	transport.Protocols.SetHTTP2(true)
	h.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// connections are those that members have opened.
type connections struct {
	mu   sync.Mutex
	open []net.Conn
}

func (c *connections) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.open = append(c.open, conn)
	}
	return conn, err
}

func (c *connections) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		_ = conn.Close()
	}
	c.open = nil
}

// A cluster goes over to another CA, node by node, while callers ask all of it, and none of them notices.
func TestMembersGoOverToANewCAUnderLoad(t *testing.T) {
	older, newer := certstest.New(t), certstest.New(t)
	var dialled connections
	var holders []*holder
	c := startSecureWith(t, older, dialled.dial, func(name string) certs.Files {
		h := hold(t, older.Node(t, name, loopback))
		holders = append(holders, h)
		return h.files
	})
	for i := range holders {
		holders[i].source = c.sources[i]
	}
	ada := hold(t, older.Client(t, "ada", pki.Issuer, pki.Verifier))
	everybody := append(slices.Clone(holders), ada)

	var asked atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var load errgroup.Group
	for i := range 6 {
		load.Go(func() error {
			err := c.ask(ctx, ada, i%3, &asked)
			if err != nil {
				t.Errorf("at n%d, after %d requests: %v", i%3+1, asked.Load(), err)
			}
			return nil
		})
	}
	settle := func() {
		t.Helper()
		from := asked.Load()
		await(t, "requests in between", func() bool { return asked.Load() > from+20 })
	}
	settle()
	for _, h := range everybody {
		h.trust(older.File, newer.File)
		h.reload()
		settle()
	}
	for i, h := range holders {
		h.put(newer.Node(t, c.members[i].Name(), loopback))
		h.reload()
		settle()
	}
	ada.put(newer.Client(t, "ada", pki.Issuer, pki.Verifier))
	ada.reload()
	settle()
	for _, h := range everybody {
		h.trust(newer.File)
		h.reload()
		settle()
	}
	stop()
	_ = load.Wait()
	// And with connections that were all made since.
	dialled.cut()
	await(t, "members that reach each other anew", func() bool {
		tokens := keyquorumv1connect.NewTokenServiceClient(ada.http(), c.url(1))
		_, err := tokens.Issue(t.Context(), connect.NewRequest(&v1.IssueRequest{Subject: "bob"}))
		return err == nil
	})
	gone := httpAs(t, withCA(older.Client(t, "eve", pki.Operator), newer.File))
	cluster := keyquorumv1connect.NewClusterServiceClient(gone, c.url(0))
	if _, err := cluster.Status(t.Context(), connect.NewRequest(&v1.StatusRequest{})); err == nil {
		t.Error("a certificate of the old CA still opens the door")
	}
}

func withCA(files certs.Files, ca string) certs.Files {
	files.CA = ca
	return files
}

// ask issues and verifies at a member, over a connection of its own each time, until ctx ends.
func (c *secureCluster) ask(ctx context.Context, as *holder, at int, asked *atomic.Int64) error {
	for ctx.Err() == nil {
		h := as.http()
		tokens := keyquorumv1connect.NewTokenServiceClient(h, c.url(at))
		issued, err := tokens.Issue(c.t.Context(), connect.NewRequest(&v1.IssueRequest{Subject: "ada"}))
		if err != nil {
			return err
		}
		res, err := tokens.Verify(c.t.Context(), connect.NewRequest(&v1.VerifyRequest{Token: issued.Msg.GetToken()}))
		if err != nil {
			return err
		}
		if !res.Msg.GetValid() {
			c.t.Errorf("at %s: %v", c.members[at].Name(), res.Msg.GetReason())
		}
		h.CloseIdleConnections()
		asked.Add(1)
	}
	return nil
}

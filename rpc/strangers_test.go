package rpc_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/internal/certs"
	"github.com/keyquorum/keyquorum/internal/certs/certstest"
	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/rpc"
)

// secureInBubble is secureServer on pipes.
func secureInBubble(t *testing.T, ca *certstest.CA, change func(*rpc.Config)) (*server, *pipes) {
	t.Helper()
	s := &server{node: &fakeNode{local: &fakeNode{}}, logs: new(lockedBuffer)}
	cfg := rpc.Config{Node: s.node, Logger: s.log(), Secure: true}
	if change != nil {
		change(&cfg)
	}
	p := &pipes{dialled: make(chan net.Conn), closed: make(chan struct{})}
	srv := rpc.NewServer(rpc.NewHandler(cfg), rpc.ServerConfig{Logger: s.log()})
	srv.TLSConfig = certstest.Open(t, ca.Node(t, "n1", "node")).Server(certs.Anyone)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(p, "", "") }()
	s.url = "https://node:7400"
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return s, p
}

// overTLS is a client with HTTP/1.1 that shows what the files hold, and a count of its connections.
func overTLS(t *testing.T, p *pipes, host string, files certs.Files) (h *http.Client, dials *int) {
	t.Helper()
	config, dials := certstest.Open(t, files).Client("node"), new(int)
	transport := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
		*dials++
		return tls.Client(p.dial(host), config), nil
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}, dials
}

// ask asks for the node's status, and tells what the answer was, and whether its connection ends with it.
func (s *server) ask(t *testing.T, h *http.Client) (code int, closing bool, body string) {
	t.Helper()
	res, err := h.Post(s.url+status, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Close, string(text)
}

// A stranger is told so before its body has come, and where callers have taken all places.
func TestAStrangerIsRefusedUnreadAndTakesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := certstest.New(t)
		s, p := secureInBubble(t, ca, func(cfg *rpc.Config) { cfg.Limits = rpc.Limits{Reads: 1} })
		nobody := certstest.Open(t, certs.Files{CA: ca.File})
		slow := nobody.Client("node")
		slow.NextProtos = []string{"h2"}
		stranger := speakFrames(t, tls.Client(p.dial("stranger"), slow))
		for range 3 {
			stranger.begin(t, status)
			stranger.stream += 2
		}
		synctest.Wait()
		if ok, refused, _ := stranger.counts(); ok != 0 || refused != 3 {
			t.Errorf("of 3 requests of a stranger whose bodies are on their way, %d are refused and %d answered", refused, ok)
		}
		known, _ := overTLS(t, p, "gateway", ca.Client(t, "ada", pki.Operator))
		if code, _, body := s.ask(t, known); code != http.StatusOK {
			t.Errorf("while strangers wait, a caller gets %d, %s", code, body)
		}
		free := make(chan struct{})
		s.node.do = func(context.Context) { <-free }
		done := make(chan struct{})
		go func() { defer close(done); s.ask(t, known) }()
		synctest.Wait()
		unknown, _ := overTLS(t, p, "stranger", certs.Files{CA: ca.File})
		if code, _, body := s.ask(t, unknown); code != http.StatusUnauthorized {
			t.Errorf("while a caller has the only place, a stranger gets %d, %s", code, body)
		}
		close(free)
		<-done
	})
}

// A certificate that runs out ends its connection with the next answer, and past a minute of grace it is none.
func TestACertificateThatRunsOutEndsItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := certstest.New(t)
		s, p := secureInBubble(t, ca, nil)
		dir := t.TempDir()
		files := certs.Files{Certificate: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "key"), CA: ca.File}
		leaf, err := ca.IssueClient(pki.ClientRequest{Name: "ada", Roles: []pki.Role{pki.Operator}, ValidFor: time.Minute})
		if err == nil {
			err = leaf.Write(files.Certificate, files.Key)
		}
		if err != nil {
			t.Fatal(err)
		}
		prompt, dialsOfPrompt := overTLS(t, p, "prompt", files)
		late, dialsOfLate := overTLS(t, p, "late", files)
		for _, h := range []*http.Client{prompt, late} {
			time.Sleep(15 * time.Second)
			if code, closing, body := s.ask(t, h); code != http.StatusOK || closing {
				t.Fatalf("while it is valid: %d, closing %v, %s", code, closing, body)
			}
		}
		time.Sleep(time.Until(leaf.Certificate().NotAfter) + 10*time.Second)
		if code, closing, body := s.ask(t, prompt); code != http.StatusOK || !closing || *dialsOfPrompt != 1 {
			t.Errorf("within the grace: %d over connection %d, closing %v, %s", code, *dialsOfPrompt, closing, body)
		}
		time.Sleep(time.Minute)
		if code, _, body := s.ask(t, late); code != http.StatusUnauthorized || !strings.Contains(body, "connect anew") || *dialsOfLate != 1 {
			t.Errorf("past the grace: %d over connection %d, %s", code, *dialsOfLate, body)
		}
	})
}

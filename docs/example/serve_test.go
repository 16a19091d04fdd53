package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/internal/certs/certstest"
	"github.com/keyquorum/keyquorum/internal/member"
	"github.com/keyquorum/keyquorum/internal/pki"
	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/rpc"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/memnet"
)

func TestARequestThatNeverEndsIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := memnet.New()
		listener, err := network.Listen("app:80")
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- serve(ctx, listener, http.NotFoundHandler(), slog.New(slog.DiscardHandler)) }()
		for what, text := range map[string]string{
			"nothing": "", "half a header": "GET / HTTP/1.1\r\nHost: a", "half a body": "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 9\r\n\r\nx",
		} {
			c, err := network.Dialer("slow")(t.Context(), "tcp", "app:80")
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_, _ = io.WriteString(c, text)
			if _, err := io.Copy(io.Discard, c); err != nil || time.Since(began) > 11*time.Second {
				t.Errorf("%s: %v after %v", what, err, time.Since(began))
			}
			_ = c.Close()
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestTheServiceEndsWhenItsRequestsAreAnswered(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	entered, answered := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-answered
			_, _ = io.WriteString(w, "done")
		}), slog.New(slog.DiscardHandler))
	}()
	got := make(chan string, 1)
	go func() { got <- bodyAt("http://" + listener.Addr().String()) }()
	<-entered
	stop()
	for err == nil { // until nobody new is let in
		var c net.Conn
		if c, err = net.Dial("tcp", listener.Addr().String()); err == nil {
			c.Close()
		}
	}
	close(answered)
	if body := <-got; body != "done" {
		t.Errorf("the request in flight got %q", body)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// bodyAt gives what is at a URL, or what is in the way.
func bodyAt(address string) string {
	res, err := http.Get(address)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return string(body)
}

// adasToken has the form of one, and her device as its subject.
var adasToken = "h." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"ada/own"}`)) + ".s"

// standIn is a cluster for which every token is ada's, who has so many other devices, and whose revocations take so long.
func standIn(t *testing.T, devices int, revocation time.Duration) *client.Client {
	t.Helper()
	answer := func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		switch req.Any().(type) {
		case *v1.VerifyRequest:
			return connect.NewResponse(&v1.VerifyResponse{Valid: true, Subject: "ada/own"}), nil
		case *v1.ListRequest:
			res := &v1.ListResponse{Subjects: []*v1.SubjectKeys{{Subject: "ada/own"}}}
			for i := range devices {
				res.Subjects = append(res.Subjects, &v1.SubjectKeys{Subject: fmt.Sprint("ada/", i)})
			}
			return connect.NewResponse(res), nil
		case *v1.RevokeRequest:
			select {
			case <-time.After(revocation):
				return connect.NewResponse(&v1.RevokeResponse{KeyId: "new"}), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return nil, connect.NewError(connect.CodeUnimplemented, nil)
	}
	instead := connect.UnaryInterceptorFunc(func(connect.UnaryFunc) connect.UnaryFunc { return answer })
	cluster, err := client.New([]string{"n1:7400"}, client.WithInterceptors(instead))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

// Where a node of the cluster does not answer, a revocation takes some seconds. What takes longer than the service may take for
// an answer is told, and never ends in a connection that breaks off.
func TestALogOutThatTakesLongIsAnswered(t *testing.T) {
	users := demoUsers()
	for name, c := range map[string]struct {
		devices    int
		revocation time.Duration
		status     int
		text       string
	}{
		"a node is away":                {12, 6250 * time.Millisecond, http.StatusSeeOther, ""},
		"one that is waited for longer": {12, 25 * time.Second, http.StatusSeeOther, ""},
		"too many devices":              {100, 25 * time.Second, http.StatusServiceUnavailable, "could not make sure that you are logged out everywhere: please try again"},
		"the cluster does not answer":   {0, time.Hour, http.StatusServiceUnavailable, "could not make sure that you are logged out: please try again"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := slog.New(slog.DiscardHandler)
				network := memnet.New()
				listener, err := network.Listen("app:80")
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- serve(ctx, listener, newApp(standIn(t, c.devices, c.revocation), users, log), log) }()
				b := newBrowser(t)
				transport := &http.Transport{DialContext: network.Dialer("browser")}
				b.http.Transport = transport
				b.http.Jar.SetCookies(mustParse(t, "http://app:80"), []*http.Cookie{{Name: sessionCookie, Value: adasToken}})
				began := time.Now()
				got := b.logOut("http://app:80", everywhere)
				if got.status != c.status || !strings.Contains(got.body, c.text) || time.Since(began) > answerWithin+time.Second {
					t.Errorf("after %v: %d\n%s", time.Since(began), got.status, got.body)
				}
				if ended := got.cookie(sessionCookie).MaxAge < 0; ended != (c.status == http.StatusSeeOther) {
					t.Errorf("the session has ended: %v", ended)
				}
				transport.CloseIdleConnections()
				stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// secureNode is a cluster of one node that speaks TLS, and has an address of its own.
func secureNode(t *testing.T, ca *certstest.CA) (address string) {
	t.Helper()
	keyring, err := seal.NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	m, err := member.Open(member.Config{
		Name: "n1", DataDir: t.TempDir(), Keyring: keyring, Certs: certstest.Open(t, ca.Node(t, "n1", "127.0.0.1")),
		RPCListen: "127.0.0.1:0", RaftListen: "127.0.0.1:0", GossipListen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	runUntilTheEnd(t, m.Run)
	if _, err := m.Init(t.Context(), rpc.Caller{Actor: "test"}, &v1.InitRequest{}); err != nil {
		t.Fatal(err)
	}
	return m.RPCAddress
}

// runUntilTheEnd of the test, when it must succeed.
func runUntilTheEnd(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// The service as README.md starts it, before a cluster that speaks TLS: by a certificate with the three roles that it needs.
func TestTheServiceWorksOverTLS(t *testing.T) {
	ca := certstest.New(t)
	own := ca.Client(t, "shop", pki.Issuer, pki.Verifier, pki.Operator)
	files := client.TLSFiles{CA: own.CA, Certificate: own.Certificate, Key: own.Key}
	node := secureNode(t, ca)
	out, shown := io.Pipe()
	runUntilTheEnd(t, func(ctx context.Context) error {
		return run(ctx, "127.0.0.1:0", node, files, shown, io.Discard)
	})
	var app, password string
	if _, err := fmt.Fscanf(bufio.NewReader(out), "%s\nLog in as ada with the password %12s", &app, &password); err != nil {
		t.Fatal(err)
	}
	b, thief := newBrowser(t), newBrowser(t)
	b.mustSee(app, "")
	b.mustLogIn(app, "ada", password)
	b.mustSee(app, "ada")
	if page := b.get(app).body; !strings.Contains(page, "ACTIVE") {
		t.Errorf("the page has no list of keys\n%s", page)
	}
	thief.http.Jar.SetCookies(mustParse(t, app), []*http.Cookie{{Name: sessionCookie, Value: b.token(app)}})
	thief.mustSee(app, "ada")
	if got := b.logOut(app, everywhere); got.to != "/login" {
		t.Errorf("log out: %d to %q\n%s", got.status, got.to, got.body)
	}
	b.mustSee(app, "")
	thief.mustSee(app, "")
}

func TestWhatIsWrongWithTheFlagsIsNamed(t *testing.T) {
	for flag, args := range map[string][2]string{
		"--nodes":  {"127.0.0.1:0", "127.0.0.1:7400,ftp://x"},
		"--listen": {"nowhere", "127.0.0.1:7400"},
	} {
		if err := run(t.Context(), args[0], args[1], client.TLSFiles{}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

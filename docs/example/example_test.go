package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/client/clienttest"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

const (
	adasPassword = "correct horse"
	bobsPassword = "battery staple"
)

// demoUsers are hashed once for all tests: that is slow on purpose.
var demoUsers = sync.OnceValue(func() *users {
	return newUsers(map[string]string{"ada": adasPassword, "bob": bobsPassword})
})

// start serves an instance of the example, and gives its URL.
func start(t *testing.T, cluster *client.Client, log io.Writer) string {
	t.Helper()
	server := httptest.NewServer(newApp(cluster, demoUsers(), slog.New(slog.NewTextHandler(log, nil))))
	t.Cleanup(server.Close)
	return server.URL
}

// browser keeps cookies, which it sends to all ports of a host, as browsers do.
type browser struct {
	t    *testing.T
	http *http.Client
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &browser{t, &http.Client{Jar: jar, CheckRedirect: stay}}
}

// answer is what came back. to is where a redirect leads.
type answer struct {
	status  int
	to      string
	header  http.Header
	cookies []*http.Cookie
	body    string
}

// cookie gives the cookie of that name that was set; without one, one that nothing is right about.
func (a answer) cookie(name string) *http.Cookie {
	for _, c := range a.cookies {
		if c.Name == name {
			return c
		}
	}
	return &http.Cookie{}
}

func (b *browser) do(method, address string, form url.Values, headers ...string) answer {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header.Get("Location"), res.Header, res.Cookies(), string(body)}
}

func (b *browser) get(address string) answer {
	b.t.Helper()
	return b.do(http.MethodGet, address, nil)
}

func (b *browser) logIn(app, name, password string, headers ...string) answer {
	b.t.Helper()
	return b.do(http.MethodPost, app+"/login", url.Values{"name": {name}, "password": {password}}, headers...)
}

func (b *browser) mustLogIn(app, name, password string) answer {
	b.t.Helper()
	got := b.logIn(app, name, password)
	if got.status != http.StatusSeeOther || got.to != "/" {
		b.t.Fatalf("log in as %s: %d to %q\n%s", name, got.status, got.to, got.body)
	}
	return got
}

func (b *browser) logOut(app string, form url.Values, headers ...string) answer {
	b.t.Helper()
	return b.do(http.MethodPost, app+"/logout", form, headers...)
}

var everywhere = url.Values{"everywhere": {"yes"}}

// mustSee checks who the browser is logged in as; nobody if name is empty.
func (b *browser) mustSee(app, name string) {
	b.t.Helper()
	got := b.get(app)
	switch {
	case name == "" && (got.status != http.StatusSeeOther || got.to != "/login"):
		b.t.Errorf("%d to %q, want the log-in page\n%s", got.status, got.to, got.body)
	case name != "" && (got.status != http.StatusOK || !strings.Contains(got.body, "Hello, "+name)):
		b.t.Errorf("%d, want the page of %s\n%s", got.status, name, got.body)
	}
}

func TestThePageIsForThoseWhoAreLoggedIn(t *testing.T) {
	cluster := clienttest.New(t)
	app := start(t, cluster.Client(), io.Discard)
	b := newBrowser(t)
	b.mustSee(app, "")
	if got := b.logIn(app, "ada", bobsPassword); got.status != http.StatusForbidden || len(got.cookies) != 0 {
		t.Errorf("with a wrong password: %d and %d cookies", got.status, len(got.cookies))
	}
	b.mustSee(app, "")
	b.mustLogIn(app, "ada", adasPassword)
	b.mustSee(app, "ada")

	page := b.get(app).body
	device := regexp.MustCompile(`device <code>([A-Z2-7]{26})</code>`).FindStringSubmatch(page)
	if len(device) != 2 {
		t.Fatalf("no device on the page\n%s", page)
	}
	v, err := cluster.Client().VerifyToken(t.Context(), b.token(app), "example")
	if err != nil {
		t.Fatal(err)
	}
	if v.Subject() != "ada/"+device[1] {
		t.Errorf("the token is of %s, and the page says %s", v.Subject(), device[1])
	}
	for _, part := range []string{v.KeyID(), "ACTIVE", v.ExpiresAt().Format(time.DateTime)} {
		if !strings.Contains(page, part) {
			t.Errorf("the page does not show %s\n%s", part, page)
		}
	}
}

// token is that of the session that the browser has with an instance.
func (b *browser) token(app string) string {
	b.t.Helper()
	at, err := url.Parse(app)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range b.http.Jar.Cookies(at) {
		if c.Name == sessionCookie {
			return c.Value
		}
	}
	b.t.Fatal("the browser has no session")
	return ""
}

func TestLoggingOutAtOneInstanceEndsTheSessionAtTheOther(t *testing.T) {
	cluster := clienttest.New(t)
	one, other := start(t, cluster.NewClient(), io.Discard), start(t, cluster.NewClient(), io.Discard)
	phone, thief, laptop := newBrowser(t), newBrowser(t), newBrowser(t)
	phone.mustLogIn(one, "ada", adasPassword)
	phone.mustSee(other, "ada")
	laptop.mustLogIn(other, "ada", adasPassword)
	thief.http.Jar.SetCookies(mustParse(t, one), []*http.Cookie{{Name: sessionCookie, Value: phone.token(one)}})
	thief.mustSee(other, "ada")

	if got := phone.logOut(one, nil); got.status != http.StatusSeeOther || got.to != "/login" || got.cookie(sessionCookie).MaxAge >= 0 {
		t.Errorf("log out: %d to %q, %v", got.status, got.to, got.cookies)
	}
	for _, app := range []string{one, other} {
		phone.mustSee(app, "")
		thief.mustSee(app, "")
		laptop.mustSee(app, "ada")
	}
}

func mustParse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestLoggingOutEverywhereEndsTheUsersSessionsAndNoOthers(t *testing.T) {
	cluster := clienttest.New(t)
	one, other := start(t, cluster.NewClient(), io.Discard), start(t, cluster.NewClient(), io.Discard)
	phone, laptop, bobs := newBrowser(t), newBrowser(t), newBrowser(t)
	phone.mustLogIn(one, "ada", adasPassword)
	laptop.mustLogIn(other, "ada", adasPassword)
	bobs.mustLogIn(one, "bob", bobsPassword)
	if got := phone.logOut(one, everywhere); got.to != "/login" {
		t.Errorf("log out everywhere: %d to %q\n%s", got.status, got.to, got.body)
	}
	for _, app := range []string{one, other} {
		phone.mustSee(app, "")
		laptop.mustSee(app, "")
		bobs.mustSee(app, "bob")
	}
}

// Whom somebody deletes meanwhile, as an operator may, is as good as logged out.
func TestLoggingOutWhoIsNotThereAnyMoreSucceeds(t *testing.T) {
	cluster := clienttest.New(t)
	operator := cluster.NewClient()
	meanwhile := func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if revoke, ok := req.Any().(*v1.RevokeRequest); ok {
				if _, err := operator.Delete(ctx, &v1.DeleteRequest{Subject: revoke.GetSubject()}); err != nil {
					t.Error(err)
				}
			}
			return next(ctx, req)
		}
	}
	app := start(t, cluster.NewClient(client.WithInterceptors(connect.UnaryInterceptorFunc(meanwhile))), io.Discard)
	b := newBrowser(t)
	b.mustLogIn(app, "ada", adasPassword)
	if got := b.logOut(app, nil); got.to != "/login" {
		t.Errorf("log out: %d to %q\n%s", got.status, got.to, got.body)
	}
	b.mustSee(app, "")
}

// The device's cookie is the browser's word, so it names a device of whoever logs in, and nothing else.
func TestABrowserIsOneDeviceHoweverOftenItLogsIn(t *testing.T) {
	cluster := clienttest.New(t)
	app := start(t, cluster.Client(), io.Discard)
	b := newBrowser(t)
	b.mustLogIn(app, "ada", adasPassword)
	first := b.token(app)
	b.mustLogIn(app, "ada", adasPassword)
	if got := b.logOut(app, nil); got.to != "/login" {
		t.Fatalf("log out: %d to %q", got.status, got.to)
	}
	if _, err := cluster.Client().VerifyToken(t.Context(), first, "example"); !errors.Is(err, client.ErrInvalidToken) {
		t.Errorf("the first session of the browser goes on: %v", err)
	}
	for _, odd := range []string{"", "x", "bob/" + strings.Repeat("A", 22), strings.Repeat("A", 3000)} {
		b.http.Jar.SetCookies(mustParse(t, app), []*http.Cookie{{Name: deviceCookie, Value: odd, Path: "/"}})
		if got := b.mustLogIn(app, "ada", adasPassword).cookie(deviceCookie); !deviceForm.MatchString(got.Value) {
			t.Errorf("the device is %q after %.30q", got.Value, odd)
		}
	}
}

func TestATokenForAnotherServiceIsNoSession(t *testing.T) {
	cluster := clienttest.New(t)
	app := start(t, cluster.Client(), io.Discard)
	b := newBrowser(t)
	b.http.Jar.SetCookies(mustParse(t, app), []*http.Cookie{{Name: sessionCookie, Value: cluster.Issue("ada/phone", nil)}})
	b.mustSee(app, "")
}

// safeBuffer is a log that several write to.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestWithoutAClusterNobodyIsLetIn(t *testing.T) {
	cluster := clienttest.New(t)
	app := start(t, cluster.NewClient(client.WithTimeout(time.Second)), io.Discard)
	b := newBrowser(t)
	b.mustLogIn(app, "ada", adasPassword)
	cluster.Stop(0)
	mustFail(t, map[string]answer{"the page": b.get(app), "log in": b.logIn(app, "ada", adasPassword), "log out": b.logOut(app, nil)})
	cluster.Start(0)
	b.mustSee(app, "ada")
}

// A node by itself tells who is logged in, and can change nothing: a log-out that did not happen must not look like one.
func TestALogOutThatFailsKeepsTheSession(t *testing.T) {
	cluster := clienttest.NewCluster(t, 3)
	app := start(t, cluster.NewClient(client.WithTimeout(2*time.Second)), io.Discard)
	b := newBrowser(t)
	b.mustLogIn(app, "ada", adasPassword)
	cluster.Stop(1)
	cluster.Stop(2)
	mustFail(t, map[string]answer{"log out": b.logOut(app, nil), "log out everywhere": b.logOut(app, everywhere)})
	b.mustSee(app, "ada")
}

// mustFail checks that the answers say no more than to try again, and leave the browser as it is.
func mustFail(t *testing.T, answers map[string]answer) {
	t.Helper()
	for what, got := range answers {
		if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || len(got.cookies) != 0 {
			t.Errorf("%s: %d, %v\n%s", what, got.status, got.cookies, got.body)
		}
		if strings.Contains(got.body, "127.0.0.1") {
			t.Errorf("%s: the page names a node\n%s", what, got.body)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/client/clienttest"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
	"github.com/keyquorum/keyquorum/test/memnet"
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

func TestWhatAnotherSiteSendsIsRefused(t *testing.T) {
	app := start(t, clienttest.New(t).Client(), io.Discard)
	b := newBrowser(t)
	b.mustLogIn(app, "ada", adasPassword)
	for name, headers := range map[string][]string{
		"another site":      {"Sec-Fetch-Site", "cross-site"},
		"another port":      {"Sec-Fetch-Site", "same-site"},
		"an older browser":  {"Origin", "http://shop.example"},
		"a frame's sandbox": {"Origin", "null"},
	} {
		for _, form := range []url.Values{nil, everywhere} {
			if got := b.logOut(app, form, headers...); got.status != http.StatusForbidden {
				t.Errorf("log out from %s: %d", name, got.status)
			}
		}
		if got := b.logIn(app, "bob", bobsPassword, headers...); got.status != http.StatusForbidden {
			t.Errorf("log in from %s: %d", name, got.status)
		}
	}
	if got := b.get(app + "/logout"); got.status != http.StatusMethodNotAllowed {
		t.Errorf("log out by a link: %d", got.status)
	}
	b.mustSee(app, "ada")
	if got := b.logOut(app, nil, "Sec-Fetch-Site", "same-origin", "Origin", app); got.to != "/login" {
		t.Errorf("log out by the page's own form: %d", got.status)
	}
}

func TestCookiesAreOutOfReach(t *testing.T) {
	app := start(t, clienttest.New(t).Client(), io.Discard)
	for _, over := range []string{"http", "https"} {
		got := newBrowser(t).logIn(app, "ada", adasPassword, "X-Forwarded-Proto", over)
		for _, name := range []string{sessionCookie, deviceCookie} {
			c := got.cookie(name)
			if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.Secure != (over == "https") {
				t.Errorf("over %s: %v", over, c)
			}
		}
		if age := time.Duration(got.cookie(sessionCookie).MaxAge) * time.Second; age < 15*time.Minute || age > 15*time.Minute+time.Second {
			t.Errorf("the cookie lives for %v, and the token for 15 minutes", age)
		}
	}
}

func TestAnUnknownUserGetsTheAnswerOfAWrongPassword(t *testing.T) {
	app := start(t, clienttest.New(t).Client(), io.Discard)
	b := newBrowser(t)
	unknown, wrong := b.logIn(app, "eve", "x"), b.logIn(app, "ada", "x")
	if unknown.status != wrong.status || strings.ReplaceAll(unknown.body, "eve", "ada") != wrong.body {
		t.Errorf("%d\n%s\nand\n%d\n%s", unknown.status, unknown.body, wrong.status, wrong.body)
	}
	if !strings.Contains(wrong.body, "The name or the password is wrong") {
		t.Errorf("it does not say so:\n%s", wrong.body)
	}
}

// The hash takes its 19 MiB, and so its time, for whoever it is.
func TestAnUnknownUserCostsTheSameWork(t *testing.T) {
	u := demoUsers()
	for _, name := range []string{"ada", "eve"} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if ok, err := u.check(t.Context(), name, "x"); ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took < 19<<20 {
			t.Errorf("%s: the check took %d bytes, which is no hash", name, took)
		}
	}
}

// As many passwords as come at once are not all checked at once.
func TestPasswordsWaitForTheirTurnWhoeverTheUserIs(t *testing.T) {
	u := demoUsers()
	synctest.Test(t, func(t *testing.T) {
		u := &users{u.hashes, u.nobody, make(chan struct{}, atATime)}
		for range atATime {
			u.turns <- struct{}{}
		}
		for _, name := range []string{"ada", "eve"} {
			began := time.Now()
			if ok, err := u.check(t.Context(), name, adasPassword); ok || err == nil || time.Since(began) != patience {
				t.Errorf("%s: %v, %v after %v", name, ok, err, time.Since(began))
			}
		}
		time.AfterFunc(patience/2, func() { <-u.turns })
		if ok, err := u.check(t.Context(), "ada", adasPassword); !ok || err != nil {
			t.Errorf("after a wait: %v, %v", ok, err)
		}
		if len(u.turns) != atATime-1 {
			t.Error("a check that is done keeps its turn")
		}
	})
}

func TestPagesLetTheBrowserDoNoMoreThanTheyNeed(t *testing.T) {
	app := start(t, clienttest.New(t).Client(), io.Discard)
	b := newBrowser(t)
	got := b.logIn(app, `"><script>alert(1)</script>`, "x")
	if strings.Contains(got.body, "<script") || !strings.Contains(got.body, "&lt;script") {
		t.Errorf("a name is not escaped\n%s", got.body)
	}
	_, rest, _ := strings.Cut(got.body, "<style>")
	inline, _, _ := strings.Cut(rest, "</style>")
	hash := sha256.Sum256([]byte(inline))
	policy := got.header.Get("Content-Security-Policy")
	for _, part := range []string{
		"default-src 'none'", "style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'",
		"form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
	} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy %q lacks %s", policy, part)
		}
	}
	b.mustLogIn(app, "ada", adasPassword)
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "same-origin",
		"Cross-Origin-Opener-Policy": "same-origin",
	} {
		if got := b.get(app).header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
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

func TestNothingSecretIsLoggedOrInAURL(t *testing.T) {
	var log safeBuffer
	app := start(t, clienttest.New(t).Client(), &log)
	b := newBrowser(t)
	var seen []string
	seen = append(seen, b.logIn(app, "ada", bobsPassword).to, b.mustLogIn(app, "ada", adasPassword).to, b.get(app).to)
	token := b.token(app)
	seen = append(seen, b.logOut(app, nil).to, b.get(app).to, log.String())
	if !strings.Contains(log.String(), "logged in") || !strings.Contains(log.String(), "logged out") {
		t.Errorf("the log tells too little:\n%s", log.String())
	}
	for _, secret := range []string{token, adasPassword, bobsPassword} {
		if strings.Contains(strings.Join(seen, "\n"), secret) {
			t.Errorf("%.12s is in the log, or in a URL:\n%s", secret, strings.Join(seen, "\n"))
		}
	}
}

func TestTheURLHasNoSayInLoggingIn(t *testing.T) {
	app := start(t, clienttest.New(t).Client(), io.Discard)
	b := newBrowser(t)
	query := "?password=" + url.QueryEscape(adasPassword) + "&next=//shop.example"
	if got := b.do(http.MethodPost, app+"/login"+query, url.Values{"name": {"ada"}}); got.status != http.StatusForbidden {
		t.Errorf("a password in the URL: %d to %q", got.status, got.to)
	}
	both := url.Values{"name": {"ada"}, "password": {adasPassword}, "next": {"//shop.example"}}
	if got := b.do(http.MethodPost, app+"/login"+query, both); got.to != "/" {
		t.Errorf("it leads to %q", got.to)
	}
}

func TestAFormHasABound(t *testing.T) {
	app := start(t, clienttest.New(t).Client(), io.Discard)
	if got := newBrowser(t).logIn(app, "ada", strings.Repeat("x", maxForm)); got.status != http.StatusBadRequest {
		t.Errorf("%d\n%s", got.status, got.body)
	}
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

package main

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyquorum/keyquorum/client/clienttest"
)

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

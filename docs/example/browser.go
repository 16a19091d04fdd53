package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"regexp"
	"time"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

const (
	sessionCookie = "session"
	// deviceCookie names the browser. It proves nothing: it is there so that who logs in again is no new device.
	deviceCookie = "device"
	deviceLife   = 365 * 24 * 60 * 60 // seconds
)

var deviceForm = regexp.MustCompile(`^[A-Z2-7]{26}$`) // what rand.Text gives

func deviceOf(r *http.Request) string {
	if c, err := r.Cookie(deviceCookie); err == nil && deviceForm.MatchString(c.Value) {
		return c.Value
	}
	return rand.Text()
}

// setCookie sets a cookie that no script and no other site's form gets at, for so many seconds; -1 deletes it.
func setCookie(w http.ResponseWriter, r *http.Request, name, value string, seconds int) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // G124: plain HTTP, on loopback, has no secure cookies
		Name: name, Value: value, Path: "/", MaxAge: seconds,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: overTLS(r),
	})
}

// overTLS tells whether the browser speaks TLS, if only to a proxy. Who makes that up harms no one else.
func overTLS(r *http.Request) bool {
	return r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https"
}

var (
	//go:embed pages.html
	pagesText string
	//go:embed style.css
	style string

	pages = template.Must(template.New("pages").Funcs(template.FuncMap{
		"style": func() template.CSS { return template.CSS(style) }, //nolint:gosec // G203: it is the file above
	}).Parse(pagesText))

	styleHash = sha256.Sum256([]byte(style))
	// policy lets a page have its own style and send its own forms, and nothing else: no script, no frame, no other site.
	policy = "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(styleHash[:]) +
		"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

func withHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Referrer-Policy", "same-origin") // with no-referrer, forms would come from Origin: null
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

type loginPage struct {
	Name  string
	Wrong bool
}

type homePage struct {
	Name, Device, KeyID string
	Expires             time.Time
	Keys                []*v1.Key
}

// show writes a page, whole or not at all.
func (a *app) show(w http.ResponseWriter, r *http.Request, status int, page string, data any) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, page, data); err != nil {
		a.log.ErrorContext(r.Context(), "cannot show a page", "page", page, "err", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a browser that is gone cannot be told so
}

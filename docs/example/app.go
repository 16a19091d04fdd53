package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// audience is whom the tokens are for. Those that the cluster issues for other services are no good here.
const audience = "example"

// maxForm bounds the body of a request, and so the length of a password.
const maxForm = 4 << 10

// revocations is how many are asked for at a time.
const revocations = 16

// app is the service. What it knows of a session is in the browser's token and in the cluster, so that each instance
// has it.
type app struct {
	cluster *client.Client
	users   *users
	log     *slog.Logger
}

func newApp(cluster *client.Client, users *users, log *slog.Logger) http.Handler {
	a := &app{cluster, users, log}
	session := cluster.Middleware(
		client.WithCookie(sessionCookie), client.WithAudience(audience), client.WithRefusal(a.refuse))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		a.show(w, r, http.StatusOK, "login", loginPage{})
	})
	mux.HandleFunc("POST /login", a.logIn)
	mux.Handle("GET /{$}", session(http.HandlerFunc(a.home)))
	mux.Handle("POST /logout", session(http.HandlerFunc(a.logOut)))
	// A browser sends its cookie with a form of another site's as well: such a form changes nothing here, log in included.
	var sameOrigin http.CrossOriginProtection
	return withHeaders(sameOrigin.Handler(http.MaxBytesHandler(mux, maxForm)))
}

// refuse answers who has no valid token. It always leads to the same page: a way back in the URL would be one to anywhere.
func (a *app) refuse(w http.ResponseWriter, r *http.Request, why *client.Refusal) {
	if why.Status == http.StatusUnauthorized {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	a.log.WarnContext(r.Context(), "cannot tell who it is", "err", why.Err)
	a.show(w, r, why.Status, "problem", why.Error())
}

// logIn gives the browser a token, where name and password are right. It says nothing of which of them was wrong.
func (a *app) logIn(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		a.show(w, r, http.StatusBadRequest, "problem", "the form cannot be read, or is too long")
		return
	}
	name := r.PostForm.Get("name") // of the body alone: a URL is for everybody's logs
	switch right, err := a.users.check(r.Context(), name, r.PostForm.Get("password")); {
	case err != nil:
		a.fail(w, r, "log in", err)
		return
	case !right:
		a.show(w, r, http.StatusForbidden, "login", loginPage{Name: name, Wrong: true})
		return
	}
	device := deviceOf(r)
	subject := name + "/" + device
	issued, err := a.cluster.Issue(r.Context(), &v1.IssueRequest{Subject: subject, Audience: []string{audience}})
	if err != nil {
		a.fail(w, r, "log in", err)
		return
	}
	setCookie(w, r, deviceCookie, device, deviceLife)
	life := issued.GetExpiresAt().AsTime().Sub(issued.GetIssuedAt().AsTime())
	setCookie(w, r, sessionCookie, issued.GetToken(), int(life.Seconds()))
	a.log.InfoContext(r.Context(), "logged in", "subject", subject)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// home shows who is logged in and with which keys: what Get tells, which is never a key itself.
func (a *app) home(w http.ResponseWriter, r *http.Request) {
	v, _ := client.FromContext(r.Context())
	res, err := a.cluster.Get(r.Context(), &v1.GetRequest{Subject: v.Subject()})
	if err != nil && !errors.Is(err, client.ErrNotFound) { // a node may be behind the one that verified the token
		a.fail(w, r, "look up your keys", err)
		return
	}
	name, device, _ := strings.Cut(v.Subject(), "/")
	a.show(w, r, http.StatusOK, "home", homePage{
		Name: name, Device: device, KeyID: v.KeyID(), Expires: v.ExpiresAt(), Keys: res.GetKeys(),
	})
}

// logOut revokes the keys of this device, and before them, where that is asked, those of the user's others: as long as
// something fails, or was not settled in the time that an answer has, the token is good for another try.
func (a *app) logOut(w http.ResponseWriter, r *http.Request) {
	v, _ := client.FromContext(r.Context())
	if r.PostFormValue("everywhere") != "" {
		others, err := a.otherDevices(r.Context(), v.Subject())
		if err == nil {
			err = a.revoke(r.Context(), others...)
		}
		if err != nil {
			a.fail(w, r, "make sure that you are logged out everywhere", err)
			return
		}
	}
	if err := a.revoke(r.Context(), v.Subject()); err != nil {
		a.fail(w, r, "make sure that you are logged out", err)
		return
	}
	setCookie(w, r, sessionCookie, "", -1)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// revoke ends the sessions of all the subjects, or says why it cannot tell of some of them. It revokes several at a time:
// each takes seconds where a node of the cluster does not answer.
func (a *app) revoke(ctx context.Context, subjects ...string) error {
	var all errgroup.Group
	all.SetLimit(revocations)
	for _, subject := range subjects {
		all.Go(func() error {
			_, err := a.cluster.Revoke(ctx, &v1.RevokeRequest{Subject: subject})
			if err != nil && !errors.Is(err, client.ErrNotFound) { // who is not there any more is logged out
				return err
			}
			a.log.InfoContext(ctx, "logged out", "subject", subject)
			return nil
		})
	}
	return all.Wait()
}

// otherDevices gives the subjects of a user but their own. It reads all users' subjects, which is well for a few: a real
// application has each user's devices in its user store.
func (a *app) otherDevices(ctx context.Context, own string) ([]string, error) {
	name, _, _ := strings.Cut(own, "/")
	var found []string
	for page := ""; ; {
		res, err := a.cluster.List(ctx, &v1.ListRequest{PageToken: page})
		if err != nil {
			return nil, err
		}
		for _, s := range res.GetSubjects() {
			if strings.HasPrefix(s.GetSubject(), name+"/") && s.GetSubject() != own {
				found = append(found, s.GetSubject())
			}
		}
		if page = res.GetNextPageToken(); page == "" {
			return found, nil
		}
	}
}

// fail answers what could not be done now. The reason, which names nodes, is for the log.
func (a *app) fail(w http.ResponseWriter, r *http.Request, what string, err error) {
	a.log.WarnContext(r.Context(), "cannot do it", "what", what, "err", err)
	w.Header().Set("Retry-After", "1")
	a.show(w, r, http.StatusServiceUnavailable, "problem", "could not "+what+": please try again")
}

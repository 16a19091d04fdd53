//go:build unix

package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keyquorum/keyquorum/client"
	"github.com/keyquorum/keyquorum/internal/certs"
)

const (
	tokenOne = "kq_1_c2VjcmV0LW9uZQ"
	tokenTwo = "kq_2_c2VjcmV0LXR3bw"
)

func tokenFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api-token")
	must(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// doorman lets in who has one of the tokens, and refuses everybody else as a node does.
type doorman struct {
	mu    sync.Mutex
	lets  string
	heard []string
}

func (d *doorman) letOnly(token string) { d.mu.Lock(); defer d.mu.Unlock(); d.lets = token }

func (d *doorman) hears(w http.ResponseWriter, r *http.Request) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	header := r.Header.Get("Authorization")
	d.heard = append(d.heard, header)
	if header == "Bearer "+d.lets {
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write([]byte(`{"code":"unauthenticated","message":"who is calling?","details":[{"type":"keyquorum.v1.RequestInfo","value":"CgVyZXEtMQ"}]}`))
	return true
}

func TestAnAPITokenGoesWithEachRequest(t *testing.T) {
	path := tokenFile(t, "\n "+tokenOne+" \r\n")
	for _, option := range []client.Option{client.WithAPIToken(tokenOne), client.WithAPITokenFile(path)} {
		sail(t, 3, func(t *testing.T, f *fleet) {
			ca := newCA(t)
			f.secure(ca, certs.Anyone)
			door := &doorman{lets: tokenOne}
			f.hears = door.hears
			c := f.own(client.WithTLS(tlsFiles(papers(t, nil, ca))), option)
			for _, call := range methods {
				must(t, call(t.Context(), c, ""))
			}
			rest(10 * time.Second) // members are asked for as well
			door.mu.Lock()
			defer door.mu.Unlock()
			for _, header := range door.heard {
				if header != "Bearer "+tokenOne {
					t.Errorf("a request had %q", header)
				}
			}
		})
	}
}

func TestAnAPITokensFileIsReadAnew(t *testing.T) {
	path := tokenFile(t, tokenOne)
	sail(t, 3, func(t *testing.T, f *fleet) {
		ca := newCA(t)
		f.secure(ca, certs.Anyone)
		door := &doorman{lets: tokenOne}
		f.hears = door.hears
		c := f.own(client.WithTLS(tlsFiles(papers(t, nil, ca))), client.WithAPITokenFile(path))
		verify(t, c)

		must(t, os.WriteFile(path, []byte(tokenTwo), 0o600))
		rest(time.Second)
		door.letOnly(tokenTwo)
		verify(t, c) // it took the new one in time

		must(t, os.WriteFile(path, []byte(tokenOne), 0o600))
		door.letOnly(tokenOne)
		if err := methods["Verify"](t.Context(), c, ""); !errors.Is(err, client.ErrUnauthenticated) {
			t.Error(err)
		}
		verify(t, c) // a refusal has it look at once

		must(t, os.WriteFile(path, []byte("rubbish rubbish"), 0o600))
		rest(time.Second)
		verify(t, c) // which changes nothing
		door.letOnly(tokenTwo)
		for range 2 {
			err := methods["Verify"](t.Context(), c, "")
			if !errors.Is(err, client.ErrUnauthenticated) || !strings.Contains(err.Error(), path+" does not hold an API token") || strings.Contains(err.Error(), "rubbish") {
				t.Error(err)
			}
		}
	})
}

func TestAnAPITokenThatIsNotAcceptableIsNamed(t *testing.T) {
	open := tokenFile(t, tokenOne)
	must(t, os.Chmod(open, 0o644))
	for _, c := range []struct {
		opts []client.Option
		told []string
	}{
		{[]client.Option{client.WithAPIToken("")}, []string{"API token: it is not of the form"}},
		{[]client.Option{client.WithAPIToken("hush hush")}, []string{"API token: it is not of the form"}},
		{[]client.Option{client.WithAPIToken(strings.Repeat("hush", 1025))}, []string{"API token: it is not of the form"}},
		{[]client.Option{client.WithAPIToken(tokenOne), client.WithAPITokenFile(open)}, []string{"API token: there are several"}},
		{[]client.Option{client.WithAPITokenFile(open)}, []string{"API token: ", "has mode 0644 and is open to others"}},
		{[]client.Option{client.WithAPITokenFile("/no/such/file")}, []string{"API token: open /no/such/file: no such file"}},
		{[]client.Option{client.WithAPITokenFile(tokenFile(t, "hush\nhush"))}, []string{"does not hold an API token alone"}},
		{[]client.Option{client.WithAPITokenFile(tokenFile(t, "")), client.WithHedging(-1)}, []string{"does not hold an API token alone", "WithHedging"}},
	} {
		_, err := client.New([]string{"127.0.0.1:7400"}, c.opts...)
		for _, told := range c.told {
			if err == nil || !strings.Contains(err.Error(), told) {
				t.Errorf("%v, want %q", err, told)
			}
		}
		if err != nil && (strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), tokenOne)) {
			t.Errorf("the token is in the error: %v", err)
		}
	}
}

func TestAnAPITokenDoesNotGoWhereItCanBeRead(t *testing.T) {
	token := client.WithAPIToken(tokenOne)
	for _, address := range []string{"n1:7400", "http://10.0.0.1:7400", "http://localhost.example.com", "http://[2001:db8::1]:7400", "http://0.0.0.0:7400"} {
		_, err := client.New([]string{address, "127.0.0.1"}, token)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("address %q is plain HTTP on another machine", address)) {
			t.Errorf("%s: %v", address, err)
		}
		c, err := client.New([]string{address}, token, client.WithReadableAPIToken())
		must(t, err)
		c.Close()
	}
	for _, address := range []string{"localhost:7400", "127.0.0.1", "http://127.8.8.8:7400", "[::1]:7400", "https://n1"} {
		c, err := client.New([]string{address}, token)
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		c.Close()
	}
}

// Members that are elsewhere are not asked, if that is in plain HTTP.
func TestAnAPITokenDoesNotGoToMembersInPlainHTTP(t *testing.T) {
	for _, readable := range []bool{false, true} {
		sail(t, 1, func(t *testing.T, f *fleet) {
			here, away := f.launch("127.0.0.1"), f.nodes[0]
			f.enlist(here, away)
			f.nodes = f.nodes[1:]
			opts := []client.Option{client.WithAPIToken(tokenOne)}
			if readable {
				opts = append(opts, client.WithReadableAPIToken())
			}
			c := f.own(opts...)
			verify(t, c)
			rest(time.Second)
			for range 50 {
				verify(t, c)
			}
			if n := away.took(); (n > 0) != readable {
				t.Errorf("readable: %v; the node elsewhere was asked %d times", readable, n)
			}
			if got := c.Addresses(); slices.Contains(got, "http://n1:7400") != readable {
				t.Errorf("readable: %v; it knows %v", readable, got)
			}
		})
	}
}

// Not even where the caller's own HTTP client follows redirects.
func TestAnAPITokenIsNotSentOnToARedirect(t *testing.T) {
	heard := false
	to := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { heard = true }))
	t.Cleanup(to.Close)
	from := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, to.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(from.Close)
	theirs := &http.Client{}
	for _, opts := range [][]client.Option{{}, {client.WithHTTPClient(theirs)}} {
		c, err := client.New([]string{from.URL}, append(opts, client.InOrder(), client.WithAPIToken(tokenOne))...)
		must(t, err)
		t.Cleanup(c.Close)
		if err := methods["Verify"](t.Context(), c, ""); err == nil || heard {
			t.Errorf("%v; heard elsewhere: %v", err, heard)
		}
	}
	if theirs.CheckRedirect != nil || theirs.Transport != nil {
		t.Error("the caller's HTTP client was changed")
	}
}

// The token is in what goes over the network and nowhere else: not in what interceptors see, in errors, or in what is
// printed of a client.
func TestAnAPITokenDoesNotShow(t *testing.T) {
	sail(t, 1, func(t *testing.T, f *fleet) {
		ca := newCA(t)
		f.secure(ca, certs.Anyone)
		door := &doorman{lets: tokenOne}
		f.hears = door.hears
		var shown bytes.Buffer
		spy := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
				res, err := next(ctx, r)
				fmt.Fprintf(&shown, "%v %+v %+v\n", r.Header(), r, err)
				return res, err
			}
		})
		option := client.WithAPIToken(tokenOne)
		c := f.own(client.WithTLS(tlsFiles(papers(t, nil, ca))), option, client.WithInterceptors(spy), client.InOrder())
		verify(t, c)
		door.letOnly(tokenTwo)
		err := methods["Verify"](t.Context(), c, "")
		if !errors.Is(err, client.ErrUnauthenticated) {
			t.Error(err)
		}
		f.nodes[0].kill()
		down := methods["Verify"](t.Context(), c, "")
		log := slog.New(slog.NewTextHandler(&shown, nil))
		for _, v := range []any{c, option, err, down, errors.Unwrap(down)} {
			fmt.Fprintf(&shown, "%v %+v %#v %s\n", v, v, v, v)
			log.Info("message", "value", v)
		}
		for _, trace := range []string{tokenOne, fmt.Sprintf("%x", tokenOne), fmt.Sprint([]byte(tokenOne))} {
			if strings.Contains(shown.String(), trace) {
				t.Errorf("the token shows in %.2000s", shown.String())
			}
		}
	})
}

// Who calls is the same to all nodes, so a second one is not asked.
func TestACallerWhoIsNotKnownIsNotTakenElsewhere(t *testing.T) {
	for code, want := range map[connect.Code]error{connect.CodeUnauthenticated: client.ErrUnauthenticated, connect.CodePermissionDenied: client.ErrPermissionDenied} {
		for name, call := range methods {
			no, other := &fake{err: refusal(t, code, "no")}, &fake{}
			if err := call(t.Context(), newClient(t, no.serve(t), other.serve(t)), "key-1"); !errors.Is(err, want) || other.calls.Load() != 0 {
				t.Errorf("%s: %v; asked again %d times", name, err, other.calls.Load())
			}
		}
	}
}

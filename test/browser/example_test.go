// Package browser looks at the example application as its users do: with a real browser, a real node and two instances,
// each a process of its own.
package browser

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// browserVariable names the browser. Without it there is no test: one that opens a browser is to be asked for.
const browserVariable = "KEYQUORUM_BROWSER"

func TestLoggingInAndOutWithABrowser(t *testing.T) {
	program := os.Getenv(browserVariable)
	if program == "" {
		t.Skipf("%s names no browser: `make browser-test` runs this with Chromium", browserVariable)
	}
	node, _ := run(t, build(t, "./cmd/keyquorum"), "dev", "--listen", "127.0.0.1:0")
	example := build(t, "./docs/example")
	one, passwords := run(t, example, "--nodes", node, "--listen", "127.0.0.1:0")
	two, _ := run(t, example, "--nodes", node, "--listen", "127.0.0.1:0")
	ada := regexp.MustCompile(`as ada with the password (\S+),`).FindStringSubmatch(passwords)
	if len(ada) != 2 {
		t.Fatal("the example does not tell ada's password")
	}
	s := &story{chromium: launch(t, program), one: one, two: two, password: ada[1]}
	s.owner = s.profile()
	s.first = s.open(s.owner)
	for _, chapter := range []struct {
		name string
		tell func(*story)
	}{
		{"nobody is logged in, and a wrong password changes nothing", (*story).wrongPassword},
		{"who logs in sees the page, at both instances", (*story).logIn},
		{"another site's form is refused", (*story).anotherSite},
		{"who logs out at one instance is refused at both", (*story).logOut},
		{"who logs out everywhere is logged out in another browser", (*story).logOutEverywhere},
	} {
		if !t.Run(chapter.name, func(t *testing.T) { chapter.tell(s.at(t)) }) {
			return
		}
	}
	s.mustBeContent(t)
}

// story is what the chapters have in common.
type story struct {
	*chromium
	one, two string // the URLs of the instances
	password string
	owner    string // the profile of the first tab
	first    *tab
}

// at has a chapter's failures be its own.
func (s *story) at(t *testing.T) *story {
	s.t = t
	return s
}

// submit fills in the log-in form.
func (s *story) submit(b *tab, password string) {
	s.t.Helper()
	b.await("an empty form", "document.querySelector('[name=password]').value === ''")
	must(s.t, b.eval("document.querySelector('[name=name]').value = ''", new(string)))
	b.write("[name=name]", "ada")
	b.write("[name=password]", password)
	b.click("button")
}

func (s *story) wrongPassword() {
	s.first.visit(s.one)
	s.first.isAt(s.one, "/login")
	s.submit(s.first, "not it")
	s.first.sees("The name or the password is wrong.")
	s.first.picture("wrong")
	s.first.visit(s.one)
	s.first.isAt(s.one, "/login")
	s.first.picture("login")
}

func (s *story) logIn() {
	s.submit(s.first, s.password)
	s.first.sees("Hello, ada")
	s.first.sees("ACTIVE")
	s.first.isAt(s.one, "/")
	s.first.await("the page's style", "getComputedStyle(document.querySelector('table')).borderCollapse === 'collapse'")
	s.first.await("cookies that no script gets at", "document.cookie === ''")
	s.first.picture("home")
	s.first.visit(s.two)
	s.first.sees("Hello, ada")
}

func (s *story) anotherSite() {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<form method="post" action="%s/logout"><button>Win a prize</button></form>`, s.one)
	}))
	defer other.Close()
	s.first.visit(strings.Replace(other.URL, "127.0.0.1", "localhost", 1))
	s.first.click("button")
	s.first.sees("cross-origin request")
	s.first.visit(s.one)
	s.first.sees("Hello, ada")
}

// logOut puts the cookies back afterwards, as somebody would who has stolen them.
func (s *story) logOut() {
	stolen := s.cookies()
	s.first.click("button:not([name])")
	s.first.isAt(s.one, "/login")
	s.putBack(stolen)
	for _, instance := range []string{s.one, s.two} {
		s.first.visit(instance)
		s.first.isAt(instance, "/login")
	}
}

func (s *story) cookies() []map[string]any {
	s.t.Helper()
	var got struct{ Cookies []map[string]any }
	s.must("", "Storage.getCookies", params{"browserContextId": s.owner}, &got)
	if len(got.Cookies) == 0 {
		s.t.Fatal("there is no cookie to steal")
	}
	return got.Cookies
}

func (s *story) putBack(cookies []map[string]any) {
	s.t.Helper()
	s.must("", "Storage.setCookies", params{"browserContextId": s.owner, "cookies": cookies}, nil)
	if got := s.cookies(); len(got) != len(cookies) {
		s.t.Fatalf("%d of %d cookies are back", len(got), len(cookies))
	}
}

func (s *story) logOutEverywhere() {
	s.first.visit(s.one)
	s.submit(s.first, s.password)
	s.first.sees("Hello, ada")
	second := s.open(s.profile())
	second.visit(s.one)
	s.submit(second, s.password)
	second.sees("Hello, ada")
	second.click("[name=everywhere]")
	second.isAt(s.one, "/login")
	s.first.visit(s.two)
	s.first.isAt(s.two, "/login")
}

// isAt waits until the tab shows a path of an instance.
func (b *tab) isAt(instance, path string) {
	b.t.Helper()
	b.await(path+" at "+instance, fmt.Sprintf("location.href === %q", instance+path))
}

// build makes a program of this module.
func build(t *testing.T, pkg string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, pkg)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return program
}

// run starts a program, which has to end in good order at the end of the test. It gives its first line, which is its
// URL, and its second.
func run(t *testing.T, program string, args ...string) (url, second string) {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = patience
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = t.Output()
	must(t, cmd.Start())
	lines := bufio.NewReader(out)
	rest := make(chan struct{})
	t.Cleanup(func() {
		end()
		<-rest
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%s ended with exit %d", strings.Join(cmd.Args, " "), code)
		}
	})
	url, _ = lines.ReadString('\n')
	second, _ = lines.ReadString('\n')
	go func() {
		defer close(rest)
		_, _ = io.Copy(io.Discard, lines)
	}()
	return strings.TrimSpace(url), second
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"connectrpc.com/connect"
	"github.com/alecthomas/kong"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyquorum/keyquorum/client"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

func TestExitCodesTellRefusalFromSilence(t *testing.T) {
	for _, c := range []struct {
		name string
		fail error
		code int
		told []string
	}{
		{"field", refusal(connect.CodeInvalidArgument, "ttl: at most 24h"), 1, []string{"invalid argument: ttl: at most 24h"}},
		{
			"limit", refusal(connect.CodeResourceExhausted, "64 retiring keys", &v1.RetryAt{Time: timestamppb.New(began)}), 1,
			[]string{"limit reached: 64 retiring keys", "retry at  2026-11-01T12:00:00Z"},
		},
		{"role", refusal(connect.CodePermissionDenied, "issuers only"), 1, []string{"permission denied"}},
		{"stranger", refusal(connect.CodeUnauthenticated, "who are you"), 1, []string{"unauthenticated"}},
		{"old node", refusal(connect.CodeUnimplemented, "unknown call"), 3, []string{"--addr names a Keyquorum node"}},
		{"no leader", refusal(connect.CodeUnavailable, "the cluster has no leader"), 3, []string{"unavailable: the cluster has no leader", "try again"}},
		{"open", refusal(connect.CodeUnknown, "leadership was lost", &v1.OutcomeUnknown{}), 3, []string{"outcome unknown", "keys get"}},
		{"panic", refusal(connect.CodeInternal, "an internal error"), 3, []string{"outcome unknown: an internal error"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &fakeNode{fail: c.fail}
			address := n.serve(t)
			r := at(t, address).must(c.code, "rotate", "alice")
			wants(t, r.errors, c.told...)
			wants(t, r.errors, "keyquorum rotate: ", "node", address, "request", "req-1")
			if r.out != "" {
				t.Errorf("%q on stdout", r.out)
			}
		})
	}
}

// What was changed is seen where it was to be changed.
func TestAnOpenOutcomeSaysWhereToLook(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(s.Close)
	for line, look := range map[string]string{
		"rotate alice":                          "keys get",
		"revoke alice":                          "keys get",
		"delete alice":                          "keys get",
		"api-token create --role verifier":      "api-token list",
		"api-token revoke 7":                    "api-token list",
		"cluster remove n1":                     "cluster status",
		"cluster transfer-leadership":           "cluster status",
		"cluster settings set --default-ttl 5m": "cluster settings get",
		"keyring retire --master-key 7":         "keyring status",
	} {
		r := at(t, s.URL).must(3, strings.Fields(line)...)
		wants(t, r.errors, "outcome unknown: ", `see what became of it with "keyquorum `+look+`", then decide`)
	}
}

func TestAnAddressThatIsNoNodeSettlesNothing(t *testing.T) {
	stranger := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(stranger.Close)
	wants(t, at(t, stranger.URL).must(3, "verify", "token").errors, "see that --addr names a Keyquorum node")
}

// A write whose answer is rubbish may have happened, and a verification has no verdict: neither is a no.
func TestAnAnswerThatCannotBeReadSettlesNothing(t *testing.T) {
	for name, body := range map[string]string{"rubbish": "\xff\x00rubbish", "nothing": ""} {
		stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/proto")
			_, _ = io.WriteString(w, body)
		}))
		t.Cleanup(stranger.Close)
		for line, word := range map[string]string{
			"verify token": "internal error", "issue alice": "internal error", "rotate alice": "outcome unknown", "revoke alice": "outcome unknown",
		} {
			r := at(t, stranger.URL).must(3, strings.Fields(line)...)
			wants(t, r.errors, word, "is there a Keyquorum node at this address?")
			if r.out != "" {
				t.Errorf("%s, %s: %q on stdout", name, line, r.out)
			}
		}
	}
}

// A time that is none cannot be told as JSON, whatever the node meant by it.
func TestAnAnswerThatMakesNoSenseSettlesNothing(t *testing.T) {
	n := &fakeNode{}
	sh := at(t, n.serve(t))
	n.tokens["odd"] = &v1.VerifyResponse{Valid: true, ExpiresAt: &timestamppb.Timestamp{Seconds: 1 << 60}}
	wants(t, sh.must(3, "verify", "odd", "--json").errors, "the answer makes no sense")
}

func TestUnreachableNodesAreAllNamed(t *testing.T) {
	one, two := nobody(t), nobody(t)
	r := at(t, one+","+two).must(3, "issue", "alice")
	wants(t, r.errors, "unavailable", "connection refused", one, two)
}

func TestTheNextAddressIsTried(t *testing.T) {
	sh := &shell{t: t}
	sh.must(0, "issue", "alice", "--addr", nobody(t), "--addr", (&fakeNode{}).serve(t))
}

func TestAnInterruptedCommandEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := at(t, (&fakeNode{}).serve(t)).runContext(ctx, "rotate", "alice")
	if r.code != 3 {
		t.Errorf("%+v", r)
	}
}

func TestATokenIsNotRepeatedInErrors(t *testing.T) {
	n := &fakeNode{fail: refusal(connect.CodeUnavailable, "this node is behind")}
	for _, address := range []string{n.serve(t), nobody(t)} {
		r := at(t, address).must(3, "verify", "secret-token")
		if strings.Contains(r.out+r.errors, "secret-token") {
			t.Error(r)
		}
	}
}

// brokenPipe is a stdout that nobody reads.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestAnAnswerThatCannotBeWrittenIsAFailure(t *testing.T) {
	address := (&fakeNode{}).serve(t)
	env := func(name string) (string, bool) { return address, name == "KEYQUORUM_ADDR" }
	for _, line := range []string{"issue alice", "issue alice --json", "keys list", "version", "version --json", "--help"} {
		var told strings.Builder
		if code := run(t.Context(), strings.Fields(line), strings.NewReader(""), brokenPipe{}, &told, env); code != 3 {
			t.Errorf("%s: exit %d", line, code)
		}
		wants(t, told.String(), "could not be written: broken pipe")
	}
}

func TestHelpGoesToStdoutAndItsAbsenceToStderr(t *testing.T) {
	sh := &shell{t: t}
	for _, line := range []string{"--help", "-h", "issue --help", "issue --bogus=1 -h", "keys -h", "keys list --help"} {
		r := sh.run(strings.Fields(line)...)
		if strings.Contains(line, "bogus") {
			continue // either is fine
		}
		if r.code != 0 || !strings.HasPrefix(r.out, "Usage: keyquorum") || r.errors != "" {
			t.Errorf("%s: %+v", line, r)
		}
	}
	r := sh.must(2)
	wants(t, r.errors, "Usage: keyquorum <command>", "issue", "keyring init", "which command?")
	if r.out != "" {
		t.Error(r.out)
	}
}

func TestHelpNamesTheVariables(t *testing.T) {
	out := (&shell{t: t}).must(0, "issue", "--help").out
	wants(t, out, "[KEYQUORUM_ADDR]", "[KEYQUORUM_TTL]")
	if strings.Contains(out, "KEYQUORUM_CLAIMS") {
		t.Error("claims are no setting")
	}
}

// A command that is added has help on everything, and runs.
func TestTheGrammarIsWhole(t *testing.T) {
	env := func(string) (string, bool) { return "", false }
	s := &session{out: newPrinter(io.Discard, env), err: newPrinter(io.Discard, env), env: env}
	app := newApp(&root{}, newSettings(env), s)
	err := kong.Visit(app.Model, func(n kong.Visitable, next kong.Next) error {
		switch n := n.(type) {
		case *kong.Node:
			if n.Help == "" {
				t.Errorf("%s has no help", n.FullPath())
			}
			if _, ok := reflect.TypeAssert[runner](n.Target.Addr()); n.Leaf() && !ok {
				t.Errorf("%s does not run", n.FullPath())
			}
		case *kong.Flag:
			if n.Help == "" {
				t.Errorf("--%s has no help", n.Name)
			}
		}
		return next(nil)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestKeyringInitWarnsAndNeverOverwrites(t *testing.T) {
	sh := &shell{t: t}
	file := filepath.Join(t.TempDir(), "keyring")
	r := sh.must(0, "keyring", "init", file)
	wants(t, r.out, file, "Back this file up", "every key is lost")
	made, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if strings.Contains(r.out, string(made)) {
		t.Error("the keyring was printed")
	}
	r = sh.must(1, "keyring", "init", file)
	wants(t, r.errors, "is there already and was left as it is")
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(again, made) {
		t.Error("the keyring was changed", err)
	}
	wants(t, sh.must(1, "keyring", "init", filepath.Join(t.TempDir(), "no", "dir")).errors, fs.ErrNotExist.Error()[:4])
}

func TestKeyringInitIfMissingCanBeRunAgain(t *testing.T) {
	sh := &shell{t: t}
	file := filepath.Join(t.TempDir(), "keyring")
	wants(t, sh.must(0, "keyring", "init", "--if-missing", file).out, file, "Back this file up")
	made, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, sh.must(0, "keyring", "init", "--if-missing", file).out, file, "left as it is")
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(again, made) {
		t.Error("the keyring was changed", err)
	}
	for name, what := range map[string]func(path string) error{
		"damaged":         func(path string) error { return os.WriteFile(path, made[:len(made)/2], 0o600) },
		"open to others":  func(path string) error { return os.WriteFile(path, made, 0o644) },
		"not a file":      func(path string) error { return os.Mkdir(path, 0o700) },
		"leads elsewhere": func(path string) error { return os.Symlink("gone", path) },
	} {
		other := filepath.Join(t.TempDir(), "keyring")
		if err := what(other); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			wants(t, (&shell{t: t}).must(1, "keyring", "init", "--if-missing", other).errors, other)
		})
	}
}

func TestVersionTellsTheBuild(t *testing.T) {
	sh := &shell{t: t}
	wants(t, sh.must(0, "version").out, "keyquorum ", "built with  go")
	var b map[string]any
	if err := json.Unmarshal([]byte(sh.must(0, "version", "--json").out), &b); err != nil || b["version"] == "" || b["go"] == "" {
		t.Error(b, err)
	}
}

func TestPipesGetNoColourAndTerminalsNoEscapes(t *testing.T) {
	n := &fakeNode{}
	sh := at(t, n.serve(t))
	n.active["red\x1b[31m"] = "k"
	if out := sh.must(0, "keys", "list").out; strings.Contains(out, "\x1b") {
		t.Errorf("%q", out)
	}
	n.fail = refusal(connect.CodeNotFound, "bad\x1b]0;title\a")
	if r := sh.must(1, "verify", "x"); strings.ContainsAny(r.errors, "\x1b\a") {
		t.Errorf("%q", r.errors)
	}
}

// What a claim or a name holds reads the same from the JSON, and does nothing to a terminal on the way.
func TestJSONDoesNotSteerTheTerminal(t *testing.T) {
	n := &fakeNode{}
	sh := at(t, n.serve(t))
	const bad = "esc\x1b[31m c1\u009b31m del\x7f line\u2028paragraph\u2029 bidi\u202e\u2066 mark\u200f bom\ufeff tag\U000e0041 fine: é 漢 😀"
	n.tokens["bad"] = &v1.VerifyResponse{Valid: true, Claims: claimsOf(t, map[string]any{bad: bad})}
	for _, args := range [][]string{{"verify", "bad", "--json"}, {"verify", "bad"}} {
		out := sh.must(0, args...).out
		for _, r := range strings.ReplaceAll(out, "\n", "") {
			if !unicode.IsPrint(r) {
				t.Errorf("%v prints %U: %q", args, r, out)
			}
		}
		wants(t, out, "fine: é 漢 😀")
	}
	var got struct{ Claims map[string]string }
	if err := json.Unmarshal([]byte(sh.must(0, "verify", "bad", "--json").out), &got); err != nil || got.Claims[bad] != bad {
		t.Errorf("%q, %v", got.Claims, err)
	}
}

func TestColourIsForTerminalsThatWantIt(t *testing.T) {
	terminal, err := os.Open(os.DevNull) // a character device, as terminals are
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	for name, want := range map[string]bool{"": true, "NO_COLOR": false, "TERM": false} {
		set := map[string]string{name: "dumb"}
		env := func(asked string) (string, bool) { v, ok := set[asked]; return v, ok }
		if got := newPrinter(terminal, env).colour; got != want {
			t.Errorf("with %q set: %t", name, got)
		}
	}
}

// Whatever the client can fail with has an exit code of its own choosing: those that settle nothing are 3.
func TestEveryFailureHasItsExitCode(t *testing.T) {
	for _, refused := range []error{
		client.ErrInvalidArgument, client.ErrNotFound, client.ErrConflict, client.ErrResourceExhausted, client.ErrFailedPrecondition,
		client.ErrUnauthenticated, client.ErrPermissionDenied, errInvalidToken,
	} {
		if exitCode(refused) != 1 {
			t.Errorf("%v: %d", refused, exitCode(refused))
		}
	}
	for _, silent := range []error{
		client.ErrUnavailable, client.ErrDeadlineExceeded, client.ErrOutcomeUnknown, client.ErrCanceled, client.ErrUnimplemented,
		client.ErrInternal, errNonsense, errUnwritten, context.Canceled, context.DeadlineExceeded,
	} {
		if exitCode(silent) != 3 {
			t.Errorf("%v: %d", silent, exitCode(silent))
		}
	}
}

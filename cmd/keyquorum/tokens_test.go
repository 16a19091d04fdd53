package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/protobuf/proto"

	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

func TestATokenIsAloneOnStdoutAndPipesIntoVerify(t *testing.T) {
	sh := at(t, (&fakeNode{}).serve(t))
	token := sh.must(0, "issue", "alice")
	if token.out != "token-0.of.alice\n" || token.errors != "" {
		t.Fatalf("%+v", token)
	}
	sh.stdin = token.out
	good := sh.must(0, "verify", "-")
	wants(t, good.out, "valid\n", "subject   alice", "key       1-k", "expires   2026-11-01T12:15:00Z", "node      n1")

	sh.must(0, "revoke", "alice")
	bad := sh.must(1, "verify", "-")
	wants(t, bad.out, "invalid: KEY_NOT_FOUND (its key was rotated away")
	if bad.errors != "" {
		t.Errorf("an answer is no error: %q", bad.errors)
	}
}

func TestIssueSendsWhatItsFlagsSay(t *testing.T) {
	n := &fakeNode{}
	sh := at(t, n.serve(t))
	sh.must(0, "issue", "alice", "--ttl", "90s", "--audience", "a,b", "--audience=c", "--claims", `{"plan":"pro"}`)
	want := &v1.IssueRequest{Subject: "alice", Audience: []string{"a,b", "c"}, Claims: claimsOf(t, map[string]any{"plan": "pro"})}
	if n.issued.GetTtl().AsDuration() != 90*time.Second {
		t.Error(n.issued.GetTtl())
	}
	n.issued.Ttl = nil
	if !proto.Equal(n.issued, want) {
		t.Error(n.issued)
	}
	sh.must(0, "issue", "alice")
	if !proto.Equal(n.issued, &v1.IssueRequest{Subject: "alice"}) {
		t.Errorf("what was not asked for was sent: %v", n.issued)
	}
}

func TestClaimsComeFromAFileOrStdin(t *testing.T) {
	n := &fakeNode{}
	sh := at(t, n.serve(t))
	sh.stdin = `{"from":"stdin"}`
	sh.must(0, "issue", "alice", "--claims", "-")
	wants(t, n.issued.GetClaims().GetFields()["from"].GetStringValue(), "stdin")

	file := filepath.Join(t.TempDir(), "claims.json")
	if err := os.WriteFile(file, []byte(`{"from":"file"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	sh.must(0, "issue", "alice", "--claims", "@"+file)
	wants(t, n.issued.GetClaims().GetFields()["from"].GetStringValue(), "file")
}

func TestBadClaimsAreAUsageErrorAndNothingIsSent(t *testing.T) {
	n := &fakeNode{}
	sh := at(t, n.serve(t))
	for claims, want := range map[string]string{
		`{"id":9007199254740993}`: "claims.id: the integer 9007199254740993 is beyond",
		`{"a":1,"a":2}`:           "claims.a: comes twice",
		`[1]`:                     "must be a JSON object",
		`{"a"`:                    "ends too early",
		`@/no/such/file`:          "no such file",
	} {
		r := sh.must(2, "issue", "alice", "--claims", claims)
		wants(t, r.errors, "keyquorum issue: --claims: ", want)
	}
	if n.issued != nil {
		t.Error(n.issued)
	}
}

func TestVerifyAsksForItsAudience(t *testing.T) {
	n := &fakeNode{}
	at(t, n.serve(t)).must(1, "verify", "a.b.c", "--audience", "shop", "--omit-claims")
	if n.verified.GetAudience() != "shop" || !n.verified.GetOmitClaims() || n.verified.GetToken() != "a.b.c" {
		t.Error(n.verified)
	}
}

func TestVerifyAsksForALevel(t *testing.T) {
	n := &fakeNode{}
	sh := at(t, n.serve(t))
	for given, want := range map[string]v1.VerifyRequest_Consistency{
		"": 0, "bounded": v1.VerifyRequest_BOUNDED, "linearizable": v1.VerifyRequest_LINEARIZABLE, "stale-ok": v1.VerifyRequest_STALE_OK,
	} {
		args := []string{"verify", "a.b.c"}
		if given != "" {
			args = append(args, "--consistency", given)
		}
		sh.must(1, args...)
		if got := n.verified.GetConsistency(); got != want {
			t.Errorf("%q asks for %v", given, got)
		}
	}
	wants(t, sh.must(2, "verify", "a.b.c", "--consistency", "strong").errors, "--consistency", "bounded, linearizable or stale-ok")
}

func TestNoTokenOnStdinIsAUsageError(t *testing.T) {
	sh := at(t, (&fakeNode{}).serve(t))
	sh.stdin = "\n"
	wants(t, sh.must(2, "verify", "-").errors, "there is none on stdin")
	sh.stdin = strings.Repeat("x", maxInputBytes+1)
	wants(t, sh.must(1, "verify", "-").errors, "stdin is longer than")
}

// onFirstRead is a stdin on which nothing ever comes.
type onFirstRead struct {
	do    func()
	never chan struct{}
}

func (r onFirstRead) Read([]byte) (int, error) {
	r.do()
	<-r.never
	return 0, io.EOF
}

func TestAnInterruptEndsTheWaitForStdin(t *testing.T) {
	address := (&fakeNode{}).serve(t)
	env := func(name string) (string, bool) { return address, name == "KEYQUORUM_ADDR" }
	for _, line := range []string{"verify -", "issue alice --claims -"} {
		ctx, cancel := context.WithCancel(t.Context())
		stdin := onFirstRead{cancel, make(chan struct{})}
		var told strings.Builder
		if code := run(ctx, strings.Fields(line), stdin, io.Discard, &told, env); code != 3 {
			t.Errorf("%s: exit %d", line, code)
		}
		wants(t, told.String(), "given up while reading")
		close(stdin.never)
	}
}

func TestAStdinThatCannotBeReadIsAUsageError(t *testing.T) {
	var told strings.Builder
	stdin := iotest.ErrReader(errors.New("is a directory"))
	if code := run(t.Context(), []string{"verify", "-"}, stdin, io.Discard, &told, noEnv); code != 2 {
		t.Errorf("exit %d", code)
	}
	wants(t, told.String(), "TOKEN: is a directory")
}

// A later version's nodes may have reasons that this one has no words for.
func TestAReasonWithoutWordsIsToldAsSuch(t *testing.T) {
	n := &fakeNode{}
	sh := at(t, n.serve(t))
	n.tokens["odd"] = &v1.VerifyResponse{Reason: 99}
	wants(t, sh.must(1, "verify", "odd").out, "invalid: 99 (a reason that this version does not know)")
}

// What a script reads is what it would get by POST.
func TestJSONIsThatOfTheWire(t *testing.T) {
	n := &fakeNode{status: &v1.StatusResponse{ClusterId: "c"}}
	address := n.serve(t)
	sh := at(t, address)
	sh.must(0, "issue", "alice", "--claims", `{"z":1,"a":[true,null]}`)
	for _, c := range []struct {
		code       int
		args       []string
		path, body string
	}{
		{0, []string{"verify", "token-0.of.alice"}, "TokenService/Verify", `{"token":"token-0.of.alice"}`},
		{1, []string{"verify", "nonsense"}, "TokenService/Verify", `{"token":"nonsense"}`},
		{0, []string{"keys", "get", "alice"}, "KeyService/Get", `{"subject":"alice"}`},
		{0, []string{"keys", "list"}, "KeyService/List", `{"pageSize":1000}`},
		{0, []string{"cluster", "status"}, "ClusterService/Status", `{}`},
	} {
		got := sh.must(c.code, append(c.args, "--json")...)
		if want := post(t, address, c.path, c.body) + "\n"; got.out != want {
			t.Errorf("%v\n got %s\nwant %s", c.args, got.out, want)
		}
	}
	wants(t, sh.must(1, "verify", "x", "--json").out, `"valid":false`, `"reason":"MALFORMED"`)
	wants(t, sh.must(0, "issue", "alice", "--json").out, `"token":"token-1.of.alice"`, `"expiresAt":"2026-11-01T12:15:00Z"`)
	wants(t, sh.must(0, "rotate", "alice", "--json").out, `{"keyId":"2-k","revision":"2"}`)
	wants(t, sh.must(0, "revoke", "alice", "--json").out, `"keyId":"3-k","revision":"3","finality":{"appliedNodes":3,"expiredNodes":2,"took":"6.250400s"}`)
	wants(t, sh.must(0, "delete", "alice", "--json").out, `"revision":"4","finality":{"appliedNodes":3,"expiredNodes":0,"took":"0.004s"}`)
}

func post(t *testing.T, address, path, body string) string {
	t.Helper()
	res, err := http.Post(address+"/keyquorum.v1."+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEveryReasonHasItsWords(t *testing.T) {
	for number, name := range v1.VerifyResponse_Reason_name {
		if number != 0 && reasons[v1.VerifyResponse_Reason(number)] == "" {
			t.Errorf("%s has none", name)
		}
	}
}

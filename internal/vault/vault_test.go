//go:build unix

package vault_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyquorum/keyquorum/internal/seal"
	"github.com/keyquorum/keyquorum/internal/vault"
	"github.com/keyquorum/keyquorum/internal/vault/vaulttest"
)

const token = "hvs.CAESIhunter2hunter2"

func environment(vars ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(vars); i += 2 {
			if vars[i] == name {
				return vars[i+1], true
			}
		}
		return "", false
	}
}

// at gives the URL of a keyring that a test's server encrypts.
func at(server *httptest.Server, file string, more ...string) string {
	return "vault+" + server.URL + "/transit/my-key?file=" + file + strings.Join(append([]string{""}, more...), "&")
}

func open(t *testing.T, spec string, vars ...string) *seal.Store {
	t.Helper()
	source, err := vault.Parse(spec, environment(vars...))
	if err != nil {
		t.Fatal(err)
	}
	return seal.From(source)
}

func start(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

// documented has a request and its answer as they are in the API's documentation, word by word: "Transit secrets engine
// (API)", Encrypt data and Decrypt data, at https://openbao.org/api-docs/secret/transit/ and
// https://developer.hashicorp.com/vault/api-docs/secret/transit.
type documented struct {
	path, request, response string
}

var examples = map[string]documented{
	"encrypt": {
		path:    "/v1/transit/encrypt/my-key",
		request: `{"plaintext":"dGhlIHF1aWNrIGJyb3duIGZveAo="}`,
		response: `{
  "data": {
    "ciphertext": "vault:v1:XjsPWPjqPrBi1N2Ms2s1QM798YyFWnO4TR4lsFA="
  }
}`,
	},
	"decrypt": {
		path:    "/v1/transit/decrypt/my-key",
		request: `{"ciphertext":"vault:v1:XjsPWPjqPrBi1N2Ms2s1QM798YyFWnO4TR4lsFA="}`,
		response: `{
  "data": {
    "plaintext": "dGhlIHF1aWNrIGJyb3duIGZveAo="
  }
}`,
	},
}

// The wire format is that of the documentation: its sample requests are what is sent, and its sample responses are read.
func TestDocumentedExamples(t *testing.T) {
	var example documented
	var called bool
	server := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		called = true
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.URL.Path != example.path || r.URL.RawQuery != "" || string(body) != example.request {
			t.Errorf("%s %s with %s", r.Method, r.URL, body)
		}
		if got := r.Header["X-Vault-Token"]; len(got) != 1 || got[0] != token {
			t.Errorf("X-Vault-Token: %d values", len(got))
		}
		if got := r.Header["X-Vault-Namespace"]; len(got) != 1 || got[0] != "ns1/" {
			t.Errorf("X-Vault-Namespace: %q", got)
		}
		_, _ = io.WriteString(w, example.response)
	}))
	file := filepath.Join(t.TempDir(), "keyring")
	source, err := vault.Parse(at(server, file, "namespace=ns1/"), environment("VAULT_TOKEN", token))
	if err != nil {
		t.Fatal(err)
	}
	example = examples["encrypt"]
	if err := source.Create(t.Context(), []byte("the quick brown fox\n")); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(file); string(b) != "vault:v1:XjsPWPjqPrBi1N2Ms2s1QM798YyFWnO4TR4lsFA=\n" {
		t.Errorf("the file has %q", b)
	}
	example = examples["decrypt"]
	b, err := source.Read(t.Context())
	if err != nil || string(b) != "the quick brown fox\n" {
		t.Errorf("%q, %v", b, err)
	}
	if !called {
		t.Error("nobody was asked")
	}
}

func TestKeyringInVault(t *testing.T) {
	fake := &vaulttest.Server{Mount: "a/transit", Key: "my-key", Token: token, Namespace: "ns1"}
	server := start(t, fake)
	dir := t.TempDir()
	file := filepath.Join(dir, "keyring")
	tokenFile := filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := "vault+" + server.URL + "/a/transit/my-key?file=" + file + "&namespace=ns1&token-file=" + tokenFile
	store := open(t, spec)
	if _, err := store.Load(t.Context()); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "keyring init") {
		t.Errorf("before it is there: %v", err)
	}
	if err := store.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Init(t.Context()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	first, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	added, err := store.Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if change, err := first.Compare(second, func(uint32) bool { return true }); err != nil || len(change.Added) != 1 || change.Added[0] != added {
		t.Errorf("%+v, %v", change, err)
	}
	if err := store.Drop(t.Context(), first.Primary(), added); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(b), "vault:v1:") || strings.Contains(string(b), "keyset") {
		t.Errorf("the file has %q, %v", b, err)
	}
	if info, _ := os.Stat(file); info.Mode() != 0o600 {
		t.Errorf("its mode is %v", info.Mode())
	}
}

func TestServiceOverTLS(t *testing.T) {
	fake := &vaulttest.Server{Mount: "transit", Key: "my-key"}
	server := httptest.NewTLSServer(fake)
	defer server.Close()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, b, 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "keyring")
	if err := open(t, at(server, file)).Init(t.Context()); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("a certificate of an unknown CA: %v", err)
	}
	if err := open(t, at(server, file), "VAULT_CACERT", ca).Init(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := open(t, at(server, file, "ca="+ca)).Load(t.Context()); err != nil {
		t.Error(err)
	}
}

// What goes wrong says what to do, has no token in it, and tells what can be better later from what cannot.
func TestFailures(t *testing.T) {
	fake := &vaulttest.Server{Mount: "transit", Key: "my-key", Token: token}
	good := start(t, fake)
	file := filepath.Join(t.TempDir(), "keyring")
	if err := open(t, at(good, file), "VAULT_TOKEN", token).Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	closed := httptest.NewServer(fake)
	closed.Close()
	answer := func(status int, body string) string {
		return at(start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, strings.ReplaceAll(body, "TOKEN", r.Header.Get("X-Vault-Token")))
		})), file)
	}
	for name, c := range map[string]struct {
		spec, token string
		later       bool
		word        string
	}{
		"nobody listens":       {at(closed, file), token, true, "refused"},
		"wrong token":          {at(good, file), token + "x", false, "must be allowed to update"},
		"no token":             {at(good, file), "", false, "permission denied"},
		"sealed":               {answer(503, `{"errors":["Vault is sealed"]}`), token, true, "Vault is sealed"},
		"overloaded":           {answer(429, `{"errors":[]}`), token, true, "429"},
		"broken":               {answer(500, `<html>`), token, true, "500"},
		"other key":            {answer(400, `{"errors":["invalid ciphertext: no prefix"]}`), token, false, "no prefix"},
		"says the token":       {answer(400, `{"errors":["no such token TOKEN"]}`), token, false, "[token]"},
		"says much":            {answer(400, `{"errors":["`+strings.Repeat("x", 10000)+`"]}`), token, false, "…"},
		"redirects":            {answer(307, ``), token, false, "redirects are not followed"},
		"no JSON":              {answer(200, `hello`), token, false, "makes no sense"},
		"other JSON":           {answer(200, `{"data":{}}`), token, false, "no plaintext"},
		"no base64":            {answer(200, `{"data":{"plaintext":"??"}}`), token, false, "makes no sense"},
		"no keyring":           {answer(200, `{"data":{"plaintext":"aHVudGVyMg=="}}`), token, false, "damaged"},
		"endless":              {answer(200, `{"data":{"plaintext":"`+strings.Repeat("A", 300<<10)+`"}}`), token, true, "too long"},
		"header in the token":  {at(good, file), "a\r\nX-Evil: 1", true, "invalid header"},
		"no CAs there":         {at(good, file, "ca=/nowhere"), token, false, "/nowhere"},
		"no token file there":  {at(good, file, "token-file=/nowhere"), token, false, "/nowhere"},
		"a token file of dirs": {at(good, file, "token-file=/"), token, false, "not a regular file"},
	} {
		_, err := open(t, c.spec, "VAULT_TOKEN", c.token).Load(t.Context())
		if err == nil || errors.Is(err, seal.ErrUnavailable) != c.later || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v; want one with %q, later %v", name, err, c.word, c.later)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || len(err.Error()) > 1000 {
			t.Errorf("%s: the error shows a secret, or is long: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := open(t, at(good, file), "VAULT_TOKEN", token).Load(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	if err := os.WriteFile(file, []byte(`{"format":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, at(good, file), "VAULT_TOKEN", token).Load(t.Context()); err == nil || !strings.Contains(err.Error(), "vault:v") {
		t.Errorf("a plain keyring: %v", err)
	}
}

func TestURLs(t *testing.T) {
	for spec, word := range map[string]string{
		"vault+https://h:8200/transit/key":                       "in which file",
		"vault+https://h:8200/key?file=f":                        "must name the transit engine",
		"vault+https://h:8200/transit//key?file=f":               "must name the transit engine",
		"vault+https://h:8200/transit/../key?file=f":             "must name the transit engine",
		"vault+https:///transit/key?file=f":                      "must name a host",
		"vault+https://u:hunter2@h/transit/key?file=f":           "must not have a user",
		"vault+https://h/transit/key?file=f#x":                   "after a #",
		"vault+https://h/transit/key?file=f&file=g":              "several",
		"vault+https://h/transit/key?file=":                      "no value",
		"vault+https://h/transit/key?file=f&tokn=x":              `"tokn"`,
		"vault+https://h/transit/key?file=f&insecure=yes":        "insecure=true",
		"vault+http://vault:8200/transit/key?file=f":             "without TLS",
		"vault+http://10.0.0.1:8200/transit/key?file=f":          "without TLS",
		"vault+https://h:hunter2/transit/key?file=f":             "not a URL",
		"vault+https://h/transit/key?file=%zz":                   "query",
		"vault+ftp://h/transit/key?file=f":                       "must begin with",
		"vault+http://127.0.0.1:8200/transit/key?file=f":         "",
		"vault+http://[::1]:8200/transit/key?file=f":             "",
		"vault+http://localhost:8200/transit/key?file=f":         "",
		"vault+http://vault/transit/key?file=f&insecure=true":    "",
		"vault+https://h/a/b/key?file=/f&namespace=n&ca=/c":      "",
		"vault+https://h/transit/key?token-file=%2Fa%20b&file=f": "",
	} {
		source, err := vault.Parse(spec, environment("VAULT_TOKEN", token))
		switch {
		case word == "" && err != nil:
			t.Errorf("%s: %v", spec, err)
		case word != "" && (err == nil || !strings.Contains(err.Error(), word)):
			t.Errorf("%s: %v, want one with %q", spec, err, word)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error shows a secret: %v", spec, err)
		case err == nil && strings.Contains(fmt.Sprintf("%v %+v %#v %s", source, source, *source, source), token):
			t.Errorf("%s: it prints the token", spec)
		}
	}
}

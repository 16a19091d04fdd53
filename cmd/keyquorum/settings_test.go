package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func settingsIn(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyquorum.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagBeatsEnvironmentBeatsFile(t *testing.T) {
	n := &fakeNode{}
	file := settingsIn(t, "addr: "+n.serve(t)+"\nttl: 1m\naudience: [file-a, file-b]\n")
	sh := &shell{t: t, env: map[string]string{"KEYQUORUM_CONFIG": file}}
	check := func(ttl time.Duration, audience string, args ...string) {
		t.Helper()
		sh.must(0, append([]string{"issue", "alice"}, args...)...)
		if n.issued.GetTtl().AsDuration() != ttl || strings.Join(n.issued.GetAudience(), " ") != audience {
			t.Error(n.issued)
		}
	}
	check(time.Minute, "file-a file-b")
	sh.env["KEYQUORUM_TTL"], sh.env["KEYQUORUM_AUDIENCE"] = "2m", "env"
	check(2*time.Minute, "env")
	check(3*time.Minute, "flag", "--ttl", "3m", "--audience", "flag")
	sh.env["KEYQUORUM_TTL"] = "" // as good as not set
	check(time.Minute, "env")
	sh.env["KEYQUORUM_CONFIG"] = "/nonexistent"
	check(time.Minute, "env", "--config", file)
}

func TestJSONCanBeASetting(t *testing.T) {
	address := (&fakeNode{}).serve(t)
	sh := &shell{t: t, env: map[string]string{"KEYQUORUM_ADDR": address, "KEYQUORUM_JSON": "true"}}
	wants(t, sh.must(0, "issue", "alice").out, `{"token":`)
	if out := sh.must(0, "issue", "alice", "--json=false").out; strings.Contains(out, "{") {
		t.Error(out)
	}
}

func TestAllFaultsAreToldAtOnce(t *testing.T) {
	file := settingsIn(t, "adress: x\ntimeout: soon\naddr: ['ok:1', 'h:0']\nttl: [1m, 2m]\nttl: 3m\njson:\n")
	sh := &shell{t: t, env: map[string]string{"KEYQUORUM_CONFIG": file, "KEYQUORUM_JSON": "perhaps", "KEYQUORUM_AUDIENCE": "a"}}
	r := sh.must(2, "issue", "--timeout", "later", "--expected", "x")
	for _, want := range []string{
		"--timeout: \"later\" is not a duration",
		"unknown flag --expected",
		"KEYQUORUM_JSON: \"perhaps\" is neither true nor false",
		file + ":1: adress: there is no such setting",
		file + ":3: addr: address \"h:0\": the port must be",
		file + ":4: ttl: takes one value, not a list",
		file + ":5: ttl: was set in line 4 already",
		file + ":6: json: needs a value",
	} {
		wants(t, r.errors, "keyquorum issue: "+want)
	}
	if r.out != "" {
		t.Error(r.out)
	}
}

func TestWhatBelongsToOneCallIsNoSetting(t *testing.T) {
	n := &fakeNode{}
	sh := at(t, n.serve(t))
	sh.must(0, "issue", "alice")
	sh.env["KEYQUORUM_EXPECTED_KEY_ID"] = "another"
	sh.must(0, "rotate", "alice")
	for _, key := range []string{"expected-key-id", "claims", "help", "config"} {
		r := sh.must(2, "rotate", "alice", "--config", settingsIn(t, key+": x\n"))
		wants(t, r.errors, ":1: "+key+": there is no such setting")
	}
}

func TestOneFileServesAllCommands(t *testing.T) {
	n := &fakeNode{}
	sh := &shell{t: t}
	file := settingsIn(t, "# for all\naddr: "+n.serve(t)+"\nttl: 1m\n")
	sh.must(0, "issue", "alice", "--config", file)
	sh.must(0, "rotate", "alice", "--config="+file)
	sh.must(0, "version", "--config="+file)
}

func TestFilesThatAreNoSettings(t *testing.T) {
	for text, want := range map[string]string{
		"- a\n- b\n":             "must hold lines of the form",
		"just text\n":            "must hold lines of the form",
		"a: b\n---\nc: d\n":      "more than one YAML document",
		"addr: [\n":              "is not YAML",
		"addr: {host: x}\n":      "addr: needs a value",
		"addr: []\n":             "addr: needs a value",
		"addr: [[x]]\n":          "addr: needs a value",
		"\x00":                   "is not YAML",
		"timeout: 5\n":           "is not a duration",
		"timeout: 0s\n":          "is no time to wait",
		"json: yes\n":            "is neither true nor false",
		"addr: 127.0.0.1:99999n": "the port must be",
	} {
		r := (&shell{t: t}).must(2, "issue", "alice", "--config", settingsIn(t, text))
		wants(t, r.errors, want)
	}
	r := (&shell{t: t}).must(2, "issue", "alice", "--config", "/no/such/file")
	wants(t, r.errors, "--config: open /no/such/file: no such file")
}

func TestEmptyFilesSetNothing(t *testing.T) {
	address := (&fakeNode{}).serve(t)
	for _, text := range []string{"", "# nothing\n", "---\n", "null\n", "{}\n"} {
		at(t, address).must(0, "issue", "alice", "--config", settingsIn(t, text))
	}
}

func TestUsageErrorsNameTheFlag(t *testing.T) {
	for line, want := range map[string]string{
		"issue":                       `expected "<subject>"`,
		"issue alice extra":           "unexpected argument extra",
		"issue alice --ttl":           "--ttl: needs a value",
		"issue alice --ttl --json":    "--ttl: needs a value",
		"issue alice --claims":        "--claims: needs a value",
		"issue alice --ttl 5":         `--ttl: "5" is not a duration`,
		"issue alice --tll 5s":        "unknown flag --tll, did you mean",
		"issue alice --addr=":         `--addr: address ""`,
		"issue alice --timeout=-1s":   `--timeout: "-1s" is no time to wait`,
		"issue alice --json=maybe":    "--json",
		"keys list --limit=-1":        `--limit: "-1" is not a number`,
		"isue":                        "unexpected argument isue",
		"keys":                        `expected one of "get", "list"`,
		"keyring init":                `expected "<file>"`,
		"issue alice --addr a,b:c,d":  `--addr: address "b:c"`,
		"issue alice --addr ftp://a ": "the scheme must be",
	} {
		r := (&shell{t: t}).must(2, strings.Fields(line)...)
		wants(t, r.errors, want, "--help")
		if r.out != "" {
			t.Errorf("%s: %q on stdout", line, r.out)
		}
	}
}

func FuzzSettingsFile(f *testing.F) {
	f.Add("addr: [a, b]\nttl: 5m\n")
	f.Add("a: &x [1]\nb: *x\n")
	f.Add("? {a: b}\n: c\n<<: {d: e}\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := settingsIn(t, text)
		file, err := readSettings(path)
		if err != nil {
			return
		}
		for _, key := range file.keys() {
			if len(file.values[key].texts) == 0 {
				t.Errorf("%q has no value", key)
			}
		}
	})
}

// FuzzSettings has a command read any file as its settings, through to the checks of their values: what is wrong is told, as wrong
// usage and by the file's name.
func FuzzSettings(f *testing.F) {
	f.Add("name: n1\ndata-dir: /d\nkeyring: /k\ninsecure: true\nlisten: 127.0.0.1:7400\nraft-listen: :7401\ngossip-listen: '[::1]:7402'\n")
	f.Add("tls-cert: c\ntls-key: k\ntls-ca: a\njoin: [a:1, b:2]\nregion: r\nreplica: true\naudit-max-size: 64MiB\naudit-failure: warn\n")
	f.Add("addr: https://a:1,b\ntoken-file: t\ntimeout: 5s\ncaller-rate: -1\nlog-level: debug\nlog-format: json\n")
	f.Add("name: [a, b]\nnosuch: 1\nreplica: maybe\nadvertise: 1.2.3.4\nkeyring: vault://h/p?x=y\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := settingsIn(t, text)
		env := func(string) (string, bool) { return "", false }
		for _, args := range [][]string{{"serve"}, {"verify", "t"}, {"keyring", "status"}} {
			s := &session{out: newPrinter(io.Discard, env), err: newPrinter(io.Discard, env), env: env}
			line, err := parse(append(args, "--config", path), s)
			if err == nil && line.run == nil {
				t.Errorf("%q: nothing to run, and no fault", args)
			}
			if usage := (*usageError)(nil); err != nil && !errors.As(err, &usage) {
				t.Errorf("%q: %v is not wrong usage", args, err)
			}
		}
	})
}

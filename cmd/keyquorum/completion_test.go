package main

import (
	"os/exec"
	"strings"
	"testing"
)

// Each case is what a user has typed, and what may be offered for its last word.
var completions = []struct {
	typed string
	has   []string
	not   string
}{
	{"keyquorum ", []string{"serve", "issue", "cluster"}, "members"},
	{"keyquorum cl", []string{"cluster"}, "serve"},
	{"keyquorum cluster ", []string{"init", "members", "transfer-leadership", "settings"}, "serve"},
	{"keyquorum cluster settings ", []string{"get", "set"}, "init"},
	{"keyquorum cluster settings set --m", []string{"--mode", "--max-ttl", "--min-ttl"}, "--addr"},
	{"keyquorum ca ", []string{"init", "issue-node", "issue-client"}, "serve"},
	{"keyquorum ca issue-node ca n1 --", []string{"--host", "--out", "--valid-for"}, "--role"},
	{"keyquorum serve --data-dir x --ra", []string{"--raft-listen"}, "--data-dir"},
}

func TestBashCompletes(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash on this machine to try the script in")
	}
	script := (&shell{t: t}).must(0, "completion", "bash").out
	for _, c := range completions {
		words := strings.Split(c.typed, " ")
		ask := script + `
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_keyquorum
printf '%s\n' "${COMPREPLY[@]}"
`
		out, err := exec.CommandContext(t.Context(), bash, append([]string{"-c", ask, "bash"}, words...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		offered := strings.Fields(string(out))
		for _, want := range c.has {
			if !strings.Contains(" "+strings.Join(offered, " ")+" ", " "+want+" ") {
				t.Errorf("%q: %q is not among %v", c.typed, want, offered)
			}
		}
		if strings.Contains(" "+strings.Join(offered, " ")+" ", " "+c.not+" ") {
			t.Errorf("%q: %q is among %v", c.typed, c.not, offered)
		}
	}
}

func TestCompletionForEveryShell(t *testing.T) {
	sh := &shell{t: t}
	for _, name := range []string{"bash", "zsh", "fish"} {
		wants(t, sh.must(0, "completion", name).out, "keyquorum", "transfer-leadership", "data-dir")
	}
	wants(t, sh.must(2, "completion", "csh").errors, "csh", "none of bash, zsh, fish")
}

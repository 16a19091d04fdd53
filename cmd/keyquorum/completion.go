package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// completionCommand prints a script for a shell. The script is complete by itself: it has all commands and flags, and
// runs nothing when a key is pressed.
type completionCommand struct {
	Shell string `arg:"" help:"bash, zsh or fish."`
}

func (*completionCommand) Help() string {
	return `For bash: source <(keyquorum completion bash). For zsh: keyquorum completion zsh > "${fpath[1]}/_keyquorum". For fish: keyquorum completion fish > ~/.config/fish/completions/keyquorum.fish.`
}

var shells = map[string]func(words []level) string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}

func (c *completionCommand) run(_ context.Context, s *session) error {
	script, ok := shells[c.Shell]
	if !ok {
		return usagef("%s is none of bash, zsh, fish", quoted(c.Shell))
	}
	app := newApp(&root{}, newSettings(s.env), s)
	s.out.printf("%s", script(levels(app.Model.Node, nil)))
	return nil
}

// level is what can follow some words of the command line.
type level struct {
	path     []string
	commands []word
	flags    []word
}

// word is a command or a flag, and what it is for.
type word struct{ text, help string }

// levels gives that of a command, and those of all below it.
func levels(node *kong.Node, path []string) []level {
	l := level{path: path}
	for _, group := range node.AllFlags(true) {
		for _, f := range group {
			l.flags = append(l.flags, word{"--" + f.Name, f.Help})
		}
	}
	all := []level{l}
	for _, child := range node.Children {
		all[0].commands = append(all[0].commands, word{child.Name, child.Help})
		all = append(all, levels(child, append(slices.Clone(path), child.Name))...)
	}
	return all
}

func joinedWords(words []word) string {
	var out []string
	for _, w := range words {
		out = append(out, w.text)
	}
	return strings.Join(out, " ")
}

// bashCompletion finds the longest command that the words before the cursor name, and offers what can follow.
func bashCompletion(all []level) string {
	var cases strings.Builder
	for _, l := range all {
		fmt.Fprintf(&cases, "    '%s') commands='%s' flags='%s' ;;\n", strings.Join(l.path, " "), joinedWords(l.commands), joinedWords(l.flags))
	}
	return `# bash completion for keyquorum
_keyquorum_level() {
  case "$1" in
` + cases.String() + `    *) return 1 ;;
  esac
}

_keyquorum() {
  local commands flags path='' next word i
  _keyquorum_level ''
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    [[ $word == -* ]] && continue
    next="${path:+$path }$word"
    if [[ " $commands " == *" $word "* ]]; then
      path=$next
      _keyquorum_level "$path"
    fi
  done
  if [[ ${COMP_WORDS[COMP_CWORD]} == -* || -z $commands ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "${COMP_WORDS[COMP_CWORD]}")
  else
    mapfile -t COMPREPLY < <(compgen -W "$commands" -- "${COMP_WORDS[COMP_CWORD]}")
  fi
}
complete -o default -F _keyquorum keyquorum
`
}

// zshCompletion does the same, and shows what each word is for.
func zshCompletion(all []level) string {
	var cases strings.Builder
	for _, l := range all {
		fmt.Fprintf(&cases, "    '%s')\n      commands=(%s)\n      flags=(%s)\n      ;;\n",
			strings.Join(l.path, " "), zshWords(l.commands), zshWords(l.flags))
	}
	return `#compdef keyquorum
_keyquorum_level() {
  case "$1" in
` + cases.String() + `    *) return 1 ;;
  esac
}

_keyquorum() {
  local -a commands flags
  local at='' w
  _keyquorum_level ''
  for w in ${words[2,CURRENT-1]}; do
    [[ $w == -* ]] && continue
    if (( ${commands[(I)$w:*]} )); then
      at="${at:+$at }$w"
      _keyquorum_level "$at"
    fi
  done
  if [[ ${words[CURRENT]} == -* || ${#commands} -eq 0 ]]; then
    _describe -o flag flags || _files
  else
    _describe command commands
  fi
}
if [[ $funcstack[1] == _keyquorum ]]; then
  _keyquorum "$@" # autoloaded, for the first time
else
  compdef _keyquorum keyquorum
fi
`
}

func zshWords(list []word) string {
	var out []string
	for _, w := range list {
		out = append(out, shellQuoted(w.text+":"+strings.ReplaceAll(w.help, ":", `\:`)))
	}
	return strings.Join(out, " ")
}

// fishCompletion is a line for each word, with the words that must come before it.
func fishCompletion(all []level) string {
	var b strings.Builder
	b.WriteString(`# fish completion for keyquorum
function __keyquorum_at
    set -l words
    for w in (commandline -opc)[2..]
        string match -q -- '-*' $w; or set -a words $w
    end
    set -l count (count $argv)
    test $count -eq 0; and test (count $words) -gt 0; and return 1
    test (count $words) -ge $count; or return 1
    test $count -eq 0; or test "$words[1..$count]" = "$argv"
end
complete -c keyquorum -f
`)
	for _, l := range all {
		at := shellQuoted(strings.TrimSpace("__keyquorum_at " + strings.Join(l.path, " ")))
		for _, w := range l.commands {
			fmt.Fprintf(&b, "complete -c keyquorum -n %s -a %s -d %s\n", at, w.text, shellQuoted(w.help))
		}
		for _, w := range l.flags {
			fmt.Fprintf(&b, "complete -c keyquorum -n %s -l %s -d %s\n", at, strings.TrimPrefix(w.text, "--"), shellQuoted(w.help))
		}
	}
	return b.String()
}

func shellQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

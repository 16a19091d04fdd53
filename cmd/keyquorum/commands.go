package main

import (
	"github.com/alecthomas/kong"
)

const programName = "keyquorum"

const description = "One signing key per user, on a Raft cluster: issues tokens, rotates keys as the tokens expire, and verifies on any node."

// Groups of commands in help.
const (
	groupTry     = "try"
	groupTokens  = "tokens"
	groupKeys    = "keys"
	groupCluster = "cluster"
	groupOther   = "other"
)

// command is an entry of the registry. What make returns holds the flags and arguments, and is a runner or has
// subcommands that are.
type command struct {
	name  string
	group string
	help  string
	make  func() any
}

// commands are all of them, in the order of help.
var commands = []command{
	{"demo", groupTry, "See the whole story, on three nodes in this process.", func() any { return &demoCommand{} }},
	{"dev", groupTry, "Run one node in memory, to try things out.", func() any { return &devCommand{} }},
	{"setup", groupCluster, "Make the CA, the certificates and the keyring of a first cluster.", func() any { return &setupCommand{} }},
	{"serve", groupCluster, "Run a member of a cluster.", func() any { return &serveCommand{} }},
	{"issue", groupTokens, "Issue a token for a user who has been authenticated.", func() any { return &issueCommand{} }},
	{"verify", groupTokens, "Judge a token: valid, or not and why.", func() any { return &verifyCommand{} }},
	{"rotate", groupKeys, "Make a user a new key; tokens of the old one run out.", func() any { return &rotateCommand{} }},
	{"revoke", groupKeys, "Make all of a user's tokens invalid.", func() any { return &revokeCommand{} }},
	{"delete", groupKeys, "Forget a user and all keys.", func() any { return &deleteCommand{} }},
	{"keys", groupKeys, "Show users' keys; never their material.", func() any { return &keysCommand{} }},
	{"cluster", groupCluster, "Found, see and change the cluster.", func() any { return &clusterCommand{} }},
	{"api-token", groupCluster, "Make, list and revoke the API tokens of callers without a certificate.", func() any { return &apiTokenCommand{} }},
	{"audit", groupCluster, "Follow the record of all changes, and check a node's files against it.", func() any { return &auditCommand{} }},
	{"keyring", groupCluster, "Make, rotate and see the master keyring.", func() any { return &keyringCommand{} }},
	{"ca", groupCluster, "Make a small certificate authority, and certificates of nodes and clients.", func() any { return &caCommand{} }},
	{"health", groupCluster, "Ask a node whether it can serve.", func() any { return &healthCommand{} }},
	{"completion", groupOther, "Print a script that completes this command line in a shell.", func() any { return &completionCommand{} }},
	{"version", groupOther, "Print what this binary was built from.", func() any { return &versionCommand{} }},
}

// root holds the flags that every command has.
type root struct {
	Help   bool   `short:"h" percall:"" help:"Show help, also after a command."`
	Config string `placeholder:"FILE" nofile:"" help:"YAML file with settings, spelled like the flags."`
}

// newApp builds the grammar. It panics if the grammar is wrong, which no user's input can make it.
func newApp(r *root, settings *settings, s *session) *kong.Kong {
	options := []kong.Option{
		kong.Name(programName),
		kong.Description(description),
		kong.Writers(s.out, s.err),
		kong.NoDefaultHelp(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.ValueFormatter(describeValue),
		kong.ExplicitGroups([]kong.Group{
			{Key: groupTry, Title: "Try it:"},
			{Key: groupTokens, Title: "Tokens:"},
			{Key: groupKeys, Title: "Keys:"},
			{Key: groupCluster, Title: "Cluster:"},
			{Key: groupOther, Title: "Other:"},
		}),
		settings.mappers(),
		kong.Resolvers(settings),
	}
	for _, c := range commands {
		options = append(options, kong.DynamicCommand(c.name, c.help, c.group, c.make()))
	}
	app, err := kong.New(r, options...)
	if err != nil {
		panic("the command line's grammar: " + err.Error())
	}
	return app
}

// describeValue is a flag's help with the variable that also sets it.
func describeValue(v *kong.Value) string {
	if v.Flag == nil || !isSetting(v.Flag) {
		return v.Help
	}
	return v.Help + " [" + envName(v.Flag.Name) + "]"
}

func asksForHelp(kctx *kong.Context) bool {
	for _, p := range kctx.Path {
		if p.Flag != nil && p.Flag.Name == "help" {
			return kctx.FlagValue(p.Flag) == true
		}
	}
	return false
}

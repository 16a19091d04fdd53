package main

import (
	"context"
	"errors"
	"io"

	"github.com/alecthomas/kong"
)

// lookupEnv is os.LookupEnv, or what a test puts in its place.
type lookupEnv func(name string) (string, bool)

// session is what a command works with besides its own flags.
type session struct {
	stdin io.Reader
	// out takes answers, err what goes wrong and remarks that are no answer.
	out, err *printer
	env      lookupEnv
}

// runner is a command once its flags are read.
type runner interface {
	run(ctx context.Context, s *session) error
}

// environed is a command that takes from the environment what has no flag.
type environed interface {
	takeEnv(env lookupEnv)
}

// checker is a command whose flags can be wrong in ways that each alone does not show. What check tells is told
// beside all else that is wrong with the command line.
type checker interface {
	check() []string
}

// run carries out one command line and returns its exit code. It ends early when ctx does.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env lookupEnv) int {
	s := &session{stdin: stdin, out: newPrinter(stdout, env), err: newPrinter(stderr, env), env: env}
	name, err := s.execute(ctx, args)
	if err == nil || exitCode(err) == exitNo {
		err = joinFailure(err, s.out.failed)
	}
	report(s.err, name, err)
	return exitCode(err)
}

// execute returns the name of the command beside its error.
func (s *session) execute(ctx context.Context, args []string) (string, error) {
	line, err := parse(args, s)
	if err != nil {
		return line.name, err
	}
	if line.run == nil {
		return line.name, nil // help was asked for, and given
	}
	return line.name, line.run.run(ctx, s)
}

// commandLine is what the arguments ask for.
type commandLine struct {
	// name is the command with its parents, for messages.
	name string
	run  runner
}

// parse reads the arguments and the settings. All that is wrong with them comes in one *usageError.
func parse(args []string, s *session) (commandLine, error) {
	settings := newSettings(s.env)
	root := &root{}
	app := newApp(root, settings, s)
	kctx, err := kong.Trace(app, args)
	if err != nil {
		return commandLine{name: programName}, err
	}
	line := commandLine{name: commandName(kctx)}
	if asksForHelp(kctx) {
		return line, kctx.PrintUsage(false)
	}
	if len(args) == 0 {
		app.Stdout = s.err
		return line, errors.Join(kctx.PrintUsage(false), usagef("which command?"))
	}
	if err := settings.apply(kctx, app.Model); err != nil {
		return line, err
	}
	line.run = kctx.Selected().Target.Addr().Interface().(runner)
	return line, nil
}

func commandName(kctx *kong.Context) string {
	if node := kctx.Selected(); node != nil {
		return node.FullPath()
	}
	return programName
}
